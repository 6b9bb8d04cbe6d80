"""What is scored at the end of a task, and the texts that are written."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.streams import text_scores
from pliant.training._decode import beam_search, greedy
from pliant.types import Batch, Inputs, Network, Params, Scalar, State, Stream, Text

_BLOCK = 1000  # examples evaluated at once
_TEXTS = 128  # texts written at once: a block takes as many passes as its slowest text


class Sizes(NamedTuple):
    """Examples of a task."""

    num_train: Int[Array, ""] | np.int32
    num_test: Int[Array, ""] | np.int32


def evaluate(
    stream: Stream, network: Network, weights: tuple[Params, State], data: Any, task: Any, sizes: Sizes
) -> dict[str, Any]:
    """Scores over all examples of the task with parameters and running statistics; for one seed, pure.

    Of text streams also what the network writes, for the test examples, or the training ones if there are no others.
    """

    def apply(inputs: Inputs) -> Array:
        return network.apply(*weights, inputs, train=False, key=None)[0]

    score = stream.objective.score
    largest_train, largest_test = (max(map(of, range(stream.num_tasks))) for of in (stream.num_train, stream.num_test))
    splits = {"train": (stream.train_batch, sizes.num_train, largest_train)}
    if stream.test_batch is not None:
        splits["test"] = (stream.test_batch, sizes.num_test, largest_test)
    results: dict[str, Any] = {}
    for split, (batch_of, number, largest) in splits.items():
        results[f"{split}_{score}"] = mean_score(stream, apply, batch_of, number, largest, data, task)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(weights[0])]
    results["diverged"] = ~jnp.stack(finite).all()
    if len(stream.input_shape) == 2:
        split = next(reversed(splits))
        results["texts"] = {split: _texts(stream, apply, *splits[split][::2], data, task)}
    return results


def scores(results: dict[str, Any]) -> dict[str, float]:
    """Named numbers of one seed from its part of `evaluate`'s arrays."""
    texts = results.pop("texts", {})
    metrics = {name: float(value) for name, value in results.items()}
    for split, (written, wanted) in texts.items():
        metrics |= {f"{split}_{name}": value for name, value in text_scores(written, wanted).items()}
    return metrics


def mean_score(
    stream: Stream,
    apply: Callable[[Inputs], Array],
    batch_of: Callable[[Any, Any, Array], Batch],
    num_examples: Int[Array, ""] | np.int32,
    largest: int,
    data: Any,
    task: Any,
) -> Scalar:
    """The mean score, in blocks so that memory is bounded; their number may change from task to task."""
    size = min(_BLOCK, largest)

    def add(block: Int[Array, ""], total: Scalar) -> Scalar:
        indices = block * size + jnp.arange(size)
        batch = batch_of(data, task, jnp.minimum(indices, num_examples - 1))
        scores = stream.objective.scores(apply(batch.inputs), batch.targets, task)
        return total + jnp.where(indices < num_examples, scores, 0.0).sum()

    num_blocks = -(-num_examples // size)
    return jax.lax.fori_loop(0, num_blocks, add, jnp.float32(0.0)) / num_examples


def _texts(
    stream: Stream,
    logits: Callable[[Text], Array],
    batch_of: Callable[[Any, Any, Array], Batch],
    num_examples: int,
    data: Any,
    task: Any,
) -> tuple[Array, Array]:
    """What is written and what is wanted, int32 (examples, tokens)."""

    def write(indices: Int[Array, " block"]) -> tuple[Array, Array]:
        batch = batch_of(data, task, indices)
        assert isinstance(batch.inputs, Text)
        source, length = batch.inputs.source, batch.targets.shape[1]
        if stream.num_beams == 1:
            written = greedy(logits, source, length)
        else:
            written = beam_search(logits, source, length, stream.num_beams)
        return written, batch.targets

    num_blocks = -(-num_examples // _TEXTS)
    size = -(-num_examples // num_blocks)
    blocks = jnp.minimum(jnp.arange(num_blocks * size), num_examples - 1).reshape(num_blocks, size)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[:num_examples], jax.lax.map(write, blocks))
