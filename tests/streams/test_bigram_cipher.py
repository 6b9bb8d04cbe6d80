import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import bigram_cipher, encipher, spell

SMALL = {"num_train": 40, "num_test": 20, "num_words": 3, "word_length": 2}
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _enciphered(text, permutation):
    """The cipher on a string, letter by letter, in plain Python."""
    written, before = "", "a"
    for letter in text:
        if letter == " ":
            written += letter
            continue
        written += ALPHABET[(permutation[ALPHABET.index(letter)] + permutation[ALPHABET.index(before)]) % 26]
        before = letter
    return written


def _deciphered(text, permutation):
    """What a text was before: given π and the start letter, from left to right."""
    inverse, read, before = np.argsort(permutation), "", "a"
    for letter in text:
        if letter != " ":
            letter = before = ALPHABET[inverse[(ALPHABET.index(letter) - permutation[ALPHABET.index(before)]) % 26]]
        read += letter
    return read


def _texts(tokens):
    return [spell(row) for row in np.asarray(tokens)]


def test_the_papers_sizes():
    stream = bigram_cipher()
    assert (stream.num_tasks, stream.train.num(0), stream.test.num(0)) == (20, 1280, 512)
    assert stream.input_shape == (60, 60)
    assert (stream.headline, stream.num_outputs, stream.objective.writing.num_beams) == ("test_bleu", 29, 1)


def test_a_cipher_by_hand():
    """π is a shift by two: a → 2, b → 3, z → 1. Behind the space the letter before it still counts."""
    shift = jnp.arange(2, 28) % 26
    texts = jnp.array([[[0, 1], [25, 0]]])  # "ab za"
    assert encipher(texts, shift).tolist() == [[[4, 5], [4, 3]]]  # 2+2, 3+2, 1+3, 2+1


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_enciphered_with_the_tasks_permutation(key, split):
    stream = bigram_cipher(**SMALL)
    permutation = stream.task(key, 2)
    assert sorted(permutation.tolist()) == list(range(26))
    batch = getattr(stream, split).batch(stream.data, permutation, jnp.arange(20))
    sources, targets = _texts(batch.inputs.source), _texts(batch.targets)
    read = [" ".join("".join(ALPHABET[i] for i in word) for word in text) for text in getattr(stream.data, split)]
    assert sources == read[:20]
    assert targets == [_enciphered(text, permutation.tolist()) for text in sources]
    assert [[len(word) for word in text.split(" ")] for text in targets] == [[2, 2, 2]] * 20
    np.testing.assert_array_equal(batch.inputs.decoder[:, 1:], batch.targets[:, :-1])


def test_round_trip(key):
    """Given π, the written text determines the one that was read."""
    stream = bigram_cipher(**SMALL)
    permutation = stream.task(key, 1)
    batch = stream.train.batch(stream.data, permutation, jnp.arange(40))
    read = [_deciphered(text, np.asarray(permutation)) for text in _texts(batch.targets)]
    assert read == _texts(batch.inputs.source)


def test_ciphers_differ_by_task_and_seed_and_texts_stay(key):
    stream = bigram_cipher(**SMALL)
    ciphers = [stream.task(key, 0), stream.task(key, 1), stream.task(jax.random.key(1), 0)]
    assert len({tuple(cipher.tolist()) for cipher in ciphers}) == 3
    sources = [stream.train.batch(stream.data, cipher, jnp.arange(40)).inputs.source for cipher in ciphers]
    np.testing.assert_array_equal(sources[0], sources[1])
    np.testing.assert_array_equal(sources[0], sources[2])


@pytest.mark.parametrize("options", [{}, SMALL, {"num_train": 200, "num_test": 138, "num_words": 2, "word_length": 1}])
def test_no_text_is_there_twice(options):
    """Neither among the training texts nor the test texts, and none is in both; with 26² texts many are drawn twice."""
    stream = bigram_cipher(**options)
    texts = [text.tobytes() for part in stream.data for text in np.asarray(part)]
    assert len(set(texts)) == len(texts) == stream.train.num(0) + stream.test.num(0)
    assert [len(part) for part in stream.data] == [stream.train.num(0), stream.test.num(0)]


def test_what_is_left_when_repeated_texts_are_out_is_still_random():
    """Not sorted: the first texts would all begin with an a."""
    letters = np.asarray(bigram_cipher(num_train=200, num_test=100, num_words=2, word_length=1).data.train)
    assert abs(letters[:, 0, 0].mean() - 12.5) < 4 * 7.5 / np.sqrt(200)
    assert np.abs(np.diff(letters[:, 0, 0].astype(int))).mean() > 5


@pytest.mark.parametrize("option", ["num_tasks", "num_train", "num_test", "word_length", "num_beams"])
def test_numbers_below_one(option):
    with pytest.raises(UserError, match=rf"got {option}=0; wanted a finite number ≥ 1. Leave it out"):
        bigram_cipher(**SMALL | {option: 0})


def test_errors():
    with pytest.raises(UserError, match=r"got num_words=1; wanted a finite number ≥ 2. BLEU-2 counts pairs"):
        bigram_cipher(num_words=1)
    with pytest.raises(UserError, match=r"got 339 different texts of 2 × 1 letters; wanted at most half.*longer texts"):
        bigram_cipher(num_train=200, num_test=139, num_words=2, word_length=1)
