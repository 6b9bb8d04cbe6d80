"""UPGD's toy problems: the mean of two inputs, whose indices or sign change from task to task."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import require_choice, require_range
from pliant.streams._objectives import REGRESSION
from pliant.types import Batch, Key, Split, Stream

_NUM_INPUTS = 16


def upgd_toy(
    *, num_tasks: int = 20, num_examples: int = 200, changes: Literal["indices", "sign"] = "indices"
) -> Stream:
    r"""Regression on the mean of two of 16 standard normal inputs.

    .. math:: y = \tfrac12 (x_{2t} + x_{2t+1}) \quad \text{(indices modulo 16)}, \qquad \text{or} \qquad
              y = (-1)^t\,\tfrac12 (x_0 + x_1)

    New indices require plasticity; a flipped sign requires unlearning the task before. Every task samples new examples.
    The headline is the online squared error: on each batch before its update, averaged over the task; predicting 0
    gives ½.

    Args:
      num_tasks: ≥ 1.
      num_examples: examples of a task, ≥ 1: the number of updates, with batches of 1 in one epoch.
      changes: "indices", the first formula, or "sign", the second.

    Returns:
      A `Stream`; a task is the `Batch` of all its examples.

    Raises:
      UserError: for numbers below 1 or an unknown change.

    Example:
      >>> stream = upgd_toy()
      >>> task = stream.task(jax.random.key(0), 9)
      >>> bool(jnp.allclose(task.targets[:, 0], task.inputs[:, 2:4].mean(axis=1)))
      True

    References:
      Elsayed and Mahmood, `Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
      <https://arxiv.org/abs/2404.00781>`_, 2024, the two toy problems.

    Differs from:
      The authors' code, which samples the two inputs whose sign flips with replacement, and begins with the sign −1.
    """
    require_choice("changes", changes, "indices", "sign")
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    require_range("num_examples", num_examples, 1, do="Leave it out for the default of 200.")

    def task(key: Key, index: Int[Array, ""] | int) -> Batch:
        inputs = jax.random.normal(jax.random.fold_in(key, index), (num_examples, _NUM_INPUTS))
        first, sign = (2 * index % _NUM_INPUTS, 1) if changes == "indices" else (0, 1 - 2 * (index % 2))
        return Batch(inputs, sign * (inputs[:, first, None] + inputs[:, first + 1, None]) / 2)

    return Stream(
        name="upgd-toy",
        dataset="generated",
        num_tasks=num_tasks,
        num_outputs=1,
        inputs=jax.ShapeDtypeStruct((_NUM_INPUTS,), jnp.float32),
        train=Split(lambda _: num_examples, lambda _, task, indices: jax.tree.map(lambda leaf: leaf[indices], task)),
        objective=REGRESSION,
        headline="online_squared_error",
        chance=0.5,
        data=(),
        task=task,
    )
