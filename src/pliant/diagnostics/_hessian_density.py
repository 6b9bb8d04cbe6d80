"""The density of a Hessian's eigenvalues, by stochastic Lanczos quadrature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pliant.diagnostics._hessian import MOST_EXAMPLES, lanczos, probe_loss
from pliant.diagnostics._quadrature import quadrature
from pliant.diagnostics._subject import outputs_in_blocks, some
from pliant.errors import UserError, require_range
from pliant.types import Diagnostic, Measured, Subject

_NUM_STEPS = 90
_NUM_STARTS = 10
_MOST_NUMBERS = 2**28  # in the vectors of Lanczos, 1 GiB in float32: above 3 million parameters there are fewer steps
_OUTLYING = 0.1  # of the largest |λ|
_MARGIN = 0.01
_WIDTHS = 4  # kernel widths beyond which a normal density is 0 to the eye


class HessianDensity(NamedTuple):
    """What `hessian_density` returns."""

    grid: Float[np.ndarray, " points"]
    """Eigenvalues at which the density is given, evenly spaced."""
    density: Float[np.ndarray, " points"]
    """≥ 0; its integral over the grid is 1."""
    nodes: Float[np.ndarray, "starts steps"]
    """Of each start, ascending; NaN behind the last."""
    weights: Float[np.ndarray, "starts steps"]
    """Of each start, summing to 1."""
    largest: float
    """The largest node."""
    smallest: float
    """The smallest node."""
    negative_mass: float
    """Fraction of the eigenvalues that are clearly negative, below −tolerance times the largest |λ|, in [0, 1]."""
    epsilon_rank: float
    """Fraction of the eigenvalues whose absolute value is above ε, in [0, 1]."""
    trace: float
    """Sum of all eigenvalues."""
    num_outliers: float
    """How many eigenvalues have at least a tenth of the largest |λ|: an estimate, not whole."""


def hessian_density(
    alphas: Float[np.ndarray, "starts steps"],
    betas: Float[np.ndarray, "starts steps-1"],
    num_params: int,
    *,
    variance: float = 1e-5,
    epsilon: float = 0.1,
    tolerance: float = 3e-3,
    num_points: int = 1000,
) -> HessianDensity:
    r"""Estimates the density of a Hessian's eigenvalues, and summary numbers of it.

    Use it to see the whole spectrum of curvature: its bulk, its outliers, and how flat the loss is.

    .. math:: \phi(t) = \frac{1}{Z} \sum_v \sum_j \omega_{vj}\, \mathcal N(t;\; \Lambda_{vj},\, s^2), \qquad
              s^2 = \max\big(\sigma^2 \max(1, \Lambda_{max} - \Lambda_{min}),\; \Delta^2\big)

    with the nodes Λ and weights ω of `quadrature` of each start v, Δ the range of the nodes over `num_points` − 1, and
    Z such that the trapezoidal integral is 1. The grid goes from the smallest node to the largest, and beyond by 0.01
    or 4 s, whichever is more. All scalars are read off nodes and weights, before smoothing:

    .. math:: \frac{1}{n_v} \sum_{v,j} \omega_{vj}\, 1[\Lambda_{vj} < -\tau \lambda], \quad
              \frac{1}{n_v} \sum_{v,j} \omega_{vj}\, 1[|\Lambda_{vj}| > \varepsilon], \quad
              \frac{P}{n_v} \sum_{v,j} \omega_{vj} \Lambda_{vj}, \quad
              \frac{P}{n_v} \sum_{v,j} \omega_{vj}\, 1[|\Lambda_{vj}| \ge \lambda / 10]

    for `negative_mass`, `epsilon_rank`, `trace` and `num_outliers`, with λ the largest |Λ|. Eigenvalues that are all
    far below √σ² make a single peak: look at nodes and weights then. Computed on the host in float64.

    Args:
      alphas: diagonals from `lanczos`, (starts, m).
      betas: what lies beside them, (starts, m − 1).
      num_params: P.
      variance: σ² > 0, of the kernel for each unit of range; 10⁻⁵ to 10⁻¹ are usual. It is a variance, not a width.
      epsilon: ε ≥ 0, in units of curvature: two networks compare only under losses of the same scale.
      tolerance: τ ≥ 0, what counts as 0 next to the largest |λ|. With 90 steps, a smaller one counts flat directions as
        negative or not by chance: their nodes lie on either side of 0.
        On nine small networks (P < 2,000, 10 starts) the negative mass was within 20 % of the dense Hessian's.
      num_points: of the grid, ≥ 2.

    Returns:
      `HessianDensity`. All NaN if a tridiagonal matrix has NaN.

    Raises:
      UserError: for no starts or steps, since nothing was measured, and for parameters out of range.

    Example:
      >>> found = hessian_density(np.array([[1.0, 1.0]]), np.array([[2.0]]), num_params=100)
      >>> round(found.trace, 4), round(found.negative_mass, 4), round(float(np.trapezoid(found.density, found.grid)), 4)
      (100.0, 0.5, 1.0)

    References:
      Ghorbani, Krishnan, Xiao, `An Investigation into Neural Net Optimization via Hessian Eigenvalue Density
      <https://arxiv.org/abs/1901.10159>`_, 2019. Section 2. `epsilon_rank`: He, Guo et al., `Spectral Collapse Drives
      Loss of Plasticity in Deep Continual Learning <https://arxiv.org/abs/2509.22335>`_, 2025.

    Differs from:
      The authors' google/spectral-density: 1,000 points, not 10,000, for s is at least Δ here (theirs loses narrow
      kernels between points once the range is large); the grid reaches 4 s beyond all nodes, not 0.01 beyond the mean
      ends (theirs cuts half of a bulk at 0 off and counts the rest for more). Their code passes on as `sigma` what is
      the variance. lop-jax reads ε-rank off the smoothed density, in percent.
    """
    _require(alphas, num_params, num_points, variance=variance, epsilon=epsilon, tolerance=tolerance)
    found = [quadrature(*of_start) for of_start in zip(alphas, betas, strict=True)]
    nodes, weights = np.stack([each.nodes for each in found]), np.stack([each.weights for each in found])
    if np.isnan(weights).any():
        unknown = np.full(num_points, np.nan)
        return HessianDensity(unknown, unknown, nodes, weights, *[float("nan")] * 6)
    is_node = ~np.isnan(nodes)
    at, mass = nodes[is_node], weights[is_node] / len(nodes)
    grid, density = _smooth(at, mass, variance, num_points)
    size = np.abs(at).max()
    return HessianDensity(
        grid=grid,
        density=density,
        nodes=nodes,
        weights=weights,
        largest=float(at.max()),
        smallest=float(at.min()),
        negative_mass=float(mass[at < -tolerance * size].sum()),
        epsilon_rank=float(mass[np.abs(at) > epsilon].sum()),
        trace=float(num_params * (mass * at).sum()),
        num_outliers=float(num_params * mass[(np.abs(at) >= _OUTLYING * size) & (size > 0)].sum()),
    )


def _smooth(at: np.ndarray, mass: np.ndarray, variance: float, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """The grid, and the density of normal kernels on it."""
    extent = at.max() - at.min()
    width = max(np.sqrt(variance * max(1.0, extent)), extent / (num_points - 1))
    margin = max(_MARGIN, _WIDTHS * width)
    grid = np.linspace(at.min() - margin, at.max() + margin, num_points)
    density = np.exp(-(((grid[:, None] - at[None]) / width) ** 2) / 2) @ mass
    return grid, density / np.trapezoid(density, grid)


def _require(
    alphas: np.ndarray, num_params: int, num_points: int, *, variance: float, epsilon: float, tolerance: float
) -> None:
    if alphas.size == 0:
        raise UserError(
            got=f"diagonals of shape {alphas.shape}",
            wanted="at least one start and one step of Lanczos",
            do="Pass what `lanczos` returns.",
        )
    if num_params < alphas.shape[1]:
        raise UserError(
            got=f"num_params={num_params} and {alphas.shape[1]} steps",
            wanted="at least as many parameters as steps",
            do="Pass the size of the Hessian.",
        )
    require_range("variance", variance, np.finfo(float).tiny, do="1e-5 is usual.")
    require_range("epsilon", epsilon, 0, do="0.1 is usual.")
    require_range("tolerance", tolerance, 0, do="3e-3 suits 90 steps.")
    require_range("num_points", num_points, 2, do="1000 is enough for a picture.")


def _measure(subject: Subject) -> dict[str, Array]:
    noise, starts = jax.random.split(subject.key)
    inputs = some(subject.probe, MOST_EXAMPLES).inputs
    num_params = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
    num_steps = max(1, min(_NUM_STEPS, _MOST_NUMBERS // max(1, num_params)))
    of_probe = probe_loss(outputs_in_blocks(subject), subject.params, inputs, noise)
    found = lanczos(of_probe, subject.params, starts, num_steps, _NUM_STARTS)
    return {"alphas": found.alphas, "betas": found.betas, "num_params": jnp.asarray(num_params)}


def _summarize(arrays: dict[str, np.ndarray]) -> Measured:
    found = hessian_density(arrays["alphas"], arrays["betas"], int(arrays["num_params"]))
    numbers = {
        "hessian_density_largest": found.largest,
        "hessian_density_smallest": found.smallest,
        "hessian_negative_mass": found.negative_mass,
        "hessian_epsilon_rank": found.epsilon_rank,
        "hessian_trace": found.trace,
        "hessian_num_outliers": found.num_outliers,
    }
    curves = {"grid": found.grid, "density": found.density, "nodes": found.nodes, "weights": found.weights}
    return Measured(numbers, curves)


HESSIAN_DENSITY = Diagnostic(
    name="hessian-density",
    summary="density of the Hessian's eigenvalues under a regression to the network's own output plus noise",
    cost="rare",
    measure=_measure,
    summarize=_summarize,
)
