"""L2 regularisation: weight decay through the loss."""

import jax
from jaxtyping import Array

from pliant.errors import require_range
from pliant.masks import Mask, select
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, Number, Params, Penalty, Scalar, State
from pliant.xla.squares import sum_of_squares


def l2(strength: Number = 1e-3, *, mask: Mask = None) -> Penalty:
    r"""Pulls parameters towards zero, through the loss and so through the optimizer's moments.

    .. math:: \frac{\lambda}{2} \sum_l \lVert \theta_l \rVert^2, \qquad \text{gradient } \lambda \theta

    Under SGD this is weight decay. Under Adam it is not: the pull is divided by the root of the second moment, so a
    weight of large gradients is hardly pulled at all, and one without any moves by a whole learning rate. The decoupled
    form is `optax.adamw`, the methods `adamw` and `weight-decay`.

    Args:
      strength: λ ≥ 0, in units of 1/weight². 0 does nothing.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default all.

    Returns:
      A stateless `Penalty`.

    Raises:
      UserError: if `strength` is negative or the mask selects nothing.

    Example:
      >>> float(l2(0.5).loss(jnp.array([1.0, 2.0]), (), None)[0])
      1.25

    References:
      Loshchilov, Hutter, `Decoupled Weight Decay Regularization <https://arxiv.org/abs/1711.05101>`_, 2019.
      Algorithm 2, the L2 form.

    Differs from:
      PyTorch's `weight_decay` of Adam and SGD not at all, with the default mask. Code without the ½, whose λ is half as
      large for the same pull.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")

    def init(params: Params) -> State:
        select(mask, params)
        return ()

    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        del forward
        params = heard(strength, params)

        def square(selected: bool, leaf: Array) -> Array | float:
            return sum_of_squares(leaf) if selected else 0.0

        squares = jax.tree.map(square, select(mask, params), params)
        return scaled(strength * 0.5, sum(jax.tree.leaves(squares))), state

    return Penalty(init, loss)
