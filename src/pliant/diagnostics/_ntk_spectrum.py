"""Eigenvalues of an empirical neural tangent kernel: how evenly and how far a gradient step moves the outputs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from pliant.diagnostics._ntk import NTK, ntk
from pliant.diagnostics._singular_values import entropy_rank, squared_sum_over_squares
from pliant.diagnostics._subject import all_outputs, outputs, picked, some, with_picked
from pliant.errors import UserError
from pliant.types import Diagnostic, Measured, Subject

_SMALLEST = 1e-10
"""Eigenvalues below this much of the largest are taken for this much: a condition number has to be finite."""
_MOST_EXAMPLES = 64
_MOST_ROWS = 1024


class NTKSpectrum(NamedTuple):
    """The eigenvalues of a kernel matrix, and what they say."""

    eigenvalues: Float[np.ndarray, " rows"]
    """Descending, ≥ 0."""
    most_negative: float
    """The smallest eigenvalue as computed, or 0: below 0 is rounding, which `eigenvalues` have as 0."""
    condition_log10: float
    """log₁₀(λ₁/λₙ), in [0, 10]."""
    is_saturated: bool
    """Whether the condition is the largest that it can be; with fewer parameters than rows it is, but for rounding."""
    effective_rank: float
    """In [1, rows]."""
    relative_effective_rank: float
    """Over the rows, in (0, 1]."""
    participation_ratio: float
    """In [1, rows]; never above the effective rank."""
    isotropy_deviation: float
    """Standard deviation of the eigenvalues over their mean, in [0, √(rows − 1)]; 0 for a multiple of the identity."""
    smallest_normalized: float
    """The smallest eigenvalue over their mean, in [0, 1]."""
    mean_eigenvalue: float
    """Trace over rows, ≥ 0: the scale."""


def ntk_spectrum(matrix: Float[np.ndarray, "rows rows"]) -> NTKSpectrum:
    r"""Measures the spectrum of a kernel matrix.

    Use it to see how many directions of the output gradient descent can learn at a similar speed.

    .. math:: \kappa = \frac{\lambda_1}{\max(\lambda_n, \epsilon \lambda_1)}, \qquad
              \exp\Big(-\sum_i p_i \ln p_i\Big), \qquad \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}, \qquad
              \frac{\lVert \bar\Theta - I \rVert_F}{\sqrt n}, \qquad \frac{\lambda_n}{\bar\lambda}

    with the eigenvalues :math:`\lambda_1 \ge \dots \ge \lambda_n`, negative ones taken for 0, their shares
    :math:`p_i = \lambda_i / \sum_j \lambda_j`, mean :math:`\bar\lambda`, :math:`\bar\Theta = \Theta / \bar\lambda` and
    :math:`\epsilon = 10^{-10}`. All but the mean are the same for a multiple of the kernel. Computed on the host in
    float64; a condition above 10⁶ or so of a kernel that was made in float32 is rounding.

    Args:
      matrix: symmetric; only its symmetric part counts.

    Returns:
      `NTKSpectrum`. Ranks of a kernel of zeros are 0; what is relative to its eigenvalues is NaN. All is NaN, and
      nothing saturated, if an entry is not finite.

    Raises:
      UserError: for a matrix that is empty or not square, since nothing was measured.

    Example:
      >>> found = ntk_spectrum(np.diag([3.0, 1.0]))
      >>> round(10**found.condition_log10, 4), found.participation_ratio, found.isotropy_deviation
      (3.0, 1.6, 0.5)

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Section 2.2, and figure 5 for condition, isotropy and rank of the NTK.
      Roy, Vetterli, `The effective rank: a measure of effective dimensionality
      <https://ieeexplore.ieee.org/document/7098875>`_, 2007. Definition 1.

    Differs from:
      The paper by having a formula for isotropy, for which it prints none. In the first author's code the shares are
      of squares, and the second's effective rank is the participation ratio.
    """
    if matrix.ndim != 2 or matrix.size == 0 or matrix.shape[0] != matrix.shape[1]:
        raise UserError(
            got=f"a matrix of shape {matrix.shape}", wanted="rows × rows, at least one", do="Pass the matrix of `ntk`."
        )
    if np.isfinite(matrix).all():
        wide = np.asarray(matrix, np.float64)
        found = np.linalg.eigvalsh((wide + wide.T) / 2)[::-1]
    else:
        found = np.full(len(matrix), np.nan)
    eigenvalues = np.maximum(found, 0)
    largest, smallest, mean = eigenvalues[0], eigenvalues[-1], eigenvalues.mean()
    with np.errstate(invalid="ignore"):  # 0 / 0 in a kernel of zeros
        normalized = eigenvalues / mean
        condition = np.log10(largest / np.maximum(smallest, _SMALLEST * largest))
    rank = entropy_rank(eigenvalues)
    return NTKSpectrum(
        eigenvalues=eigenvalues,
        most_negative=float(np.minimum(found[-1], 0)),
        condition_log10=float(condition),
        is_saturated=bool(smallest < _SMALLEST * largest),
        effective_rank=rank,
        relative_effective_rank=rank / len(eigenvalues),
        participation_ratio=squared_sum_over_squares(eigenvalues),
        isotropy_deviation=float(normalized.std()),
        smallest_normalized=float(normalized[-1]),
        mean_eigenvalue=float(mean),
    )


def rayleigh(matrix: Float[np.ndarray, "rows rows"], gradient: Float[np.ndarray, "..."]) -> float:
    r"""Measures how far a kernel carries a step along a gradient.

    Use it to see how fast a gradient step lowers this loss, not an average one.

    .. math:: \rho(g) = \frac{g^\top \Theta\, g}{\lVert g \rVert^2}

    With g the gradient of a loss by the outputs, a gradient step of size η lowers the loss by :math:`\eta \rho(g)
    \lVert g \rVert^2`, to first order.

    Args:
      matrix: Θ, as "full" from `ntk`. Computed on the host in float64.
      gradient: g, (examples, out), or flattened in the order of the matrix's rows.

    Returns:
      A number between the smallest and the largest eigenvalue. NaN for a gradient of zeros, which has no direction, and
      if an entry is not finite.

    Raises:
      UserError: for an empty gradient, since nothing was measured, and a matrix that does not have its size.

    Example:
      >>> rayleigh(np.diag([3.0, 1.0]), np.array([[1.0], [1.0]]))
      2.0

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Equation 4.

    Differs from:
      Nothing known.
    """
    g = np.asarray(gradient, np.float64).ravel()
    if g.size == 0 or matrix.shape != (g.size, g.size):
        raise UserError(
            got=f"a matrix of shape {matrix.shape} and a gradient of {g.size} numbers",
            wanted="as many rows and columns as numbers, at least one",
            do="Pass the full kernel, and the gradient by all outputs of the same examples.",
        )
    largest = np.abs(g).max()
    if not (0 < largest < np.inf and np.isfinite(matrix).all()):
        return float("nan")
    direction = g / largest  # so that no square underflows
    return float(direction @ np.asarray(matrix, np.float64) @ direction / (direction @ direction))


def layer_traces(traces: Mapping[str, Any]) -> dict[str, float]:
    """Adds up what the leaves of each layer contribute to the mean eigenvalue of a kernel.

    Use it to see which layers do the learning.

    Args:
      traces: by the paths of leaves, as from `ntk`.

    Returns:
      By layer, which is the path without its last part; a leaf at the top is a layer of its own. Each is ≥ 0, together
      they are the trace over the rows.

    Raises:
      UserError: if there are none, since nothing was measured.

    Example:
      >>> layer_traces({"head/bias": 1.0, "head/kernel": 2.0, "scale": 4.0})
      {'head': 3.0, 'scale': 4.0}

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Equation 7, the kernel as a sum over layers.

    Differs from:
      Nothing known.
    """
    if not traces:
        raise UserError(got="no traces", wanted="one of at least one leaf", do="Pass the traces of `ntk`.")
    layers: dict[str, float] = {}
    for path, trace in traces.items():
        layer = path.rpartition("/")[0] or path
        layers[layer] = layers.get(layer, 0.0) + float(trace)
    return layers


class MeasuredNTK(NamedTuple):
    """What is measured on the device."""

    kernel: NTK
    gradient: Float[Array, "batch out"]
    """Of the mean loss, by the outputs."""


def _measure(subject: Subject) -> MeasuredNTK:
    batch = some(subject.probe, _MOST_EXAMPLES)
    everything = all_outputs(subject)(subject.params, batch.inputs)
    output = picked(subject, everything)
    function, is_full = outputs(subject), output.size <= _MOST_ROWS
    kernel = ntk(function, subject.params, batch.inputs, mode="full" if is_full else "trace")

    def loss(output: Array) -> Array:
        return subject.losses(with_picked(subject, everything, output), batch.targets).mean()

    return MeasuredNTK(kernel, jax.grad(loss)(output))


def _summarize(found: MeasuredNTK) -> Measured:
    matrix, gradient = np.asarray(found.kernel.matrix), np.asarray(found.gradient)
    spectrum = ntk_spectrum(matrix)
    is_full = len(matrix) == gradient.size
    numbers = {
        "ntk_condition_log10": spectrum.condition_log10,
        "ntk_effective_rank": spectrum.effective_rank,
        "ntk_participation_ratio": spectrum.participation_ratio,
        "ntk_is_saturated": float(spectrum.is_saturated),
        "ntk_isotropy_deviation": spectrum.isotropy_deviation,
        "ntk_smallest_normalized": spectrum.smallest_normalized,
        "ntk_rayleigh": rayleigh(matrix, gradient) if is_full else float("nan"),
        "ntk_trace": spectrum.mean_eigenvalue,
    }
    numbers |= {f"ntk_trace/{layer}": trace for layer, trace in layer_traces(found.kernel.traces).items()}
    return Measured(numbers, {"eigenvalues": spectrum.eigenvalues})


NTK_SPECTRUM = Diagnostic(
    name="ntk",
    summary="empirical neural tangent kernel of the logits on 64 examples: condition, isotropy, rank, trace per row",
    cost="per-task",
    measure=_measure,
    summarize=_summarize,
)
