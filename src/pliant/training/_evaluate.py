"""What is measured at the end of a task: accuracies and diagnostics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.diagnostics import DIAGNOSTICS
from pliant.training._step import TrainState, is_correct
from pliant.types import Batch, Key, Network, Scalar, Stream

_BLOCK = 1000  # examples evaluated at once
_PROBE_SEED = 0  # the probe examples are the same for all seeds, tasks and methods


def evaluate(
    network: Network,
    stream: Stream,
    state: TrainState,
    key: Key,
    data: Any,
    task: Any,
    probe_indices: Int[Array, " probe"],
) -> dict[str, Any]:
    """Accuracies over all examples of the task, and the device part of every diagnostic; for one seed, pure."""
    results: dict[str, Any] = {
        "train_accuracy": _accuracy(network, state, stream.train_batch, stream.num_train, data, task)
    }
    if stream.test_batch is not None:
        results["test_accuracy"] = _accuracy(network, state, stream.test_batch, stream.num_test, data, task)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    results["diverged"] = ~jnp.stack(finite).all()
    probe = stream.train_batch(data, task, probe_indices)
    results["diagnostics"] = {
        name: diagnostic.measure(network, state.params, state.network, probe, jax.random.fold_in(key, number))
        for number, (name, diagnostic) in enumerate(DIAGNOSTICS.items())
    }
    return results


def summarize(results: dict[str, Any], seed: int) -> dict[str, float]:
    """Named numbers of one seed from `evaluate`'s arrays of all seeds."""
    of_seed = jax.tree.map(lambda leaf: np.asarray(leaf[seed]), results)
    measured = of_seed.pop("diagnostics")
    metrics = {name: float(value) for name, value in of_seed.items()}
    for name, arrays in measured.items():
        metrics |= DIAGNOSTICS[name].summarize(arrays)
    return metrics


def probe_indices(num_train: int, probe_size: int) -> Int[np.ndarray, " probe"]:
    """The fixed training examples that diagnostics look at: `probe_size` of them, or all."""
    order = np.random.default_rng(_PROBE_SEED).permutation(num_train)
    return np.sort(order[:probe_size]).astype(np.int32)


def _accuracy(
    network: Network,
    state: TrainState,
    batch_of: Callable[[Any, Any, Array], Batch],
    num_examples: int,
    data: Any,
    task: Any,
) -> Scalar:
    """The fraction of right answers, in blocks so that memory is bounded."""
    num_blocks = -(-num_examples // _BLOCK)
    size = -(-num_examples // num_blocks)
    blocks = jnp.arange(num_blocks * size).reshape(num_blocks, size)

    def num_correct(indices: Int[Array, " block"]) -> Int[Array, ""]:
        batch = batch_of(data, task, jnp.minimum(indices, num_examples - 1))
        output, _, _ = network.apply(state.params, state.network, batch.inputs, train=False, key=None)
        return jnp.sum(is_correct(output, batch.targets) & (indices < num_examples), dtype=jnp.int32)

    return jax.lax.map(num_correct, blocks).sum() / num_examples
