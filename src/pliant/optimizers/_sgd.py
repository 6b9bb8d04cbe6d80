"""Stochastic gradient descent."""

import optax

from pliant.errors import require_range
from pliant.optimizers._weight_decay import add_weight_decay
from pliant.types import LogUniform, Method, Number, Schedule, Uniform


def sgd(
    learning_rate: Number | Schedule, momentum: Number = 0.0, *, weight_decay: Number = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic gradient descent, with optional momentum and weight decay.

    Use it as a baseline without adaptive steps: some networks that lose plasticity under Adam keep it under SGD.

    .. math:: m \leftarrow \mu\, m + g + \lambda\, \theta, \qquad \theta \leftarrow \theta - \eta\, m

    Args:
      learning_rate: step size, η ≥ 0, or an optax schedule.
      momentum: decay rate of the sum of gradients, in [0, 1); 0 for none.
      weight_decay: λ ≥ 0, what the parameters are multiplied by and added to the gradient.

    Returns:
      An optimizer whose `update` needs `params`.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx = sgd(0.1, weight_decay=0.5)
      >>> updates, _ = tx.update(jnp.array([3.0]), tx.init(jnp.array([2.0])), jnp.array([2.0]))
      >>> round(float(updates[0]), 3)
      -0.4

    References:
      Robbins, Monro, `A Stochastic Approximation Method <https://doi.org/10.1214/aoms/1177729586>`_, 1951.

    Differs from:
      `optax.sgd`, which has no weight decay. PyTorch's SGD not at all.
    """
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 0.01.")
    require_range("momentum", momentum, 0, 0.999999, do="0 or 0.9 are usual.")
    require_range("weight_decay", weight_decay, 0, do="Use 0 for none.")
    return optax.with_extra_args_support(
        optax.chain(add_weight_decay(weight_decay), optax.sgd(learning_rate, momentum))
    )


SGD = Method(
    name="sgd",
    summary="stochastic gradient descent, with optional momentum",
    reference="Robbins and Monro 1951",
    optimizer=sgd,
    space={"learning_rate": LogUniform(1e-3, 1.0), "momentum": Uniform(0.0, 0.95)},
)
