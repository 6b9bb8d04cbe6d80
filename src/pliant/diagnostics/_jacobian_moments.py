"""Moments of the singular values of Jacobians that do not fit into memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.diagnostics._subject import widened
from pliant.errors import require_range
from pliant.tracing import Function, segment
from pliant.types import Key


class JacobianMoments(NamedTuple):
    """What `jacobian_moments` returns; one entry an example."""

    squared_sum: Float[Array, " examples"]
    """Estimate of Σσ²."""
    sigma_rms: Float[Array, " examples"]
    """Root of Σσ² over the number of singular values, the smaller side."""
    sigma_max: Float[Array, " examples"]
    """Estimate of the largest singular value, from below."""


def jacobian_moments(
    function: Function,
    inputs: Float[Array, "examples ..."],
    key: Key,
    start: str | None = None,
    end: str | None = None,
    *,
    num_samples: int = 16,
    num_iterations: int = 20,
) -> JacobianMoments:
    r"""Estimates the mean square and the largest of a Jacobian's singular values, without forming the Jacobian.

    Use it where the Jacobian does not fit into memory.

    .. math:: \sum_i \sigma_i^2 \approx \frac1S \sum_{s=1}^S \lVert J^\top z_s \rVert^2, \quad z_s \in \{-1, 1\}^m,
              \qquad \sigma_{max} \approx \lVert J v \rVert, \quad v \leftarrow J^\top J v / \lVert J^\top J v \rVert

    The first is unbiased. Its relative standard deviation is at most √(2/S), for a Jacobian of rank one, and about
    √(2/(S r)) for one with r singular values of equal size. The second is too small, by how much depends on the gap
    between the largest and the others: the expected relative error of σ² is at most about 0.9 ln(n)/(iterations − 1).

    Args:
      function: as in `intermediate_jacobian`.
      inputs: (examples, …), at least one; all are taken at the same time.
      key: for the random vectors.
      start: a feature; None is the inputs.
      end: a feature; None is the output.
      num_samples: S ≥ 1, one backward pass each.
      num_iterations: of the power method, ≥ 1; a forward and a backward pass each.

    Returns:
      `JacobianMoments`, values ≥ 0; 0 for a Jacobian of zeros, NaN where the derivative is.

    Raises:
      UserError: as `intermediate_jacobian`, and for numbers out of range.

    Example:
      >>> found = jacobian_moments(lambda x: (x * jnp.array([[3.0, 1.0]]), {}), jnp.ones((1, 2)), jax.random.key(0))
      >>> float(found.squared_sum[0]), round(float(found.sigma_max[0]), 4)
      (10.0, 3.0)

    References:
      Hutchinson, `A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines
      <https://doi.org/10.1080/03610918908812806>`_, 1989. Kuczyński, Woźniakowski, `Estimating the largest
      eigenvalue by the power and Lanczos algorithms with a random start <https://doi.org/10.1137/0613066>`_, 1992.
      Theorem 3.1.

    Differs from:
      Nothing known.
    """
    require_range("num_samples", num_samples, 1, do="16 is enough for most.")
    require_range("num_iterations", num_iterations, 1, do="20 is usual.")
    path, at = segment(function, inputs, start, end)
    reached, transposed = jax.vjp(path, at)

    def pull(v: Array) -> Array:
        return transposed(v)[0]

    # Forward mode by transposing twice: functions with gradients of their own may not have a derivative of their own.
    push = jax.vjp(pull, jnp.zeros_like(reached))[1]
    for_samples, for_start = jax.random.split(key)

    def sample(key: Key) -> Array:
        return _norms(pull(jax.random.rademacher(key, reached.shape, reached.dtype))) ** 2

    def improve(_: Any, v: Array) -> Array:
        return _normalised(pull(push(v)[0]))

    squared_sum = jax.lax.map(sample, jax.random.split(for_samples, num_samples)).mean(axis=0)
    v = _normalised(jax.random.normal(for_start, at.shape, at.dtype))
    v = jax.lax.fori_loop(0, num_iterations, improve, v)
    rank = min(reached.size, at.size) // len(inputs)
    return JacobianMoments(squared_sum, jnp.sqrt(squared_sum / rank), _norms(push(v)[0]))


def _norms(x: Array) -> Array:
    return jnp.sqrt(jnp.square(widened(x)).sum(axis=tuple(range(1, x.ndim))))


def _normalised(x: Array) -> Array:
    """Of norm 1 for each example; 0 stays 0."""
    norms = _norms(x)
    norms = jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
    return (x / norms.reshape(-1, *[1] * (x.ndim - 1))).astype(x.dtype)
