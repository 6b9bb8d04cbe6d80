"""L2 Init: regenerative regularisation."""

import jax
import jax.numpy as jnp

from pliant.errors import require_range
from pliant.masks import Mask, select
from pliant.types import Features, Number, Params, Penalty, Scalar, State


def l2_init(strength: Number = 1e-2, *, mask: Mask = None) -> Penalty:
    r"""Pulls parameters back towards their initial values.

    .. math:: \lambda \sum_l \lVert \theta_l - \theta_{l,0} \rVert^2, \qquad
              \text{gradient } 2 \lambda (\theta - \theta_0)

    Args:
      strength: λ ≥ 0, in units of 1/weight². 0 does nothing.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `l2-init` leaves norms out.

    Returns:
      A `Penalty`; its state is the copy θ₀ made by `init` and belongs into checkpoints. Memory: one copy of the
      parameters.

    Raises:
      UserError: if `strength` is negative or the mask selects nothing.

    Example:
      >>> penalty = l2_init(0.5)
      >>> state = penalty.init(jnp.array([1.0, 2.0]))
      >>> float(penalty.loss(jnp.array([2.0, 4.0]), state, {})[0])
      2.5

    References:
      Kumar, Marklund, Van Roy, `Maintaining Plasticity in Continual Learning via Regenerative Regularization
      <https://arxiv.org/abs/2308.11958>`_, 2023. Section 4, first equation.

    Differs from:
      The authors' code, which halves the penalty (pass λ/2). Plasticine, which uses the norm and not its square. The
      weight-clipping repository, which takes θ₀ after the first update.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")

    def init(params: Params) -> State:
        select(mask, params)
        return jax.tree.map(jnp.copy, params)

    def loss(params: Params, state: State, features: Features) -> tuple[Scalar, State]:
        del features
        squares = jax.tree.map(
            lambda selected, now, start: jnp.sum((now - start) ** 2) if selected else 0.0,
            select(mask, params),
            params,
            state,
        )
        return strength * jnp.float32(sum(jax.tree.leaves(squares))), state

    return Penalty(init, loss)
