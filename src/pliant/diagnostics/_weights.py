"""The size of weights, and their distance from isometry."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._subject import kernels
from pliant.diagnostics._tree_norms import count, matrices, norms, widened
from pliant.isometry import gram_deviation
from pliant.layouts import OutputAxes
from pliant.masks import Mask
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject
from pliant.xla.squares import total_norm


class IsometryDeviation(NamedTuple):
    """What `isometry_deviation` returns."""

    mean: Scalar
    """Unweighted mean over kernels."""
    by_kernel: Float[Array, " kernels"]
    """One value a kernel, in the order of the parameter leaves."""


def isometry_deviation(params: Params, mask: Mask = None, output_axes: OutputAxes = None) -> IsometryDeviation:
    r"""Measures how far kernels are from isometry.

    Use it to follow in one number how far hidden kernels drift from isometry; `weight_spectra` has details.

    .. math:: \frac1m \lVert A^\top A - I \rVert_F^2 = \frac1m \sum_{i=1}^m (\sigma_i^2 - 1)^2

    with A the kernel's matrix view, m its smaller side: `pliant.isometry.gram_deviation` per singular value.

    Args:
      params: the parameters.
      mask: True at the kernels to measure; by default all leaves with two or more axes.
      output_axes: which axes of kernels index outputs, see `pliant.layouts.select_kernels`.

    Returns:
      `IsometryDeviation`, values ≥ 0; 1 for a kernel with σ = √2, about 1 for one that has collapsed to 0.

    Raises:
      UserError: if the mask selects nothing or a vector, since nothing was measured, and for a kernel in which several
        axes may be the outputs.

    Example:
      >>> round(float(isometry_deviation({"kernel": jnp.diag(jnp.array([2.0, 1.0, 0.5]))}).mean), 4)
      3.1875

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Equation 17, divided by the number of singular values.

    Differs from:
      Stoix' `gram_deviation`, which logs 0 where it found no kernel.
    """
    found = matrices(params, mask, output_axes).values()
    values = jnp.stack([gram_deviation(jnp.asarray(matrix)) / min(matrix.shape) for matrix in found])
    return IsometryDeviation(values.mean(), values)


class WeightNorm(NamedTuple):
    """What `weight_norm` returns."""

    total: Scalar
    """The L2 norm of all parameters together."""
    by_leaf: Mapping[str, Scalar]
    """The L2 norm of each leaf, by its path."""
    mean_absolute: Scalar
    """The mean of |θ| over all parameters."""
    max_absolute: Scalar
    """The largest |θ|."""


def weight_norm(params: Params) -> WeightNorm:
    r"""Measures the norm of the parameters, and their mean and largest absolute value.

    Use it to see whether parameters grow without bound.

    .. math:: \lVert\theta\rVert_2 = \sqrt{\textstyle\sum_l \lVert\theta_l\rVert^2}, \qquad
              \frac1P \sum_i |\theta_i|, \qquad \max_i |\theta_i|

    with P the number of parameters. Sums are in float32 or wider.

    Args:
      params: the parameters.

    Returns:
      `WeightNorm`, values ≥ 0; all 0 for parameters that are 0. NaN parameters give NaN.

    Raises:
      UserError: if there are no parameters, since nothing was measured.

    Example:
      >>> found = weight_norm({"kernel": jnp.array([3.0]), "bias": jnp.array([-4.0])})
      >>> float(found.total), float(found.mean_absolute), float(found.max_absolute)
      (5.0, 3.5, 4.0)

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 4.
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://www.nature.com/articles/s41586-024-07711-7>`_, 2024: the mean absolute weight.

    Differs from:
      Dohare et al., whose weight magnitude is `mean_absolute`, of the weights without biases.
    """
    wide = widened(params)
    absolute = jax.tree.map(jnp.abs, wide)
    largest = [leaf.max(initial=0.0) for leaf in jax.tree.leaves(absolute)]
    return WeightNorm(total_norm(wide), norms(wide), optax.tree.sum(absolute) / count(params), jnp.stack(largest).max())


def _measure_isometry(subject: Subject) -> Array:
    """NaN for a network without hidden kernels."""
    hidden = kernels(subject, "matrix")
    return isometry_deviation(hidden, dict.fromkeys(hidden, True), -1).mean if hidden else jnp.full((), jnp.nan)


def _summarize_norm(found: WeightNorm) -> Measured:
    numbers = {"weight_norm": found.total} | {f"weight_norm/{path}": norm for path, norm in found.by_leaf.items()}
    numbers |= {"weight_mean_absolute": found.mean_absolute, "weight_max_absolute": found.max_absolute}
    return as_measured(numbers)


ISOMETRY_DEVIATION = Diagnostic(
    name="isometry-deviation",
    summary="mean over hidden kernels of (σ² − 1)²",
    cost="cheap",
    measure=_measure_isometry,
    summarize=lambda value: Measured({"isometry_deviation": float(value)}),
)
WEIGHT_NORM = Diagnostic(
    name="weight-norm",
    summary="global L2 norm of all parameters, and their mean and largest absolute value",
    cost="cheap",
    measure=lambda subject: weight_norm(subject.params),
    summarize=_summarize_norm,
)
