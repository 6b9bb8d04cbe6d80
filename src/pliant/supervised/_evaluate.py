"""What is scored at the end of a task."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.types import Inputs, Network, Params, Scalar, Split, State, Stream, Writing

_BLOCK = 1000  # examples evaluated at once


def evaluate(
    stream: Stream,
    network: Network,
    weights: tuple[Params, State],
    data: Any,
    task: Any,
    num_train: Int[Array, ""] | np.int32,
    num_test: Int[Array, ""] | np.int32,
) -> dict[str, Any]:
    """Scores over all examples of the task with parameters and running statistics; for one seed, pure.

    If the objective writes, also what is written for the test examples, or for the training examples without a test.
    """

    def apply(inputs: Inputs) -> Array:
        return network.apply(*weights, inputs, train=False, key=None)[0]

    splits = {"train": (stream.train, num_train)}
    if stream.test is not None:
        splits["test"] = (stream.test, num_test)
    results: dict[str, Any] = {}
    for name, (split, number) in splits.items():
        results[f"{name}_{stream.objective.score}"] = mean_score(stream, apply, split, number, data, task)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(weights[0])]
    results["diverged"] = ~jnp.stack(finite).all()
    if stream.objective.writing is not None:
        name, (split, _) = splits.popitem()
        results["written"] = {name: _written(stream, stream.objective.writing, apply, split, data, task)}
    return results


def numbers(stream: Stream, results: dict[str, Any]) -> dict[str, float]:
    """Named numbers of one seed from its part of `evaluate`'s arrays."""
    written = results.get("written", {})
    metrics = {name: float(value) for name, value in results.items() if name != "written"}
    if stream.objective.writing is not None:
        for split, texts in written.items():
            metrics |= {f"{split}_{name}": value for name, value in stream.objective.writing.scores(*texts).items()}
    return metrics


def mean_score(
    stream: Stream,
    apply: Callable[[Inputs], Array],
    split: Split,
    num_examples: Int[Array, ""] | np.int32,
    data: Any,
    task: Any,
) -> Scalar:
    """The mean score, in blocks so that memory is bounded; their number may change from task to task."""
    size = min(_BLOCK, _largest(split, stream))

    def add(block: Int[Array, ""], total: Scalar) -> Scalar:
        indices = block * size + jnp.arange(size)
        batch = split.batch(data, task, jnp.minimum(indices, num_examples - 1))
        scores = stream.objective.scores(apply(batch.inputs), batch.targets, task)
        return total + jnp.where(indices < num_examples, scores, 0.0).sum()

    num_blocks = -(-num_examples // size)
    return jax.lax.fori_loop(0, num_blocks, add, jnp.float32(0.0)) / num_examples


def _written(
    stream: Stream, writing: Writing, apply: Callable[[Inputs], Array], split: Split, data: Any, task: Any
) -> tuple[Array, Array]:
    """What is written and what is right, int32 (examples, tokens)."""

    def write(indices: Int[Array, " block"]) -> tuple[Array, Array]:
        batch = split.batch(data, task, indices)
        return writing.write(apply, batch), batch.targets

    num_examples = _largest(split, stream)
    num_blocks = -(-num_examples // writing.at_once)
    size = -(-num_examples // num_blocks)
    blocks = jnp.minimum(jnp.arange(num_blocks * size), num_examples - 1).reshape(num_blocks, size)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[:num_examples], jax.lax.map(write, blocks))


def _largest(split: Split, stream: Stream) -> int:
    """Examples of the largest task: a shape of the program, which is the same for all tasks."""
    return max(map(split.num, range(stream.num_tasks)))
