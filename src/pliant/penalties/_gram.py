"""The Gram penalty: AdamO's term as part of the loss."""

import jax

from pliant.errors import require_range
from pliant.isometry import Rectangular, gram_deviation, require_rectangular
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, LogUniform, Method, Number, Params, Part, Penalty, Scalar, State


def gram(
    strength: Number = 1e-3,
    *,
    gain: Number = 1.0,
    rectangular: Rectangular = "none",
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Penalty:
    r"""Penalises the Gram deviation of kernels in the loss: the coupled form of AdamO.

    Use it to compare AdamO with its coupled form; for best results use `pliant.optimizers.adamo`.

    .. math:: \lambda \sum_l R(W_l), \qquad R(W) = \lVert A^\top A - s^2 I \rVert_F^2

    with R as in `pliant.isometry.gram_deviation`. Under Adam the pull on a weight is divided by the root of its
    second moment, so it depends on the task's gradients; AdamO is the decoupled form.

    Args:
      strength: λ ≥ 0. 0 does nothing. The default is the paper's, a hundredth of `adamo`'s.
      gain: s > 0, the singular value aimed at.
      rectangular: "none" or "fan", see `pliant.isometry.gram_deviation`.
      mask: True at the kernels to penalise, as in `pliant.optimizers.add_isometry_step`.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      A stateless `Penalty`.

    Raises:
      UserError: for numbers out of range, an unknown `rectangular`, a mask that does not fit or selects nothing or a
        vector, and kernels whose output axes are in doubt.

    Example:
      >>> penalty = gram(0.1)
      >>> value, _ = penalty.loss(jnp.diag(jnp.array([2.0, 1.0, 0.5])), (), None)
      >>> round(float(value), 5)
      0.95625

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Equations 16 and 18.

    Differs from:
      `pliant.optimizers.adamo`, whose default λ is 0.1: pass the same to both to compare them. The authors' rejax code,
      whose default λ is 0.2, and which skips convolutions.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_range("gain", gain, 1e-12, do="Use 1 for isometry, √2 for the gain of ReLU networks.")
    require_rectangular(rectangular)

    def init(params: Params) -> State:
        select_kernels(mask, params, output_axes)
        return ()

    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        del forward
        kernels = zip(jax.tree.leaves(heard(strength, params)), select_kernels(mask, params, output_axes), strict=True)
        deviations = [gram_deviation(kernel, gain, rectangular, axes) for kernel, axes in kernels if axes is not None]
        return scaled(strength, sum(deviations)), state

    return Penalty(init, loss)


GRAM_PENALTY = Method(
    name="gram-penalty",
    summary="Adam with the Gram deviation of the hidden kernels in the loss: AdamO's coupled form",
    reference="Rosseau et al. 2026, equation 18",
    penalty=Part(gram, roles=("matrix",)),
    space={"strength": LogUniform(1e-4, 1.0)},
    off={"strength": 0.0},
    lowers="isometry_deviation",
)
