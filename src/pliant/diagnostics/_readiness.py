"""Optimization readiness: a bound of what one update on a new task can gain."""

from typing import NamedTuple

import numpy as np

from pliant.diagnostics._gradient_noise import gradient_noise, measure_moments
from pliant.errors import require_range
from pliant.types import Diagnostic, Measured


class Readiness(NamedTuple):
    """What `readiness` returns."""

    readiness: float
    """Strength × reliability, ≥ 0."""
    strength: float
    """Estimate of ‖G‖²; negative if noise hides it, which then counts as 0."""
    reliability: float
    """Signal in the squared norm of a mini-batch gradient, in [0, 1]; 0 without a gradient."""


def readiness(signal: float, trace: float, batch_size: int) -> Readiness:
    r"""Measures how much one update with a mini-batch gradient can gain: its strength times its reliability.

    Use it at the start of a new task, with the loss of that task, to predict how fast the network will learn it.

    .. math:: R = S \cdot \rho, \qquad S = \lVert G \rVert^2, \qquad
              \rho = \frac{\lVert G \rVert^2}{\lVert G \rVert^2 + \mathrm{tr}\,\Sigma / B}

    For a loss f whose gradient is L-Lipschitz, an update θ − η g with an unbiased g, the mean over B examples, has

    .. math:: \mathbb E\, f(\theta - \eta g) \le f(\theta) - \eta \lVert G \rVert^2
              + \tfrac12 L \eta^2 \Big(\lVert G \rVert^2 + \tfrac1B \mathrm{tr}\,\Sigma\Big)

    whose right-hand side is least at η = ρ / L. There the expected gain is at least R / (2L). So R orders networks by
    this bound if their losses are equally smooth; L is not measured. Computed on the host in float64.

    Args:
      signal: ‖G‖², from `gradient_noise`.
      trace: tr Σ of one example, from `gradient_noise`.
      batch_size: B ≥ 1, examples in an update.

    Returns:
      `Readiness`; 0 where the signal is not positive, NaN from NaN.

    Raises:
      UserError: for a batch size below 1.

    Example:
      >>> readiness(signal=3.0, trace=10.0, batch_size=10)
      Readiness(readiness=2.25, strength=3.0, reliability=0.75)

    References:
      Wang et al., `Predicting Plasticity in Deep Continual Learning: A Theoretical Perspective
      <https://arxiv.org/abs/2605.09044>`_, 2026.

    Differs from:
      Possibly the authors' formula: only their abstract was available here. It says that readiness combines gradient
      strength and gradient reliability, and bounds the gain of one step from below under smoothness. The form here is
      derived from that, and its bound is for SGD, not for Adam.
    """
    require_range("batch_size", batch_size, 1, do="Pass the number of examples in an update.")
    found = np.maximum(signal, 0.0)  # keeps NaN
    noisy = found + trace / batch_size
    reliability = found / noisy if noisy != 0 else 0.0
    return Readiness(float(found * reliability), float(signal), float(reliability))


def _summarize(found: dict[str, np.ndarray]) -> Measured:
    noise = gradient_noise(float(found["mean_square"]), float(found["example_square"]), int(found["num_examples"]))
    of_batch = readiness(noise.signal, noise.trace, int(found["batch_size"]))
    numbers = {
        "readiness": of_batch.readiness,
        "readiness_strength": of_batch.strength,
        "readiness_reliability": of_batch.reliability,
    }
    return Measured(numbers)


READINESS = Diagnostic(
    name="readiness",
    summary="gradient strength times reliability on the new task: what one update can gain (Wang et al.)",
    cost="per-task",
    measure=measure_moments,
    summarize=_summarize,
    needs=("rule",),
    moment="start",
)
