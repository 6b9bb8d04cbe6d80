"""Ranks of feature matrices: the number of directions that the last hidden layer uses."""

import numpy as np
from jaxtyping import Array, Float

from pliant.diagnostics._singular_values import (
    entropy_rank,
    shares,
    singular_values,
    squared_sum_over_squares,
    squares_over_largest,
)
from pliant.diagnostics._subject import head_features
from pliant.errors import require_range
from pliant.types import Diagnostic, Measured, Subject

_MOST = 4096  # rows of the matrix: enough for any width in use, and quick to decompose
_ROUNDING = 1e-12  # of a sum of shares, so that ties with 1 − δ count as reached


def effective_rank(matrix: Float[np.ndarray, "rows columns"], *, power: float = 1, centered: bool = False) -> float:
    r"""Measures the effective rank: the exponential of the entropy of the normalised singular values.

    Use it as a smooth count of the directions that features use; it does not depend on their scale.

    .. math:: \exp\Big(-\sum_i p_i \ln p_i\Big), \qquad p_i = \sigma_i^a / \textstyle\sum_j \sigma_j^a

    Computed on the host in float64.

    Args:
      matrix: for features (examples, width); give at least as many examples as the width.
      power: a ≥ 1; 1 as defined, 2 for shares of the squared singular values, which gives a lower rank.
      centered: whether the mean of each column is taken off first.

    Returns:
      A number in [1, min(rows, columns)]; 0 for a zero matrix by convention; NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured, and a power below 1.

    Example:
      >>> round(effective_rank(np.diag([3.0, 1.0])), 4)
      1.7548
      >>> round(effective_rank(np.diag([3.0, 1.0]), power=2), 4)
      1.3841

    References:
      Roy, Vetterli, `The effective rank: a measure of effective dimensionality
      <https://ieeexplore.ieee.org/document/7098875>`_, 2007. Definition 1.

    Differs from:
      Code that uses σ² for σ (here `power=2`), or `participation_ratio`, under the same name. Kumar et al. call
      `srank` effective rank.
    """
    require_range("power", power, 1, do="Use 1 as defined, or 2 for squared singular values.")
    return entropy_rank(singular_values(matrix, centered=centered), power)


def participation_ratio(matrix: Float[np.ndarray, "rows columns"]) -> float:
    r"""Measures the participation ratio of the singular values.

    Use it as a count of directions that small singular values change less than `effective_rank`.

    .. math:: \frac{(\sum_i \sigma_i)^2}{\sum_i \sigma_i^2} = \frac{1}{\sum_i p_i^2}, \qquad
              p_i = \sigma_i / \textstyle\sum_j \sigma_j

    The exponential of the Rényi entropy of order 2 where `effective_rank` has order 1, and never above it.

    Args:
      matrix: for features (examples, width); not centred. Computed on the host in float64.

    Returns:
      A number in [1, min(rows, columns)]; 0 for a zero matrix by convention; NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured.

    Example:
      >>> participation_ratio(np.diag([3.0, 1.0]))
      1.6

    References:
      Hill, `Diversity and evenness: a unifying notation and its consequences
      <https://doi.org/10.2307/1934352>`_, 1973: the number of order 2 of the shares p.

    Differs from:
      Stoix' code, which calls this effective rank. In neuroscience, the ratio of that name is of the eigenvalues of the
      covariance: σ² of the centred matrix for σ.
    """
    return squared_sum_over_squares(singular_values(matrix))


def srank(matrix: Float[np.ndarray, "rows columns"], delta: float = 0.01) -> float:
    r"""Measures the srank: the number of singular values that make up a share 1 − δ of their sum.

    Use it to compare with work on implicit under-parameterisation; it is a whole number.

    .. math:: \min\Big\{k : \sum_{i \le k} \sigma_i \Big/ \textstyle\sum_j \sigma_j \ge 1 - \delta\Big\}

    Args:
      matrix: for features (examples, width); not centred. Computed on the host in float64; shares count as reached
        within 10⁻¹².
      delta: δ in [0, 1].

    Returns:
      A whole number in 1, …, min(rows, columns); 0 for a zero matrix by convention; NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured, and δ out of range.

    Example:
      >>> srank(np.diag([100.0, 1.0])), srank(np.diag([3.0, 1.0]))
      (1.0, 2.0)

    References:
      Kumar, Agarwal, Ghosh, Levine, `Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement
      Learning <https://arxiv.org/abs/2010.14498>`_, 2021. Section 3, δ = 0.01.

    Differs from:
      Dohare et al. 2024 and Plasticine, who call this stable rank. L2 Init's code counts the values before the share is
      reached, one less. The approximate rank of Yang et al. takes σ² for σ.
    """
    require_range("delta", delta, 0, 1, do="0.01 is usual.")
    reached = np.cumsum(shares(singular_values(matrix)))
    if np.isnan(reached).any():
        return float("nan")
    return float((reached < 1 - delta - _ROUNDING).sum() + 1) if reached.size else 0.0


def stable_rank(matrix: Float[np.ndarray, "rows columns"]) -> float:
    r"""Measures the stable rank, also called numerical rank.

    Use it to see whether one direction dominates the features.

    .. math:: \frac{\lVert A \rVert_F^2}{\lVert A \rVert_2^2} = \frac{\sum_i \sigma_i^2}{\sigma_1^2}

    Never above `effective_rank(matrix, power=2)`, and hardly changed by small singular values.

    Args:
      matrix: features (examples, width) or weights; not centred. Computed on the host in float64.

    Returns:
      A number in [1, min(rows, columns)]; 0 for a zero matrix by convention; NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured.

    Example:
      >>> round(stable_rank(np.diag([3.0, 1.0])), 4)
      1.1111

    References:
      Rudelson, Vershynin, `Sampling from large matrices: an approach through geometric functional analysis
      <https://arxiv.org/abs/math/0503442>`_, 2007. Section 1, the numerical rank.

    Differs from:
      Dohare et al. 2024 and Plasticine, who publish `srank` under this name.
    """
    return squares_over_largest(singular_values(matrix))


def feature_rank(matrix: Float[np.ndarray, "examples width"], threshold: float = 0.01) -> float:
    r"""Measures the feature rank: the number of singular values above an absolute threshold.

    Use it when the scale of features matters too, as in the capacity of value networks.

    .. math:: \#\big\{i : \sigma_i(\Phi) / \sqrt n > \epsilon\big\}

    The only one of the ranks that depends on the features' scale.

    Args:
      matrix: Φ, features of n examples; not centred. Computed on the host in float64.
      threshold: ε ≥ 0.

    Returns:
      A whole number in 0, …, min(examples, width); NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured, and a negative threshold.

    Example:
      >>> feature_rank(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.01], [0.0, 0.01]]))
      1.0

    References:
      Lyle, Rowland, Dabney, `Understanding and Preventing Capacity Loss in Reinforcement Learning
      <https://arxiv.org/abs/2204.09560>`_, 2022. Definition 2; ε = 0.01 is that of its plots.

    Differs from:
      The definition by using these n examples for the limit n → ∞. A reimplementation (timoklein/infer) leaves 1/√n
      out, as it believes that the paper's plots do, and finds higher ranks.
    """
    require_range("threshold", threshold, 0, do="0.01 is usual.")
    singular = singular_values(matrix) / np.sqrt(len(matrix))
    return float("nan") if np.isnan(singular).any() else float((singular > threshold).sum())


def _features(subject: Subject) -> Array:
    return head_features(subject)[:_MOST]


def _summarize(features: np.ndarray) -> Measured:
    singular = singular_values(features)
    return Measured(
        {
            "effective_rank": entropy_rank(singular),
            "effective_rank_squared": entropy_rank(singular, 2),
            "participation_ratio": squared_sum_over_squares(singular),
        }
    )


EFFECTIVE_RANK = Diagnostic(
    name="effective-rank",
    summary="effective rank of the last hidden layer's features (Roy and Vetterli), also of σ²; participation ratio",
    cost="spectral",
    measure=_features,
    summarize=_summarize,
)
SRANK = Diagnostic(
    name="srank",
    summary="singular values of the last hidden layer's features that make up 99 % of their sum (Kumar et al.)",
    cost="spectral",
    measure=_features,
    summarize=lambda features: Measured({"srank": srank(features)}),
)
STABLE_RANK = Diagnostic(
    name="stable-rank",
    summary="stable rank of the last hidden layer's features, Σσ² / σ₁²",
    cost="spectral",
    measure=_features,
    summarize=lambda features: Measured({"stable_rank": stable_rank(features)}),
)
FEATURE_RANK = Diagnostic(
    name="feature-rank",
    summary="singular values of the last hidden layer's features over √n that are above 0.01 (Lyle et al.)",
    cost="spectral",
    measure=_features,
    summarize=lambda features: Measured({"feature_rank": feature_rank(features)}),
)
