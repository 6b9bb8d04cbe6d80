"""The Wasserstein regulariser: weights distributed as they were at the start."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError, require_range
from pliant.masks import Mask, select
from pliant.types import Forward, Number, Params, Penalty, Scalar, State


def wasserstein_init(
    strength: Number = 1e-3, *, reduction: Literal["mean", "sum"] = "mean", mask: Mask = None
) -> Penalty:
    r"""Pulls the distribution of each parameter's entries back to that at the start, not the entries themselves.

    .. math:: \lambda \sum_l \frac{1}{n_l} \sum_{k=1}^{n_l} \big( \theta_{l,(k)} - \theta_{l,0,(k)} \big)^2

    where θ_(k) is the k-th smallest of the n entries of a parameter: the squared 2-Wasserstein distance of the two
    empirical distributions. The gradient pulls every entry to the start's entry of the same rank. A parameter whose
    entries are the start's in another order is not pulled at all, where `l2_init` would pull.

    Args:
      strength: λ ≥ 0, in units of 1/weight². 0 does nothing.
      reduction: "mean" over the entries of a parameter, or "sum", which is n times as strong.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `wasserstein-init` leaves norms out.

    Returns:
      A `Penalty`; its state is the start's entries, sorted, one vector a selected parameter, and belongs into
      checkpoints. Costs a sort of all weights an update, on a CPU many times a small network's step.

    Raises:
      UserError: if `strength` is negative, the reduction unknown or the mask selects nothing.

    Example:
      >>> penalty = wasserstein_init(1.0)
      >>> state = penalty.init(jnp.array([0.0, 1.0]))
      >>> float(penalty.loss(jnp.array([1.0, 0.0]), state, None)[0])
      0.0
      >>> float(penalty.loss(jnp.array([2.5, 1.5]), state, None)[0])
      2.25

    References:
      Lewandowski, Tanaka, Schuurmans, Machado, `Directions of Curvature as an Explanation for Loss of Plasticity
      <https://arxiv.org/abs/2312.00246>`_, 2023. The distributional regulariser.

    Differs from:
      The definition by the mean in place of the sum, as in parseval_reg (pass reduction="sum"): so one λ suits
      parameters of all sizes.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    if reduction not in ("mean", "sum"):
        raise UserError(got=f"reduction={reduction!r}", wanted="'mean' or 'sum'", do="Leave it out for 'mean'.")
    reduce = jnp.mean if reduction == "mean" else jnp.sum

    def ordered(params: Params) -> tuple[Float[Array, " entries"], ...]:
        chosen = zip(jax.tree.leaves(select(mask, params)), jax.tree.leaves(params), strict=True)
        return tuple(jnp.sort(leaf, axis=None) for selected, leaf in chosen if selected)

    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        del forward
        distances = []
        for now, start in zip(ordered(params), state, strict=True):
            wide = jnp.promote_types(now.dtype, jnp.float32)
            distances.append(reduce((now.astype(wide) - start.astype(wide)) ** 2))
        return strength * jnp.float32(sum(distances)), state

    return Penalty(ordered, loss)
