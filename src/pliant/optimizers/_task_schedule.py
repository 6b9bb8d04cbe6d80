"""A learning rate schedule that restarts with every task."""

from typing import Any

import jax.numpy as jnp

from pliant.errors import require_range
from pliant.types import Method, Number, Part, Schedule, Uniform


def task_schedule(*, warmup: Number = 0.1, floor: Number = 0.0) -> Schedule:
    r"""Warms the learning rate up from 0, then lets it fall along half a cosine, within each task.

    Use it when you know when the task changes and want to change nothing but the learning rate.

    .. math:: f(t) = \frac tw \quad (t < w), \qquad
              f(t) = c + (1 - c)\, \tfrac12 \Big(1 + \cos \pi \frac{t - w}{1 - w}\Big) \quad (t \ge w)

    is the factor of the learning rate after the fraction t of the task's updates, w = `warmup`, c = `floor`. With a
    warm-up the first update of a task has the factor 0, so the optimizer's moments see the new task before weights
    move. The moments are kept from task to task.

    Args:
      warmup: w in [0, 1), the fraction of the task in which the rate rises; 0 begins at the full rate.
      floor: c in [0, 1], what the rate falls to, as a fraction of it; 1 stays at the full rate.

    Returns:
      A function from t in [0, 1) to the factor, in [0, 1]. With w = 0 and c = 1 it is exactly 1.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> factor = task_schedule(warmup=0.2)
      >>> [round(float(factor(t)), 4) for t in (0.0, 0.1, 0.2, 0.6, 0.8)]
      [0.0, 0.5, 1.0, 0.5, 0.1464]

    References:
      Loshchilov and Hutter, `SGDR: Stochastic Gradient Descent with Warm Restarts
      <https://arxiv.org/abs/1608.03983>`_, 2017, equation 5. Gupta et al., `Continual Pre-Training of Large Language
      Models: How to (re)warm your model? <https://arxiv.org/abs/2308.04014>`_, 2023, section 3. Lee et al., `Slow and
      Steady Wins the Race <https://arxiv.org/abs/2406.02596>`_, 2024: a tenth of the task to warm up.

    Differs from:
      SGDR, whose cycles grow and do not depend on tasks. `optax.warmup_cosine_decay_schedule`, which counts updates.
    """
    require_range("warmup", warmup, 0, 0.999999, do="0.1 is usual, 0 switches the warm-up off.")
    require_range("floor", floor, 0, 1, do="Use 0 to fall to nothing, 1 not to fall.")

    def factor(fraction: Any) -> Any:
        rising = fraction / jnp.where(warmup > 0, warmup, 1)
        falling = floor + (1 - floor) * 0.5 * (1 + jnp.cos(jnp.pi * (fraction - warmup) / (1 - warmup)))
        return jnp.where(fraction < warmup, rising, falling)

    return factor


CYCLIC_LR = Method(
    name="cyclic-lr",
    summary="Adam with a learning rate that warms up and falls along a cosine within each task",
    reference="Loshchilov and Hutter 2017, equation 5",
    schedule=task_schedule,
    space={"warmup": Uniform(0.01, 0.5), "floor": Uniform(0.0, 0.5)},
    off={"warmup": 0.0, "floor": 1.0},
    boundary_aware=True,
)
REWARMED_LR = Method(
    name="rewarmed-lr",
    summary="Adam with a learning rate that warms up at the start of each task, then stays",
    reference="Gupta et al. 2023, section 3; Lee et al. 2024, a tenth of the task",
    schedule=Part(task_schedule, fixed={"floor": 1.0}),
    space={"warmup": Uniform(0.01, 0.5)},
    off={"warmup": 0.0},
    boundary_aware=True,
)
