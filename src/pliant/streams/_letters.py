"""Random texts as tokens: letters, spaces and the end token."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.types import Key

PADDING, END, SPACE, FIRST_LETTER = 0, 1, 2, 3
NUM_LETTERS = 26
VOCABULARY = FIRST_LETTER + NUM_LETTERS


def text_length(num_words: int, word_length: int) -> int:
    """Tokens of a text: its letters, the spaces between words, and the end token.

    Example:
      >>> text_length(num_words=2, word_length=3)
      8
    """
    return num_words * (word_length + 1)


def random_letters(key: Key, num_texts: int, num_words: int, word_length: int) -> Int[Array, "texts words letters"]:
    """Samples letters 0 to 25 uniformly."""
    return jax.random.randint(key, (num_texts, num_words, word_length), 0, NUM_LETTERS, jnp.int32)


def as_tokens(letters: Int[Array, "texts words letters"]) -> Int[Array, "texts tokens"]:
    """Tokens of words of letters, with spaces between words and the end token.

    Example:
      >>> as_tokens(jnp.array([[[0, 1], [2, 25]]])).tolist()  # "ab cz"
      [[3, 4, 2, 5, 28, 1]]
    """
    num_texts, num_words, _ = letters.shape
    spaces = jnp.full((num_texts, num_words, 1), SPACE, letters.dtype)
    tokens = jnp.concatenate([letters + FIRST_LETTER, spaces], axis=2).reshape(num_texts, -1)
    return tokens.at[:, -1].set(END)


def shifted(tokens: Int[Array, "texts tokens"]) -> Int[Array, "texts tokens"]:
    """The decoder's inputs for teacher forcing: 0, then all tokens but the last.

    Example:
      >>> shifted(jnp.array([[5, 6, 1]])).tolist()
      [[0, 5, 6]]
    """
    return jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]


def spell(tokens: Int[np.ndarray, " tokens"] | Sequence[int]) -> str:
    """The text of tokens before the end token, without padding.

    Example:
      >>> spell([3, 4, 2, 5, 28, 1, 0])
      'ab cz'
    """
    written = list(tokens)
    if END in written:
        written = written[: written.index(END)]
    return "".join(" " if token == SPACE else chr(ord("a") + token - FIRST_LETTER) for token in written if token)
