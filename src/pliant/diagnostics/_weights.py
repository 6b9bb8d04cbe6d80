"""Weights: their size, and their distance from isometry."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from pliant.errors import UserError
from pliant.isometry import gram_deviation, matrix_view
from pliant.masks import Mask, select
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject


class IsometryDeviation(NamedTuple):
    """What `isometry_deviation` returns."""

    mean: Scalar
    """Unweighted mean over kernels."""
    by_kernel: Float[Array, " kernels"]
    """One value a kernel, in the order of the parameter leaves."""


def isometry_deviation(params: Params, mask: Mask = None) -> IsometryDeviation:
    r"""Measures how far kernels are from isometry.

    .. math:: \frac1m \lVert A^\top A - I \rVert_F^2 = \frac1m \sum_{i=1}^m (\sigma_i^2 - 1)^2

    with A the kernel's matrix view, m its smaller side: `pliant.isometry.gram_deviation` per singular value.

    Args:
      params: the parameters.
      mask: True at the kernels to measure; by default all leaves with two or more axes.

    Returns:
      `IsometryDeviation`, values ≥ 0; 1 for a kernel with σ = √2, about 1 for one that has collapsed to 0.

    Raises:
      UserError: if the mask selects nothing or a vector, since nothing was measured.

    Example:
      >>> round(float(isometry_deviation({"kernel": jnp.diag(jnp.array([2.0, 1.0, 0.5]))}).mean), 4)
      3.1875

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Equation 17, divided by the number of singular values.

    Differs from:
      Stoix' `gram_deviation`, which logs 0 where it found no kernel.
    """
    chosen = select(mask, params, min_axes=2)
    kernels = [leaf for leaf, take in zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True) if take]
    values = jnp.stack([gram_deviation(kernel) / min(matrix_view(kernel).shape) for kernel in kernels])
    return IsometryDeviation(values.mean(), values)


def weight_norm(params: Params) -> Scalar:
    r"""Measures the global L2 norm of all parameters, :math:`\sqrt{\sum_l \lVert\theta_l\rVert^2}`.

    Args:
      params: the parameters.

    Raises:
      UserError: if there are no parameters, since nothing was measured.

    Example:
      >>> float(weight_norm({"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}))
      5.0

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 4.

    Differs from:
      Dohare et al. 2024, whose weight magnitude is the mean absolute weight.
    """
    if not jax.tree.leaves(params):
        raise UserError(got="no parameters", wanted="at least one array", do="Pass the network's parameters.")
    return optax.tree.norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params))


def _measure_isometry(subject: Subject) -> Array:
    """NaN for a network without hidden kernels."""
    mask = subject.network.wiring.mask(subject.params, "matrix")
    return isometry_deviation(subject.params, mask).mean if any(jax.tree.leaves(mask)) else jnp.full((), jnp.nan)


ISOMETRY_DEVIATION = Diagnostic(
    name="isometry-deviation",
    summary="mean over hidden kernels of (σ² − 1)²",
    cost="cheap",
    measure=_measure_isometry,
    summarize=lambda value: Measured({"isometry_deviation": float(value)}),
)
WEIGHT_NORM = Diagnostic(
    name="weight-norm",
    summary="global L2 norm of all parameters",
    cost="cheap",
    measure=lambda subject: weight_norm(subject.params),
    summarize=lambda value: Measured({"weight_norm": float(value)}),
)
