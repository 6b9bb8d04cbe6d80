"""L2 regularisation: weight decay through the loss."""

import functools
from typing import Literal

import jax
from jaxtyping import Array, PyTree

from pliant.errors import require_choice, require_range
from pliant.masks import Mask, select
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, LogUniform, Method, Number, Params, Penalty, Scalar, State, Wiring
from pliant.xla.squares import sum_of_squares


def l2(
    strength: Number = 1e-3,
    *,
    parameters: Literal["kernels", "all"] = "kernels",
    wiring: Wiring | None = None,
    mask: Mask = None,
) -> Penalty:
    r"""Pulls parameters towards zero through the loss, and so through the optimizer's moments.

    Use it to compare coupled with decoupled weight decay (`pliant.optimizers.adamw`).

    .. math:: \frac{\lambda}{2} \sum_l \lVert \theta_l \rVert^2, \qquad \text{gradient } \lambda \theta

    Under SGD this is weight decay. Under Adam it is not: the pull is divided by the root of the second moment, so a
    weight with large gradients is hardly pulled at all, and one without gradients moves by a full learning rate. The
    decoupled form is `optax.adamw`, the methods `adamw` and `weight-decay`.

    Args:
      strength: λ ≥ 0, in units of 1/weight². 0 does nothing.
      parameters: "kernels" (hidden, head, embeddings), or "all", as PyTorch's Adam with `weight_decay`.
      wiring: the network's layer graph, which says which parameters are kernels. Without it only the mask selects.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default what the wiring says, or all.

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
    require_choice("parameters", parameters, "kernels", "all")
    if wiring is not None and mask is None and parameters == "kernels":
        mask = functools.partial(_kernels, wiring)

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


def _kernels(wiring: Wiring, params: Params) -> PyTree[bool]:
    return wiring.mask(params, "matrix", "head", "embed")


L2 = Method(
    name="l2",
    summary="Adam with the squared norm of the kernels in the loss: weight decay through the moments",
    reference="Loshchilov and Hutter 2019, algorithm 2, the L2 form",
    penalty=l2,
    space={"strength": LogUniform(1e-5, 1e-2)},
    off={"strength": 0.0},
    lowers="weight_norm",
)
