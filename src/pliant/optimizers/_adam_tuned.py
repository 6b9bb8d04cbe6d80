"""Adam with the hyperparameters that keep it stable when the task changes."""

import optax

from pliant.errors import require_adam, require_range
from pliant.types import Choice, LogUniform, Method, Number, Schedule


def adam_tuned(
    learning_rate: Number | Schedule,
    b1: Number = 0.9,
    b2: Number = 0.9,
    eps: Number = 1e-9,
    eps_root: Number = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam that forgets both moments at one rate, so that a step stays bounded when gradients grow.

    Use it to find out how much of the loss of plasticity is Adam's: steps that are too large just after a change.

    .. math:: \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v + \epsilon_0} + \epsilon}

    Args:
      learning_rate: step size, ≥ 0, or an optax schedule.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      eps_root: ≥ 0, added inside the root.

    Returns:
      `optax.adam` with these defaults, whose `update` ignores further keywords.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx = adam_tuned(0.1)
      >>> updates, _ = tx.update(jnp.array([3.0, 1e-3]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates]
      [-0.1, -0.0032]

    References:
      Lyle et al., `Understanding Plasticity in Neural Networks <https://arxiv.org/abs/2303.01486>`_, 2023, section 3.1.

    Differs from:
      Adam by the values of b2, eps and eps_root only.
    """
    require_adam(learning_rate, b1, b2, eps)
    require_range("eps_root", eps_root, 0, do="1e-3 is the authors'.")
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps, eps_root))


ADAM_TUNED = Method(
    name="adam-tuned",
    summary="Adam whose second moment forgets as fast as its first, with a damped root: stable when the task changes",
    reference="Lyle et al. 2023, section 3.1",
    optimizer=adam_tuned,
    space={"b2": Choice((0.9, 0.99, 0.999)), "eps_root": LogUniform(1e-6, 1e-1)},
)
