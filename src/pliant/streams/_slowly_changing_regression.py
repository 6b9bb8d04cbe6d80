"""Slowly changing regression: bits that rarely flip, and a target network of threshold units."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pliant.errors import require_choice, require_range
from pliant.streams._objectives import REGRESSION
from pliant.types import Batch, Key, Split, Stream


class LTUNetwork(NamedTuple):
    """A network of linear threshold units; all parameters are −1 or 1."""

    kernel: Float[Array, "bits width"]
    bias: Float[Array, " width"]
    head: Float[Array, " width"]
    head_bias: Float[Array, ""]


def slowly_changing_regression(
    *,
    num_tasks: int = 100,
    num_bits: int = 20,
    num_slow: int = 15,
    num_examples: int = 10_000,
    change: Literal["one", "all"] = "one",
    width: int = 100,
    beta: float = 0.7,
) -> Stream:
    r"""Regression on random bits, some of which change only from task to task: the bit-flipping problem.

    The first `num_slow` bits of x are the same in all examples of a task; the others are sampled for every example. The
    targets are the outputs of a network of linear threshold units, sampled for each seed and the same in all tasks:

    .. math:: y = b + \sum_j v_j\,[\,w_j \cdot x + b_j > \tau_j\,], \qquad
              \tau_j = \beta (n + 1) - S_j, \qquad S_j = \tfrac12 (n - \textstyle\sum_i w_{ji} + b_j)

    There are n bits, and all of w, v and b are −1 or 1. A network that is too small for the target must keep adapting
    to the slow bits. The headline is the online squared error: on each batch before its update, averaged over the task.

    Args:
      num_tasks: ≥ 1.
      num_bits: n ≥ 1.
      num_slow: slow bits, 1 to `num_bits`.
      num_examples: examples from one change to the next, ≥ 1: the number of updates, with batches of 1 in one epoch.
      change: what happens to the slow bits between tasks: "one" flips one of them, "all" samples all again.
      width: threshold units of the target network, ≥ 1.
      beta: β, in [0, 1]: about the fraction of bits that must match the signs of a unit's weights for it to be active.

    Returns:
      A `Stream`; a task is the `Batch` of all its examples.

    Raises:
      UserError: for numbers out of range or an unknown change.

    Example:
      >>> stream = slowly_changing_regression(num_examples=100)
      >>> tasks = [stream.task(jax.random.key(0), index) for index in (6, 7)]
      >>> slow = [task.inputs[:, :15] for task in tasks]
      >>> bool((slow[0] == slow[0][:1]).all()), int(abs(slow[1] - slow[0])[0].sum())
      (True, 1)

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://www.nature.com/articles/s41586-024-07711-7>`_, 2024, slowly changing regression; S with the sign of b as
      in their code. Sutton and Whitehead 1993, for the thresholds.
    """
    require_choice("change", change, "one", "all")
    numbers = {"tasks": num_tasks, "num_bits": num_bits, "num_examples": num_examples, "width": width}
    for name, number in numbers.items():
        require_range(name, number, 1, do="Leave it out for the default.")
    require_range("num_slow", num_slow, 1, num_bits, do="Some bits are slow: 15 of 20 is usual.")
    require_range("beta", beta, 0, 1, do="Leave it out for 0.7.")

    def task(key: Key, index: Int[Array, ""] | int) -> Batch:
        network_key, slow_key, fast_key = jax.random.split(key, 3)
        slow = _slow_bits(slow_key, index, num_slow, num_tasks, change)
        fast = jax.random.bernoulli(jax.random.fold_in(fast_key, index), shape=(num_examples, num_bits - num_slow))
        slow_rows = jnp.broadcast_to(slow[None], (num_examples, num_slow))
        inputs = jnp.concatenate([slow_rows, fast], axis=1).astype(jnp.float32)
        return Batch(inputs, ltu_output(_random_network(network_key, num_bits, width), inputs, beta)[:, None])

    return Stream(
        name="slowly-changing-regression",
        dataset="generated",
        num_tasks=num_tasks,
        num_outputs=1,
        inputs=jax.ShapeDtypeStruct((num_bits,), jnp.float32),
        train=Split(lambda _: num_examples, lambda _, task, indices: jax.tree.map(lambda leaf: leaf[indices], task)),
        objective=REGRESSION,
        headline="online_squared_error",
        chance=None,
        data=(),
        task=task,
    )


def ltu_output(network: LTUNetwork, inputs: Float[Array, "batch bits"], beta: float) -> Float[Array, " batch"]:
    """The output of a network of threshold units, see `slowly_changing_regression`; exact, since it sums ±1."""
    num_bits = inputs.shape[1]
    threshold = beta * (num_bits + 1) - (num_bits - network.kernel.sum(axis=0) + network.bias) / 2
    active = inputs @ network.kernel + network.bias[None] > threshold[None]
    return active.astype(jnp.float32) @ network.head + network.head_bias


def _random_network(key: Key, num_bits: int, width: int) -> LTUNetwork:
    shapes = ((num_bits, width), (width,), (width,), ())
    keys = jax.random.split(key, len(shapes))
    signs = (jax.random.rademacher(each, shape, jnp.float32) for each, shape in zip(keys, shapes, strict=True))
    return LTUNetwork(*signs)


def _slow_bits(
    key: Key, index: Int[Array, ""] | int, num_slow: int, num_tasks: int, change: str
) -> Bool[Array, " slow"]:
    """The slow bits of a task: sampled for it, or those of the first task with all flips up to this one."""
    start_key, flips_key = jax.random.split(key)
    if change == "all":
        return jax.random.bernoulli(jax.random.fold_in(start_key, index), shape=(num_slow,))

    def flip(number: Int[Array, ""]) -> Int[Array, ""]:
        return jax.random.randint(jax.random.fold_in(flips_key, number), (), 0, num_slow)

    numbers = jnp.arange(num_tasks)
    counts = jnp.zeros(num_slow, jnp.int32).at[jax.vmap(flip)(numbers)].add((numbers < index).astype(jnp.int32))
    return jax.random.bernoulli(start_key, shape=(num_slow,)) ^ (counts % 2 == 1)
