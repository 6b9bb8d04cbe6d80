"""Which examples, and in which order: functions on the host."""

import numpy as np
from jaxtyping import Int


def evenly(number: int, most: int) -> Int[np.ndarray, " chosen"]:
    """At most `most` of the indices 0, …, number − 1, evenly spaced and ascending; with more than one the ends are.

    Example:
      >>> evenly(10, 4).tolist(), evenly(3, 4).tolist()
      ([0, 3, 6, 9], [0, 1, 2])

    References:
      None.

    Differs from:
      A random choice: data sets may be sorted by class, and evenly spaced examples are of all of them.
    """
    return np.linspace(0, number - 1, min(most, number)).round().astype(np.int32)


def batch_indices(
    seed: int, task: int, start: int, stop: int, *, num_examples: int, batch_size: int
) -> Int[np.ndarray, "step batch"]:
    """Indices of the examples in batches `start` to `stop` − 1 of a task.

    Every epoch is a fresh permutation of the examples, and batches run on across the ends of epochs, so every
    example is seen once an epoch. NumPy draws the permutations, 30 times as fast as `jax.random.permutation` for
    60,000 examples.

    Args:
      seed: ≥ 0.
      task: ≥ 0.
      start: first batch, counted from 0 over all epochs of the task.
      stop: one past the last batch.
      num_examples: examples in an epoch.
      batch_size: at most `num_examples`.

    Returns:
      int32 indices, the same whatever the other calls.

    Example:
      >>> whole = batch_indices(0, 3, 0, 4, num_examples=5, batch_size=2)
      >>> bool((batch_indices(0, 3, 1, 3, num_examples=5, batch_size=2) == whole[1:3]).all())
      True
      >>> sorted(whole.ravel()[:5].tolist())
      [0, 1, 2, 3, 4]
    """
    first, last = start * batch_size, stop * batch_size
    epochs = range(first // num_examples, -(-last // num_examples))
    order = np.concatenate([_epoch_order(seed, task, epoch, num_examples) for epoch in epochs])
    offset = epochs.start * num_examples
    return order[first - offset : last - offset].reshape(-1, batch_size).astype(np.int32)


def _epoch_order(seed: int, task: int, epoch: int, num_examples: int) -> Int[np.ndarray, " examples"]:
    return np.random.default_rng((seed, task, epoch)).permutation(num_examples)
