"""The ε-rank of a Hessian: in how many directions a loss is curved."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from pliant.diagnostics._hessian import MOST_EXAMPLES, hessian_vector_product, lanczos
from pliant.diagnostics._quadrature import quadrature
from pliant.diagnostics._subject import loss, some, widened
from pliant.errors import UserError, require_range, require_whole
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject

_DENSE = 512  # parameters: up to here all eigenvalues are computed


class HessianRank(NamedTuple):
    """What `hessian_rank` returns."""

    relative: float
    """Fraction of the eigenvalues with |λ| > ε · max |λ|, in [0, 1]."""
    absolute: float
    """Fraction of the eigenvalues with |λ| > δ, in [0, 1]."""
    largest: float
    """max |λ|."""


def dense_hessian(loss: Callable[[Params], Scalar], params: Params) -> Float[Array, "P P"]:
    r"""Computes the whole Hessian of a loss, one column after another.

    Use it for small networks; `lanczos` suits all others.

    .. math:: H e_j, \qquad j = 1, \dots, P

    Args:
      loss: as in `hessian_vector_product`.
      params: P numbers altogether.

    Returns:
      The matrix in the order of `ravel_pytree`, in float32 or wider.

    Example:
      >>> dense_hessian(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 2.0])).tolist()
      [[4.0, 2.0], [2.0, 0.0]]

    References:
      See `hessian_vector_product`.

    Differs from:
      `jax.hessian`, which computes all columns at once.
    """
    flat, unravel = ravel_pytree(jax.tree.map(widened, params))

    def column(number: Array) -> Array:
        vector = unravel(jax.nn.one_hot(number, flat.size, dtype=flat.dtype))
        return ravel_pytree(hessian_vector_product(loss, unravel(flat), vector))[0]

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(column, jnp.arange(flat.size))


def hessian_rank(
    eigenvalues: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, " k"] | None = None,
    *,
    epsilon: float = 0.01,
    absolute: float = 0.1,
) -> HessianRank:
    r"""Measures the ε-rank of a Hessian as a fraction of the number of parameters.

    Use it at the start of a new task: where the loss is flat in almost all directions, gradient descent has little to
    follow.

    .. math:: \frac1P \#\{j : |\lambda_j| > \varepsilon \max_i |\lambda_i|\}, \qquad
              \frac1P \#\{j : |\lambda_j| > \delta\}

    The relative rank does not depend on the scale of the loss, but rises when only the largest eigenvalue falls. The
    absolute one falls with the scale. From `quadrature`, with nodes and weights in place of eigenvalues and 1/P, both
    are estimates. Computed on the host in float64.

    Args:
      eigenvalues: λ, or the nodes of one or more starts; NaN where the weight is 0 does not count.
      weights: of the nodes, ≥ 0 with sum 1; equal by default.
      epsilon: ε ≥ 0.
      absolute: δ ≥ 0, in units of curvature.

    Returns:
      `HessianRank`; 0 for a constant loss, NaN from NaN.

    Raises:
      UserError: without eigenvalues, and for parameters out of range.

    Example:
      >>> hessian_rank(np.array([-2.0, 1.0, 0.05, 0.0]), epsilon=0.02)
      HessianRank(relative=0.75, absolute=0.5, largest=2.0)

    References:
      He, Guo et al., `Spectral Collapse Drives Loss of Plasticity in Deep Continual Learning
      <https://arxiv.org/abs/2509.22335>`_, 2025: the ε-rank of the Hessian at the start of a new task.

    Differs from:
      `hessian_density`, whose ε-rank is absolute and that of a regression to the network's own output. Only the
      authors' abstract was available here; their ε could not be verified.
    """
    if eigenvalues.size == 0:
        raise UserError(
            got="no eigenvalues", wanted="at least one", do="Pass those of `dense_hessian` or `quadrature`."
        )
    require_range("epsilon", epsilon, 0, do="0.01 is the default.")
    require_range("absolute", absolute, 0, do="0.1 is the default.")
    size = np.abs(np.asarray(eigenvalues, np.float64))
    share = np.full(size.shape, 1 / size.size) if weights is None else np.asarray(weights, np.float64)
    size = np.where(share == 0, 0.0, size)
    largest = float(size.max())
    if not np.isfinite(largest):
        return HessianRank(*[float("nan")] * 3)
    return HessianRank(float(share[size > epsilon * largest].sum()), float(share[size > absolute].sum()), largest)


def _diagnostic(
    *, epsilon: float = 0.01, absolute: float = 0.1, num_steps: int = 40, num_starts: int = 4
) -> Diagnostic:
    """Makes the diagnostic of runs: exact up to 512 parameters, beyond by stochastic Lanczos quadrature.

    Args:
      epsilon: see `hessian_rank`.
      absolute: see `hessian_rank`.
      num_steps: of Lanczos, ≥ 1.
      num_starts: of Lanczos, ≥ 1.

    Raises:
      UserError: for numbers out of range.
    """
    require_range("hessian-rank:epsilon", epsilon, 0, do="Leave it out for the default.")
    require_range("hessian-rank:absolute", absolute, 0, do="Leave it out for the default.")
    for name, number in {"num_steps": num_steps, "num_starts": num_starts}.items():
        require_whole(f"hessian-rank:{name}", number, 1, do="Leave it out for the default.")

    def measure(subject: Subject) -> dict[str, Array]:
        batch, of_batch = some(subject.probe, MOST_EXAMPLES), loss(subject)
        params = subject.params

        def of_probe(params: Params) -> Scalar:
            return of_batch(params, batch)

        num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
        if num_params <= _DENSE:
            return {"hessian": dense_hessian(of_probe, params)}
        found = lanczos(of_probe, params, subject.key, num_steps, num_starts)
        return {**found._asdict(), "num_params": jnp.asarray(num_params)}

    def summarize(found: dict[str, np.ndarray]) -> Measured:
        if "hessian" in found:
            matrix = np.asarray(found["hessian"], np.float64)
            num_params, weights = len(matrix), None
            finite = np.isfinite(matrix).all()
            nodes = np.linalg.eigvalsh((matrix + matrix.T) / 2) if finite else np.full(num_params, np.nan)
        else:
            num_params = int(found["num_params"])
            each = [quadrature(*of_start) for of_start in zip(found["alphas"], found["betas"], strict=True)]
            nodes = np.concatenate([one.nodes for one in each])
            weights = np.concatenate([one.weights for one in each]) / len(each)
        rank = hessian_rank(nodes, weights, epsilon=epsilon, absolute=absolute)
        numbers = {
            "hessian_rank": num_params * rank.relative,
            "hessian_rank_fraction": rank.relative,
            "hessian_rank_absolute": rank.absolute,
            "hessian_largest": rank.largest,
        }
        return Measured(numbers)

    return Diagnostic(
        name="hessian-rank",
        summary="fraction of the Hessian's eigenvalues that are not small, on the new task (He, Guo et al.)",
        cost="rare",
        measure=measure,
        summarize=summarize,
        moment="start",
        make=_diagnostic,
    )


HESSIAN_RANK = _diagnostic()
