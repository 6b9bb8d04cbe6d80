"""RMSProp, as deep Q-networks are trained."""

import optax

from pliant.errors import require_range
from pliant.types import Choice, LogUniform, Method, Number, Schedule


def rmsprop(
    learning_rate: Number | Schedule, decay: Number = 0.95, *, eps: Number = 0.01 / 32**2, centered: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""RMSProp: a gradient over its own standard deviation, by default the form of deep Q-networks.

    Use it to reproduce deep Q-learning on Atari games.

    .. math:: m \leftarrow \beta\, m + (1 - \beta)\, g, \quad v \leftarrow \beta\, v + (1 - \beta)\, g^2, \qquad
              \theta \leftarrow \theta - \eta\, \frac{g}{\sqrt{v - m^2 + \epsilon}}

    Args:
      learning_rate: step size, η ≥ 0, or an optax schedule.
      decay: β, of both averages, in [0, 1).
      eps: ϵ > 0, inside the root.
      centered: False leaves :math:`m^2` out.

    Returns:
      An optimizer. Its averages start at 0 and are not corrected for that, so the first steps are large.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx = rmsprop(0.1, decay=0.5, eps=0.0001)
      >>> updates, _ = tx.update(jnp.array([3.0]), tx.init(jnp.array([2.0])))
      >>> round(float(updates[0]), 3)
      -0.2

    References:
      Hinton, `Neural Networks for Machine Learning
      <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>`_, lecture 6e, 2012. Graves,
      `Generating Sequences With Recurrent Neural Networks <https://arxiv.org/abs/1308.0850>`_, 2013, equations 38 to
      41: centred. The numbers are those of Quan and Ostrovski, `DQN Zoo
      <https://github.com/google-deepmind/dqn_zoo>`_, 2020.

    Differs from:
      PyTorch's RMSprop, which adds ϵ outside the root, decays by 0.99, and is not centred by default.
    """
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 0.00025.")
    require_range("decay", decay, 0, 0.999999, do="0.95 is usual for deep Q-networks.")
    require_range("eps", eps, 1e-30, do="0.01/32² is usual for deep Q-networks.")
    return optax.rmsprop(learning_rate, decay, eps, centered=centered)


RMSPROP = Method(
    name="rmsprop",
    summary="gradients over their own standard deviation, as deep Q-networks are trained",
    reference="Graves 2013, equations 38 to 41; Quan and Ostrovski 2020, DQN Zoo",
    optimizer=rmsprop,
    space={"decay": Choice((0.9, 0.95, 0.99)), "eps": LogUniform(1e-8, 1e-3)},
)
