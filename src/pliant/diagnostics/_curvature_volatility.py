"""Curvature volatility: how much the sharpness of the loss differs between mini-batches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pliant.diagnostics._hessian import MOST_EXAMPLES, Tridiagonal, top_eigenvalues, top_tridiagonal
from pliant.diagnostics._subject import loss, some
from pliant.errors import UserError
from pliant.types import Diagnostic, Key, Measured, Params, Scalar, Subject

_NUM_BATCHES = 8


class CurvatureVolatility(NamedTuple):
    """What `curvature_volatility` returns."""

    volatility: float
    """Standard deviation over the size of the mean, ≥ 0."""
    mean: float
    """Of the mini-batches' largest eigenvalues."""


def batch_tridiagonals(
    loss: Callable[[Params, PyTree[Array]], Scalar],
    params: Params,
    examples: PyTree[Array],
    key: Key,
    num_batches: int = 8,
    num_steps: int = 10,
) -> Tridiagonal:
    r"""Tridiagonalises the Hessian of every mini-batch: `top_tridiagonal` of each.

    Use it as the input of `curvature_volatility`.

    .. math:: T_b = V_b^\top H_b V_b, \qquad V_b e_1 = z / \lVert z \rVert, \quad z \sim \mathcal N(0, I)

    Batch b has the examples b, b + M, b + 2M, …, so that data sorted by class are mixed. All have the same number of
    examples; what is left over is not used. All start from the same z.

    Args:
      loss: `loss(params, examples) -> scalar`, a mean.
      params: θ.
      examples: arrays with the same leading axis, of length n ≥ 2.
      key: for the start.
      num_batches: M ≥ 2; at most n are made.
      num_steps: of Lanczos, ≥ 1. Ten find an isolated largest eigenvalue to about a percent.

    Returns:
      `Tridiagonal`, alphas (M, steps) and betas (M, steps − 1).

    Raises:
      UserError: for fewer than two examples or batches, which do not differ.

    Example:
      >>> def loss(w, x):
      ...     return (x @ (w * w)).mean() / 2
      >>> found = batch_tridiagonals(loss, jnp.ones(1), jnp.array([[1.0], [3.0]]), jax.random.key(0))
      >>> found.alphas.tolist()
      [[1.0], [3.0]]

    References:
      See `lanczos`.

    Differs from:
      Nothing known.
    """
    number = min(len(leaf) for leaf in jax.tree.leaves(examples))
    num_batches = min(num_batches, number)
    if num_batches < 2:
        raise UserError(
            got=f"{number} examples in {num_batches} batches",
            wanted="at least two of each",
            do="Pass a larger probe batch: one mini-batch alone does not differ.",
        )
    size = number // num_batches

    def dealt(leaf: Array) -> Array:
        return jnp.asarray(leaf)[: size * num_batches].reshape(size, num_batches, *leaf.shape[1:]).swapaxes(0, 1)

    def of_batch(batch: PyTree[Array]) -> Tridiagonal:
        return Tridiagonal(*top_tridiagonal(lambda params: loss(params, batch), params, key, num_steps))

    return jax.lax.map(of_batch, jax.tree.map(dealt, examples))


def curvature_volatility(sharpness: Float[np.ndarray, " batches"]) -> CurvatureVolatility:
    r"""Measures how much the largest Hessian eigenvalue differs between mini-batches: its coefficient of variation.

    Use it to see whether one learning rate can suit all updates: it is too large for batches that are much sharper.

    .. math:: \frac{\mathrm{std}_b\, \lambda_{max}(H_b)}{|\mathrm{mean}_b\, \lambda_{max}(H_b)|}

    with the unbiased variance. Small batches are sharper than the whole, so compare at one batch size only.

    Args:
      sharpness: the largest eigenvalue of each mini-batch, two or more.

    Returns:
      `CurvatureVolatility`. The volatility is 0 if all are equal, also if all are 0; NaN from NaN.

    Raises:
      UserError: for fewer than two mini-batches.

    Example:
      >>> curvature_volatility(np.array([1.0, 3.0]))
      CurvatureVolatility(volatility=0.7071067811865476, mean=2.0)

    References:
      Baveja, Lewandowski, Schmidt, `A Unified Noise-Curvature View of Loss of Trainability
      <https://arxiv.org/abs/2509.19698>`_, 2025.

    Differs from:
      Their curvature-volatility bound of the step size, of which only the abstract was available here: whether theirs
      varies over mini-batches or over time could not be verified. Here it is over mini-batches at one moment.
    """
    if len(sharpness) < 2:
        raise UserError(got=f"{len(sharpness)} mini-batches", wanted="at least two", do="One alone does not differ.")
    values = np.asarray(sharpness, np.float64)
    mean, deviation = values.mean(), values.std(ddof=1)
    with np.errstate(divide="ignore"):
        return CurvatureVolatility(float(deviation / abs(mean)) if deviation != 0 else 0.0, float(mean))


def _measure(subject: Subject) -> Tridiagonal:
    examples = some(subject.probe, MOST_EXAMPLES)
    return batch_tridiagonals(loss(subject), subject.params, examples, subject.key, _NUM_BATCHES)


def _summarize(found: Tridiagonal) -> Measured:
    each = [top_eigenvalues(alphas, betas).algebraic for alphas, betas in zip(found.alphas, found.betas, strict=True)]
    volatility, mean = curvature_volatility(np.array(each))
    return Measured({"curvature_volatility": volatility, "batch_sharpness": mean})


CURVATURE_VOLATILITY = Diagnostic(
    name="curvature-volatility",
    summary="how much the largest Hessian eigenvalue of the new task differs between eight mini-batches",
    cost="per-task",
    measure=_measure,
    summarize=_summarize,
    moment="start",
)
