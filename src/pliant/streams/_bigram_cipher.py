"""Bigram cipher: the same texts with a new rule over pairs of letters in every task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.errors import UserError, require_range
from pliant.streams._letters import NUM_LETTERS, VOCABULARY, as_tokens, random_letters, text_length
from pliant.streams._objectives import text_objective
from pliant.streams._random_seq2seq import require_positive, text_batch, text_inputs
from pliant.streams._text_scores import scorer
from pliant.types import Batch, Key, Split, Stream

_DATA_SEED = 1
_START = 0  # the letter before the first is an a


class CipherData(NamedTuple):
    """Source texts as letters, int8."""

    train: Int[np.ndarray | Array, "texts words letters"]
    test: Int[np.ndarray | Array, "texts words letters"]


def bigram_cipher(
    *,
    num_tasks: int = 20,
    num_train: int = 1280,
    num_test: int = 512,
    num_words: int = 10,
    word_length: int = 5,
    num_beams: int = 1,
) -> Stream:
    r"""Enciphering texts by pairs of letters: the source texts stay the same, and every task has a new cipher.

    .. math:: y_t = (\pi(x_t) + \pi(x_{t-1})) \bmod 26

    The rule runs over the letters of a text; spaces are skipped and stay in place. π is the task's random permutation
    of the alphabet, and the letter before the first is an a. The rule can be learned: the headline is BLEU-2 on test
    texts at the end of a task.

    Args:
      num_tasks: ≥ 1.
      num_train: training texts, ≥ 1.
      num_test: test texts, ≥ 1; none of them is a training text.
      num_words: words of a text, ≥ 2, since BLEU-2 counts pairs of words.
      word_length: letters of a word, ≥ 1.
      num_beams: beam width at evaluation, ≥ 1; 1 is greedy.

    Returns:
      A `Stream`; a task is π, int32 (26,).

    Raises:
      UserError: for numbers that are too small, or if there are too few different texts of that length.

    Example:
      >>> encipher(jnp.array([[[1, 2], [0, 1]]]), jnp.arange(26)).tolist()  # "bc ab" with the identity for π
      [[[1, 3], [2, 1]]]

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 3, "Bigram Cipher", appendix B.4.

    Differs from:
      The authors' code, whose 512 test texts are the first 512 training texts; here they are disjoint. A token is a
      letter, not a piece of T5's vocabulary. The authors decode with a beam of 5; greedy decoding is the default here.
    """
    require_positive(num_tasks=num_tasks, num_train=num_train, num_test=num_test)
    require_positive(word_length=word_length, num_beams=num_beams)
    require_range("num_words", num_words, 2, do="BLEU-2 counts pairs of words.")
    data = _disjoint(num_train, num_test, num_words, word_length)

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " letters"]:
        return jax.random.permutation(jax.random.fold_in(key, index), NUM_LETTERS)

    def batch(texts: Any, permutation: Int[Array, " letters"], indices: Int[Array, " batch"]) -> Batch:
        letters = jnp.asarray(texts)[indices].astype(jnp.int32)
        return text_batch(as_tokens(letters), as_tokens(encipher(letters, permutation)))

    length = text_length(num_words, word_length)
    scorer()  # a missing package is reported before a task is trained
    return Stream(
        name="bigram-cipher",
        dataset="generated",
        num_tasks=num_tasks,
        num_outputs=VOCABULARY,
        inputs=text_inputs(length, length),
        train=Split(lambda _: num_train, lambda data, task, indices: batch(data.train, task, indices)),
        test=Split(lambda _: num_test, lambda data, task, indices: batch(data.test, task, indices)),
        objective=text_objective(num_beams=num_beams),
        headline="test_bleu",
        chance=None,
        data=data,
        task=task,
        keeps="inputs",
    )


def encipher(
    letters: Int[Array, "texts words letters"], permutation: Int[Array, " alphabet"]
) -> Int[Array, "texts words letters"]:
    """Enciphers texts, see `bigram_cipher`.

    References:
      See `bigram_cipher`.

    Example:
      >>> encipher(jnp.array([[[0, 25]]]), jnp.arange(26)[::-1]).tolist()  # π(a) = 25, π(z) = 0
      [[[24, 25]]]
    """
    text = permutation[letters.reshape(len(letters), -1)]
    start = jnp.broadcast_to(permutation[_START], (len(letters), 1))
    before = jnp.concatenate([start, text[:, :-1]], axis=1)
    return ((text + before) % NUM_LETTERS).reshape(letters.shape)


def _disjoint(num_train: int, num_test: int, num_words: int, word_length: int) -> CipherData:
    """Samples texts that are all different: repeated ones are left out."""
    wanted = num_train + num_test
    if wanted > NUM_LETTERS ** (num_words * word_length) // 2:
        raise UserError(
            got=f"{wanted} different texts of {num_words} × {word_length} letters",
            wanted="at most half of all possible texts",
            do="Use longer texts or fewer.",
        )
    drawn = np.asarray(random_letters(jax.random.key(_DATA_SEED), 4 * wanted, num_words, word_length), np.int8)
    _, first = np.unique(drawn.reshape(len(drawn), -1), axis=0, return_index=True)
    texts = drawn[np.sort(first)[:wanted]]
    assert len(texts) == wanted, "too few different texts were sampled"
    return CipherData(texts[:num_train], texts[num_train:])
