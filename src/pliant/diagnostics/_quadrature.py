"""Eigenvalues and their shares from the tridiagonal matrices of Lanczos."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pliant.errors import UserError

_BREAKDOWN = 1e-6  # of the size of the tridiagonal matrix: what rounding leaves of 0 in float32


class Quadrature(NamedTuple):
    """What `quadrature` returns."""

    nodes: Float[np.ndarray, " steps"]
    """Ritz values, ascending; NaN behind the last."""
    weights: Float[np.ndarray, " steps"]
    """≥ 0, summing to 1; 0 where there is no node."""


def quadrature(alphas: Float[np.ndarray, " steps"], betas: Float[np.ndarray, " steps-1"]) -> Quadrature:
    r"""Computes the nodes and weights of the Gauss quadrature of a tridiagonal matrix.

    Use it to read eigenvalues and their shares off the result of `lanczos`.

    .. math:: T = U \Lambda U^\top, \qquad
              \tfrac{1}{\lVert z \rVert^2} z^\top g(H)\, z \approx \sum_j \omega_j\, g(\Lambda_j), \quad
              \omega_j = U_{1j}^2

    Exact for polynomials g of degree up to 2m − 1. The matrix ends before the first β of at most 10⁻⁶ times the largest
    number so far: Lanczos has found all that the start can reach. Computed on the host in float64.

    Args:
      alphas: diagonal of T, (m,).
      betas: what lies beside it, (m − 1,), ≥ 0.

    Returns:
      `Quadrature`, two arrays (m,). All NaN if a number before the end is not finite. A Hessian of zeros has one node,
      0, with weight 1.

    Raises:
      UserError: for an empty diagonal, since nothing was measured.

    Example:
      >>> found = quadrature(np.array([1.0, 1.0]), np.array([2.0]))
      >>> found.nodes.round(4).tolist(), found.weights.round(4).tolist()
      ([-1.0, 3.0], [0.5, 0.5])

    References:
      Golub, Welsch, `Calculation of Gauss quadrature rules <https://doi.org/10.1090/S0025-5718-69-99647-1>`_, 1969.
      Section 2.

    Differs from:
      google/spectral-density, whose JAX code does not look for a β of 0.
    """
    if alphas.size == 0:
        raise UserError(
            got="an empty diagonal", wanted="at least one step of Lanczos", do="Pass what `lanczos` returns."
        )
    diagonal, beside = np.asarray(alphas, np.float64), np.asarray(betas, np.float64)
    size = np.maximum.accumulate(np.abs(diagonal))
    size[1:] = np.maximum(size[1:], np.maximum.accumulate(beside))
    ends = np.flatnonzero(beside <= _BREAKDOWN * size[:-1])
    num_kept = int(ends[0]) + 1 if ends.size else diagonal.size
    diagonal, beside = diagonal[:num_kept], beside[: num_kept - 1]
    nodes, weights = np.full(alphas.shape, np.nan), np.zeros(alphas.shape)
    if not (np.isfinite(diagonal).all() and np.isfinite(beside).all()):
        return Quadrature(nodes, np.full(alphas.shape, np.nan))
    nodes[:num_kept], vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    weights[:num_kept] = vectors[0] ** 2
    return Quadrature(nodes, weights)
