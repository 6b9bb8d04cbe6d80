import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.streams import spell
from pliant.streams._letters import END, NUM_LETTERS, SPACE, VOCABULARY, as_tokens, random_letters, text_length

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _spelled(letters):
    """The text of letters, written down in plain Python."""
    return " ".join("".join(ALPHABET[letter] for letter in word) for word in letters)


def test_texts_are_spelled_as_they_were_drawn(key):
    letters = random_letters(key, 5, 3, 4)
    tokens = np.asarray(as_tokens(letters))
    assert tokens.shape == (5, text_length(3, 4)) == (5, 15)
    assert [spell(row) for row in tokens] == [_spelled(text) for text in letters.tolist()]


def test_the_vocabulary_is_padding_end_space_and_letters():
    """The same for every stream, so that one network reads and writes all tasks."""
    tokens = np.asarray(as_tokens(jnp.arange(26).reshape(1, 2, 13)))[0]
    assert sorted(tokens.tolist()) == list(range(1, VOCABULARY)) == list(range(1, 29))
    assert spell(range(2, VOCABULARY)) == " " + ALPHABET


@pytest.mark.parametrize(("num_words", "word_length"), [(1, 1), (1, 3), (4, 1)])
def test_every_text_ends_with_the_end_token_and_has_no_other(key, num_words, word_length):
    tokens = np.asarray(as_tokens(random_letters(key, 6, num_words, word_length)))
    assert (tokens[:, -1] == END).all()
    assert ((tokens == END).sum(axis=1) == 1).all()
    assert ((tokens == SPACE).sum(axis=1) == num_words - 1).all()
    assert (tokens > 0).all()


def test_letters_are_uniform(key):
    letters = np.asarray(random_letters(key, 200, 10, 5))
    counts = np.bincount(letters.ravel(), minlength=NUM_LETTERS)
    assert len(counts) == NUM_LETTERS
    assert np.abs(counts - 10_000 / 26).max() < 4 * np.sqrt(10_000 / 26)
    assert (np.asarray(random_letters(jax.random.key(1), 200, 10, 5)) != letters).any()


@pytest.mark.parametrize(
    ("tokens", "text"),
    [([3, 4, 1, 5, 6], "ab"), ([1, 3], ""), ([3, 0, 4], "ab"), ([0, 0], ""), ([3, 2, 2, 4], "a  b"), ([28], "z")],
)
def test_spelling_ends_at_the_end_token(tokens, text):
    assert spell(tokens) == text
    assert spell(np.array(tokens, np.int8)) == text
