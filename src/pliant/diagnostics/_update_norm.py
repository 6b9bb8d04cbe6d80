"""The size of an optimizer step."""

from typing import NamedTuple

import jax.numpy as jnp

from pliant.diagnostics._tree_norms import require_same, widened
from pliant.types import Diagnostic, Info, Params, Scalar, State, Update
from pliant.xla.squares import total_norm


class UpdateNorm(NamedTuple):
    """What `update_norm` returns."""

    norm: Scalar
    """The L2 norm of the change of all parameters together."""
    effective_learning_rate: Scalar
    """Over the norm of the parameters before; NaN if these are all 0."""


def update_norm(change: Params, params: Params) -> UpdateNorm:
    r"""Measures the norm of an update, also relative to the norm of the parameters.

    Use it to see whether learning slows down because weights grow.

    .. math:: \lVert \Delta\theta \rVert_2, \qquad \frac{\lVert \Delta\theta \rVert_2}{\lVert \theta \rVert_2}

    with norms over all leaves together. The quotient is the step size that a scale-invariant network sees: it falls as
    weights grow. Sums are in float32.

    Args:
      change: Δθ, what the optimizer adds to the parameters.
      params: θ before the update, of the same structure and shapes.

    Returns:
      `UpdateNorm`, values ≥ 0; both 0 for an update that does nothing. NaN gives NaN.

    Raises:
      UserError: if there are no parameters, since nothing was measured, or the two do not match.

    Example:
      >>> found = update_norm({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([6.0, 8.0])})
      >>> float(found.norm), float(found.effective_learning_rate)
      (5.0, 0.5)

    References:
      Lyle et al., `Normalization and effective learning rates in reinforcement learning
      <https://arxiv.org/abs/2407.01800>`_, 2024.

    Differs from:
      Lyle et al., whose effective learning rate is η/‖θ‖² (for gradient descent) or η/‖θ‖ (for Adam), from the
      optimizer's settings and not from the update that was made. Runs take the mean over 16 updates of each task,
      evenly spaced, not over all.
    """
    require_same(change, params)
    norm, length = total_norm(widened(change)), total_norm(widened(params))
    return UpdateNorm(norm, jnp.where(length == 0, jnp.nan, norm / length))


def _follow(state: State, update: Update) -> tuple[State, Info]:
    found = update_norm(update.change, update.params)
    return state, {"update_norm": found.norm, "effective_learning_rate": found.effective_learning_rate}


UPDATE_NORM = Diagnostic(
    name="update-norm",
    summary="L2 norm of updates, and over that of the parameters (mean over 16 updates of each task)",
    cost="cheap",
    follow=_follow,
)
