"""Decoding of texts with an encoder-decoder: greedy or with a beam."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pliant.streams._letters import END, shifted
from pliant.streams._text_scores import text_scores
from pliant.types import Batch, Text, Writing

Logits = Callable[[Text], Float[Array, "batch target vocabulary"]]


def writing(num_beams: int) -> Writing:
    """How texts are written at evaluation, with a beam of this width (1 is greedy), and scored."""

    def write(logits: Logits, batch: Batch) -> Int[Array, "batch target"]:
        assert isinstance(batch.inputs, Text)
        source, length = batch.inputs.source, batch.targets.shape[1]
        if num_beams == 1:
            return greedy(logits, source, length)
        return beam_search(logits, source, length, num_beams)

    return Writing(write, text_scores, num_beams)


def greedy(logits: Logits, source: Int[Array, "batch source"], length: int) -> Int[Array, "batch target"]:
    """Writes the most likely token at every position; after the end token comes padding.

    All positions are rewritten at once until nothing changes. A position is correct as soon as those before it are, so
    the fixed point is the same text as writing token by token. A trained network reaches it in a few passes instead of
    `length`.

    Args:
      logits: `logits(text)` of a network for teacher-forced inputs, causal in the decoder.
      source: the source texts, as tokens.
      length: tokens to write, ≥ 1.

    Returns:
      The written tokens.

    Example:
      >>> vocabulary = 6  # adds one to the tokens of the source
      >>> logits = lambda text: jax.nn.one_hot(text.source + 1, vocabulary)
      >>> greedy(logits, jnp.array([[2, 3, 0, 4]]), 4).tolist()
      [[3, 4, 1, 0]]

    References:
      Song et al., `Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving
      <https://arxiv.org/abs/2002.03629>`_, 2021: autoregressive models by fixed-point iteration.

    Differs from:
      Writing token by token, which gives the same texts in `length` passes.
    """

    def unfinished(carry: Any) -> Any:
        written, before, passes = carry
        return (passes <= length) & (written != before).any()

    def again(carry: Any) -> Any:
        written, _, passes = carry
        now = logits(Text(source, shifted(written))).argmax(axis=-1).astype(source.dtype)
        return now, written, passes + 1

    start = jnp.zeros((len(source), length), source.dtype)
    written, _, _ = jax.lax.while_loop(unfinished, again, (start, start - 1, 0))
    return _cut(written)


def beam_search(
    logits: Logits, source: Int[Array, "batch source"], length: int, num_beams: int
) -> Int[Array, "batch target"]:
    """Writes the text with the highest total log-probability that beam search finds.

    A text that has ended keeps its score and is padded; there is no length penalty.

    Args:
      logits: as in `greedy`.
      source: the source texts, as tokens.
      length: tokens to write, ≥ 1.
      num_beams: texts kept for each source, ≥ 1; 1 is greedy.

    Returns:
      The written tokens.

    Example:
      >>> chances = jnp.log(jnp.array([[.001, .001, .6, .398], [.001, .001, .5, .498], [.001, .001, .001, .997]]))
      >>> logits = lambda text: chances[jnp.maximum(text.decoder - 1, 0)]  # uncertain after 2, sure after 3
      >>> source = jnp.array([[2]])
      >>> greedy(logits, source, 2).tolist(), beam_search(logits, source, 2, num_beams=2).tolist()
      ([[2, 2]], [[3, 3]])

    References:
      Sutskever et al., `Sequence to Sequence Learning with Neural Networks <https://arxiv.org/abs/1409.3215>`_, 2014,
      section 3.2.

    Differs from:
      `transformers`, whose beams by default divide scores by the length of the text.
    """
    batch = len(source)
    sources = jnp.repeat(source, num_beams, axis=0)

    def step(t: Any, carry: Any) -> Any:
        written, scores, over = carry  # (batch, beams, length), then (batch, beams)
        flat = written.reshape(batch * num_beams, length)
        chances = jax.nn.log_softmax(logits(Text(sources, shifted(flat)))[:, t]).reshape(batch, num_beams, -1)
        size = chances.shape[-1]
        only_padding = jnp.where(jnp.arange(size) == 0, 0.0, -jnp.inf)
        chances = jnp.where(over[..., None], only_padding[None, None], chances)
        totals = (scores[..., None] + chances).reshape(batch, -1)
        scores, best = jax.lax.top_k(totals, num_beams)
        parent, token = best // size, best % size
        written = jnp.take_along_axis(written, parent[..., None], axis=1)
        over = jnp.take_along_axis(over, parent, axis=1) | (token == END)
        return written.at[:, :, t].set(token.astype(written.dtype)), scores, over

    written = jnp.zeros((batch, num_beams, length), source.dtype)
    scores = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf)[None].repeat(batch, axis=0)  # all beams are the same
    over = jnp.zeros((batch, num_beams), bool)
    written, _, _ = jax.lax.fori_loop(0, length, step, (written, scores, over))
    return _cut(written[:, 0])


def _cut(written: Int[Array, "batch target"]) -> Int[Array, "batch target"]:
    """Replaces what follows the first end token by padding."""
    ended = jnp.cumsum(written == END, axis=1) - (written == END)
    return jnp.where(ended > 0, 0, written)
