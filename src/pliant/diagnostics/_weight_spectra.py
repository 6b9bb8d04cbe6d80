"""Singular values of kernels: how they stretch and shrink their inputs."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from pliant.diagnostics._singular_values import entropy_rank, singular_values, squares_over_largest
from pliant.diagnostics._subject import kernels
from pliant.diagnostics._tree_norms import matrices
from pliant.errors import UserError
from pliant.layouts import OutputAxes
from pliant.masks import Mask
from pliant.types import Diagnostic, Measured, Params, Subject

_SMALLEST = 1e-12
"""Singular values below this much of the largest are taken for this much: a condition number has to be finite."""


class WeightSpectrum(NamedTuple):
    """The singular values of one kernel, and numbers derived from them."""

    singular_values: Float[np.ndarray, " smaller"]
    """Descending, as many as the smaller side of the matrix view."""
    sigma_min: float
    sigma_max: float
    mean: float
    rms: float
    """Root mean square: 1 for an isometry."""
    condition_log10: float
    """log₁₀(σ_max/σ_min), in [0, 12]."""
    effective_rank: float
    stable_rank: float
    isometry_deviation: float
    """The mean of (σ² − 1)²."""
    log_spread: float
    """The standard deviation of ln σ."""


def weight_spectra(params: Params, mask: Mask = None, output_axes: OutputAxes = None) -> Mapping[str, WeightSpectrum]:
    r"""Measures the singular values of kernels.

    Use it to see how each kernel stretches and shrinks its inputs.

    .. math:: \kappa = \frac{\sigma_{\max}}{\max(\sigma_{\min}, \epsilon\,\sigma_{\max})}, \qquad
              \frac1m \sum_{i=1}^m (\sigma_i^2 - 1)^2, \qquad \mathrm{std}_i \ln \max(\sigma_i, \epsilon\,\sigma_{\max})

    with :math:`\epsilon = 10^{-12}` and σ of `pliant.isometry.matrix_view`, m = min(in, out) values without padding; a
    conv kernel (height, wide, in, out) has min(height · wide · in, out). Ranks as `effective_rank` and `stable_rank`.
    Computed on the host in float64.

    Args:
      params: the parameters.
      mask: True at the kernels to measure; by default all leaves with two or more axes.
      output_axes: which axes of kernels index outputs, see `pliant.layouts.select_kernels`.

    Returns:
      A `WeightSpectrum` for each kernel, by its path. Ranks of a kernel of zeros are 0; it has no condition and no
      spread, which are NaN. All is NaN for a kernel with an entry that is not finite.

    Raises:
      UserError: if the mask selects nothing or a vector, since nothing was measured, and for a kernel in which several
        axes may be the outputs.

    Example:
      >>> found = weight_spectra({"kernel": jnp.diag(jnp.array([2.0, 1.0, 0.5]))})["kernel"]
      >>> round(10**found.condition_log10, 4), found.isometry_deviation
      (4.0, 3.1875)

    References:
      Saxe, McClelland, Ganguli, `Exact solutions to the nonlinear dynamics of learning in deep linear neural networks
      <https://arxiv.org/abs/1312.6120>`_, 2014: all singular values at 1 is dynamical isometry.
      Rosseau et al. 2026 (arXiv 2606.09762). Equation 17, for the isometry deviation.

    Differs from:
      Stoix' code, whose effective rank is the participation ratio. The σ of a conv kernel are not those of the
      convolution as a linear map of images.
    """
    return {path: _spectrum(np.asarray(matrix)) for path, matrix in matrices(params, mask, output_axes).items()}


def _spectrum(matrix: Float[np.ndarray, "in out"]) -> WeightSpectrum:
    sigma = singular_values(np.asarray(matrix, np.float64))
    floored = np.maximum(sigma, _SMALLEST * sigma[0]) if sigma[0] != 0 else np.full_like(sigma, np.nan)
    logarithms = np.log(floored)
    return WeightSpectrum(
        singular_values=sigma,
        sigma_min=float(sigma[-1]),
        sigma_max=float(sigma[0]),
        mean=float(sigma.mean()),
        rms=float(np.sqrt((sigma**2).mean())),
        condition_log10=float((logarithms[0] - logarithms[-1]) / np.log(10)),
        effective_rank=entropy_rank(sigma),
        stable_rank=squares_over_largest(sigma),
        isometry_deviation=float(((sigma**2 - 1) ** 2).mean()),
        log_spread=float(logarithms.std()),
    )


class _Kernels(NamedTuple):
    """Matrices (in, out), by path."""

    hidden: Mapping[str, Array]
    head: Mapping[str, Array]


def _measure(subject: Subject) -> _Kernels:
    found = _Kernels(kernels(subject, "matrix"), kernels(subject, "head"))
    if not any(found):
        raise UserError(
            got="a network without kernels", wanted="at least one matrix", do="Leave this diagnostic out: it has no σ."
        )
    return found


def _summarize(found: _Kernels) -> Measured:
    hidden, head = ({path: _spectrum(np.asarray(matrix)) for path, matrix in each.items()} for each in found)
    spectra = hidden | head
    numbers: dict[str, float] = {}
    for name in ("condition_log10", "sigma_min", "sigma_max", "effective_rank", "stable_rank", "log_spread"):
        of_hidden = [getattr(spectrum, name) for spectrum in hidden.values()]
        numbers[f"weight_{name}"] = float(np.mean(of_hidden)) if of_hidden else float("nan")
        numbers |= {f"weight_{name}/{path}": getattr(spectrum, name) for path, spectrum in spectra.items()}
    arrays = {f"singular_values/{path}": spectrum.singular_values for path, spectrum in spectra.items()}
    return Measured(numbers, arrays)


WEIGHT_SPECTRA = Diagnostic(
    name="weight-spectra",
    summary="singular values of hidden kernels: condition, extremes, ranks, spread; those of the head apart",
    cost="spectral",
    measure=_measure,
    summarize=_summarize,
)
