"""Ranks of feature matrices."""

import numpy as np
from jaxtyping import Float

from pliant.diagnostics._subject import head_features
from pliant.errors import UserError
from pliant.types import Diagnostic, Measured

_MOST = 4096  # rows of the matrix: enough for any width in use, and quick to decompose


def effective_rank(matrix: Float[np.ndarray, "rows columns"]) -> float:
    r"""Measures the effective rank: the exponential of the entropy of the normalised singular values.

    .. math:: \exp\Big(-\sum_i p_i \ln p_i\Big), \qquad p_i = \sigma_i / \textstyle\sum_j \sigma_j

    Computed on the host in float64, not centred.

    Args:
      matrix: for features (examples, width); give at least as many examples as the width.

    Returns:
      A number in [1, min(rows, columns)]; 0 for a zero matrix by convention; NaN if an entry is not finite.

    Raises:
      UserError: for an empty matrix, since nothing was measured.

    Example:
      >>> round(effective_rank(np.diag([3.0, 1.0])), 4)
      1.7548

    References:
      Roy, Vetterli, `The effective rank: a measure of effective dimensionality
      <https://ieeexplore.ieee.org/document/7098875>`_, 2007. Definition 1.

    Differs from:
      Code that uses σ² for σ, or the participation ratio (Σσ)²/Σσ², under the same name.
    """
    if matrix.size == 0:
        raise UserError(
            got=f"a matrix of shape {matrix.shape}",
            wanted="at least one row and one column",
            do="Pass the features of a non-empty probe batch.",
        )
    if not np.isfinite(matrix).all():
        return float("nan")
    singular = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    singular = singular[singular > 0]
    if singular.size == 0:
        return 0.0
    p = singular / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


EFFECTIVE_RANK = Diagnostic(
    name="effective-rank",
    summary="effective rank of the last hidden layer's features (Roy and Vetterli)",
    cost="spectral",
    measure=lambda subject: head_features(subject)[:_MOST],
    summarize=lambda value: Measured({"effective_rank": effective_rank(value)}),
)
