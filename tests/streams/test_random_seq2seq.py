import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import random_seq2seq, spell

SMALL = {"num_examples": 30, "source_words": 4, "target_words": 3, "word_length": 2}


def _texts(tokens):
    return [spell(row) for row in np.asarray(tokens)]


def test_the_papers_sizes():
    stream = random_seq2seq()
    assert (stream.num_tasks, stream.train.num(0), stream.test) == (20, 5120, None)
    assert stream.input_shape == (50 * 6, 5 * 6)
    assert (stream.headline, stream.num_outputs, stream.objective.writing.num_beams) == ("train_bleu", 29, 1)
    assert jax.eval_shape(stream.task, jax.random.key(0), 0).shape == (5120, 30)


def test_the_same_texts_to_read_and_new_ones_to_write(key):
    stream = random_seq2seq(**SMALL)
    at = jnp.arange(30)
    batches = [stream.train.batch(stream.data, stream.task(key, index), at) for index in range(3)]
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs.source, stream.data)
    targets = [set(_texts(batch.targets)) for batch in batches]
    targets.append(set(_texts(stream.task(jax.random.key(1), 0))))
    assert all(not one & other for one, other in itertools.combinations(targets, 2))
    assert len(set(_texts(stream.data))) == 30
    words = [text.split(" ") for text in targets[0]]
    assert {(len(text), len(word)) for text in words for word in text} == {(3, 2)}
    assert {len(text.split(" ")) for text in _texts(stream.data)} == {4}


def test_the_texts_to_read_are_a_data_set_for_all_seeds():
    """Neither the stream's seed nor JAX's state is in them."""
    np.testing.assert_array_equal(random_seq2seq(**SMALL).data, random_seq2seq(**SMALL, num_tasks=2).data)


def test_the_decoder_reads_the_target_moved_right(key):
    stream = random_seq2seq(**SMALL)
    batch = stream.train.batch(stream.data, stream.task(key, 1), jnp.array([4, 2]))
    np.testing.assert_array_equal(batch.targets, stream.task(key, 1)[jnp.array([4, 2])])
    np.testing.assert_array_equal(batch.inputs.decoder[:, 0], [0, 0])
    np.testing.assert_array_equal(batch.inputs.decoder[:, 1:], batch.targets[:, :-1])
    assert (batch.targets[:, -1] == 1).all()


@pytest.mark.parametrize("option", ["num_tasks", "num_examples", "source_words", "word_length", "num_beams"])
def test_numbers_below_one(option):
    with pytest.raises(UserError, match=rf"got {option}=0; wanted a finite number ≥ 1. Leave it out"):
        random_seq2seq(**SMALL | {option: 0})


def test_a_single_word_has_no_pairs_to_score():
    with pytest.raises(UserError, match=r"got target_words=1; wanted a finite number ≥ 2. BLEU-2 counts pairs"):
        random_seq2seq(target_words=1)
