"""A stream of one's own is refused with the field that is wrong; one that is right passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import CLASSIFICATION, REGRESSION, check_stream, random_seq2seq
from pliant.types import Batch, Split, Stream
from strict_types import unchecked

DATA = np.arange(60, dtype=np.float32).reshape(20, 3)


def _batch(data, task, indices):
    return Batch(data[indices] + task[None], indices % 4)


MINE = Stream(
    name="mine",
    dataset="generated",
    num_tasks=3,
    num_outputs=4,
    inputs=jax.ShapeDtypeStruct((3,), jnp.float32),
    train=Split(lambda index: 20 - index, _batch),
    objective=CLASSIFICATION,
    headline="train_accuracy",
    chance=0.25,
    data=jnp.asarray(DATA),
    task=lambda key, index: jax.random.normal(jax.random.fold_in(key, index), (3,)),
)
TEXTS = random_seq2seq(num_examples=8, source_words=2)


def _train(num=lambda index: 20, batch=_batch):
    return MINE._replace(train=Split(num, batch))


def test_a_stream_of_ones_own_passes():
    assert check_stream(MINE) is MINE
    assert check_stream(MINE._replace(test=MINE.train, headline="test_accuracy")).test is MINE.train
    assert check_stream(TEXTS) is TEXTS


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (MINE._replace(objective=MINE.objective._replace(scores=None)), r"got no scores .*wanted a score of every ex"),
        (MINE._replace(num_tasks=0), r"got num_tasks=0; wanted .* ≥ 1. Correct it in the stream 'mine'"),
        (MINE._replace(num_outputs=2.5), r"got num_outputs=2.5; wanted a whole number ≥ 1"),
        (MINE._replace(inputs=(3,)), r"got inputs=\(3,\) in the stream 'mine'; wanted .*jax.ShapeDtypeStruct.*Write"),
        (
            MINE._replace(headline="accuracy"),
            r"got headline='accuracy'.*wanted one of online_accuracy, train_accuracy\.",
        ),
        (
            MINE._replace(headline="test_accuracy"),
            r"got headline='test_accuracy'.*wanted one of online_accuracy, train",
        ),
        (TEXTS._replace(headline="online_bleu"), r"got headline='online_bleu' in the stream 'random-seq2seq'"),
        (MINE._replace(train=_batch), r"got train=<function .*wanted a pliant.types.Split of two functions"),
        (_train(num=lambda index: 20 * (index < 2)), r"got 0 examples from train.num\(2\) .*wanted a whole number ≥ 1"),
        (_train(num=lambda index: 20.0), r"got 20.0 examples from train.num\(0\)"),
        (MINE._replace(test=Split(lambda index: 0, _batch)), r"got 0 examples from test.num\(0\).*or leave test out"),
        (
            _train(batch=lambda *given: tuple(_batch(*given))),
            r"got a tuple from train.batch .*wanted a pliant.types.Batch",
        ),
        (
            MINE._replace(inputs=jax.ShapeDtypeStruct((2,), jnp.float32)),
            r"got inputs float32\[3, 3\] from train.batch for 3 indices .*wanted float32\[3, 2\]",
        ),
        (
            MINE._replace(data=jnp.asarray(DATA, jnp.int32), task=lambda key, index: jnp.zeros(3, jnp.int32)),
            r"got inputs int32\[3, 3\] from train.batch for 3 indices .*wanted float32\[3, 3\]",
        ),
        (TEXTS._replace(train=MINE.train, data=MINE.data, task=MINE.task), r"wanted int32\[3, 12\], int32\[3, 30\]"),
        (
            MINE._replace(objective=REGRESSION._replace(score="accuracy", losses=lambda output, *_: output**2)),
            r"got float32\[3, 4\] from objective.losses for 3 examples of train .*wanted one number for each example",
        ),
        (
            MINE._replace(task=lambda key, index: jnp.zeros(3) if index else jnp.ones(3)),
            r"got task, which needs numbers that are not known while JAX traces it.*Use jax.numpy.*JAX says: ",
        ),
        (
            MINE._replace(train=MINE.train._replace(batch=lambda data, task, i: _batch(data, np.asarray(task), i))),
            r"got train.batch, which needs numbers that are not known",
        ),
    ],
)
def test_what_is_wrong_is_named(stream, message):
    with pytest.raises(UserError, match=message):
        check_stream(stream)


def test_what_is_no_stream_is_refused():
    with pytest.raises(UserError, match=r"got a tuple as a stream; wanted a pliant.types.Stream"):
        unchecked(check_stream)(())


def test_errors_of_the_users_code_are_left_as_they_are():
    with pytest.raises(ZeroDivisionError):
        check_stream(MINE._replace(task=lambda key, index: jnp.zeros(1 // 0)))
