"""Sample plasticity: how much one update lowers the loss of the examples that it was made from."""

import jax.numpy as jnp

from pliant.errors import require_range
from pliant.types import Diagnostic, Info, Number, Scalar, State, Update


def sample_plasticity(loss_before: Scalar, loss_after: Scalar, eps: Number = 1e-8) -> Scalar:
    r"""Measures the share of a batch's loss that one update on that batch removes.

    Use it as a cheap measure of plasticity: one update and two losses.

    .. math:: p = \mathrm{clip}\Big(1 - \frac{L_{after}}{\max(L_{before}, \epsilon)},\ 0,\ 1\Big)

    To first order, gradient descent with learning rate η has :math:`p = \eta \lVert\nabla L\rVert^2 / L`.

    Args:
      loss_before: of the batch before the update, ≥ 0.
      loss_after: of the same batch after it, ≥ 0.
      eps: ε > 0.

    Returns:
      p in [0, 1]; 0 where nothing changed or the loss rose. A batch without loss has 1 if it stays so. NaN for NaN.

    Raises:
      UserError: for an ε that is not positive.

    Example:
      >>> float(sample_plasticity(jnp.float32(2.0), jnp.float32(0.5)))
      0.75

    References:
      Elsayed and Mahmood, `Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
      <https://arxiv.org/abs/2404.00781>`_, 2024. The plasticity of their experiments.

    Differs from:
      Nothing known in the formula. They have one example in a batch, no noise in the network, and the
      mean over all updates; runs take it over 16 of each task, evenly spaced.
    """
    require_range("eps", eps, 1e-30, do="1e-8 is the authors'.")
    return jnp.clip(1.0 - loss_after / jnp.maximum(loss_before, eps), 0.0, 1.0)


def _follow(state: State, update: Update) -> tuple[State, Info]:
    return state, {"sample_plasticity": sample_plasticity(update.loss, update.loss_after())}


SAMPLE_PLASTICITY = Diagnostic(
    name="sample-plasticity",
    summary="share of a batch's loss that the update on it removes (mean over 16 updates of a task; UPGD paper)",
    cost="per-task",
    follow=_follow,
    measures_shares=True,
)
