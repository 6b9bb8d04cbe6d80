"""Adam, the optimizer of every method that does not bring its own."""

import optax

from pliant.errors import require_adam
from pliant.types import Method, Number, Schedule


def adam(
    learning_rate: Number | Schedule, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Adam, as in optax.

    It is the baseline that loses plasticity, and the optimizer of every method that does not bring its own.

    .. math:: \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}

    Args:
      learning_rate: step size, ≥ 0, or an optax schedule.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.

    Returns:
      `optax.adam`, whose `update` ignores further keywords.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx = adam(0.1)
      >>> updates, _ = tx.update(jnp.array([3.0, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates]
      [-0.1, 0.1]

    References:
      Kingma, Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2015. Algorithm 1.

    Differs from:
      `optax.adam` by the checks of its arguments.
    """
    require_adam(learning_rate, b1, b2, eps)
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps))


ADAM = Method(
    name="adam",
    summary="plain Adam: the baseline that loses plasticity",
    reference="Kingma and Ba 2015, algorithm 1",
)
