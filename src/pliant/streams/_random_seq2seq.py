"""Random seq2seq: the same source texts with new random target texts in every task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from pliant.errors import require_range
from pliant.streams._letters import VOCABULARY, as_tokens, random_letters, shifted, text_length
from pliant.streams._objectives import text_objective
from pliant.streams._text_scores import scorer
from pliant.types import Batch, Key, Split, Stream, Text

_DATA_SEED = 0  # the source texts are the data set: the same for all seeds


def random_seq2seq(
    *,
    num_tasks: int = 20,
    num_examples: int = 5120,
    source_words: int = 50,
    target_words: int = 5,
    word_length: int = 5,
    num_beams: int = 1,
) -> Stream:
    """Memorising random texts: the source texts stay the same, and every task assigns new target texts.

    There is nothing to generalise. The headline is BLEU-2 on the training
    pairs at the end of a task.

    Args:
      num_tasks: ≥ 1.
      num_examples: pairs of texts, ≥ 1.
      source_words: words of a source text, ≥ 1.
      target_words: words of a target text, ≥ 2, since BLEU-2 counts pairs of words.
      word_length: letters of a word, ≥ 1.
      num_beams: beam width at evaluation, ≥ 1; 1 is greedy.

    Returns:
      A `Stream`; a task is its target texts as tokens, int8 (examples, tokens).

    Raises:
      UserError: for numbers that are too small.

    Example:
      >>> stream = random_seq2seq(num_examples=8, source_words=2)
      >>> batch = stream.train.batch(stream.data, stream.task(jax.random.key(0), 3), jnp.arange(4))
      >>> batch.inputs.source.shape, batch.targets.shape
      ((4, 12), (4, 30))

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 3, "Random Seq2Seq", appendix B.4.

    Differs from:
      The authors' code, which tokenises with T5's vocabulary; here a token is a letter. The paper does not say whether
      source texts change from task to task; here they stay the same, as images do under random labels.
    """
    require_positive(num_tasks=num_tasks, num_examples=num_examples, source_words=source_words, word_length=word_length)
    require_positive(num_beams=num_beams)
    require_range("target_words", target_words, 2, do="BLEU-2 counts pairs of words.")
    letters = random_letters(jax.random.key(_DATA_SEED), num_examples, source_words, word_length)

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, "examples tokens"]:
        drawn = random_letters(jax.random.fold_in(key, index), num_examples, target_words, word_length)
        return as_tokens(drawn).astype(jnp.int8)

    def train_batch(data: Array, task: Int[Array, "examples tokens"], indices: Int[Array, " batch"]) -> Batch:
        return text_batch(jnp.asarray(data)[indices].astype(jnp.int32), task[indices].astype(jnp.int32))

    scorer()  # a missing package is reported before a task is trained
    return Stream(
        name="random-seq2seq",
        dataset="generated",
        num_tasks=num_tasks,
        num_outputs=VOCABULARY,
        inputs=text_inputs(text_length(source_words, word_length), text_length(target_words, word_length)),
        train=Split(lambda _: num_examples, train_batch),
        objective=text_objective(num_beams=num_beams),
        headline="train_bleu",
        chance=None,
        data=as_tokens(letters).astype(jnp.int8),
        task=task,
        keeps="inputs",
    )


def text_inputs(source: int, target: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and types of one example with so many tokens to read and to write."""
    return jax.eval_shape(lambda: Text(jnp.zeros(source, jnp.int32), jnp.zeros(target, jnp.int32)))


def text_batch(source: Int[Array, "batch source"], target: Int[Array, "batch target"]) -> Batch:
    """A batch for teacher forcing: the decoder reads the target shifted right by one token."""
    return Batch(Text(source, shifted(target)), target)


def require_positive(**numbers: int) -> None:
    """Raises unless all are at least 1."""
    for name, number in numbers.items():
        require_range(name, number, 1, do="Leave it out for the default.")
