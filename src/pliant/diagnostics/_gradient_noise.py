"""Gradient noise: how much the gradients of single examples scatter around their mean."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from pliant.diagnostics._subject import loss, some
from pliant.errors import UserError
from pliant.types import Diagnostic, Measured, Params, Scalar, Subject

_MOST = 512


class GradientMoments(NamedTuple):
    """What `gradient_moments` returns."""

    mean_square: Scalar
    """Squared norm of the mean gradient, ‖ḡ‖²."""
    example_square: Scalar
    """Mean of the squared norms of the examples' gradients."""


class GradientNoise(NamedTuple):
    """What `gradient_noise` returns."""

    signal: float
    """Estimate of ‖G‖², the squared norm of the expected gradient; negative if noise hides it."""
    trace: float
    """Estimate of tr Σ, the variance of one example's gradient, summed over parameters; ≥ 0."""
    scale: float
    """tr Σ / ‖G‖²: the batch size at which noise and signal are equal. Infinite if noise hides the signal."""


def gradient_moments(
    loss: Callable[[Params, PyTree[Array]], Scalar], params: Params, examples: PyTree[Array]
) -> GradientMoments:
    r"""Computes the squared norm of the mean gradient, and the mean squared norm of the gradients of single examples.

    Use it as the input of `gradient_noise` and `readiness`.

    .. math:: \lVert \bar g \rVert^2, \qquad \frac1n \sum_i \lVert g_i \rVert^2, \qquad
              g_i = \nabla \ell(\theta, x_i), \quad \bar g = \frac1n \sum_i g_i

    One example after another, in float32; holds two gradients.

    Args:
      loss: `loss(params, examples with a batch axis of length 1) -> scalar`.
      params: θ.
      examples: arrays with the same leading axis, of length n ≥ 2.

    Returns:
      `GradientMoments`, NaN if the loss of an example is not finite.

    Raises:
      UserError: for fewer than two examples, which do not scatter, and without parameters.

    Example:
      >>> found = gradient_moments(lambda w, x: (w * x[0]).sum(), jnp.zeros(2), jnp.array([[1.0, 0.0], [3.0, 4.0]]))
      >>> float(found.mean_square), float(found.example_square)
      (8.0, 13.0)

    References:
      McCandlish, Kaplan, Amodei, `An Empirical Model of Large-Batch Training <https://arxiv.org/abs/1812.06162>`_,
      2018. Section 2.

    Differs from:
      Their estimate from the gradients of a small and a large batch (appendix A.1), which here are one example and all.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(examples)}
    if len(lengths) != 1 or min(lengths) < 2 or not jax.tree.leaves(params):
        raise UserError(
            got=f"arrays of {sorted(lengths)} examples and {len(jax.tree.leaves(params))} arrays of parameters",
            wanted="at least two examples, the same number in all arrays, and at least one array of parameters",
            do="Pass a larger probe batch: one gradient alone does not scatter.",
        )
    number = lengths.pop()

    def add(total: Params, example: PyTree[Array]) -> tuple[Params, Scalar]:
        value, found = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[None], example))
        # The gradient of a ReLU is 0 even where the loss is NaN.
        wide = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(value), leaf.astype(jnp.float32), jnp.nan), found)
        return jax.tree.map(jnp.add, total, wide), _square(wide)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    total, squares = jax.lax.scan(add, zeros, jax.tree.map(jnp.asarray, examples))
    return GradientMoments(_square(total) / number**2, squares.mean())


def _square(tree: Params) -> Scalar:
    return sum((jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)), start=jnp.float32(0.0))


def gradient_noise(mean_square: float, example_square: float, num_examples: int) -> GradientNoise:
    r"""Estimates the signal and the noise in gradients, and the simple noise scale.

    Use it to see whether mini-batch gradients still point anywhere: one much smaller than the scale is mostly noise.

    .. math:: \widehat{\mathrm{tr}\,\Sigma} = \frac{n}{n-1} \Big(\frac1n \sum_i \lVert g_i \rVert^2
              - \lVert \bar g \rVert^2\Big), \qquad
              \widehat{\lVert G \rVert^2} = \lVert \bar g \rVert^2 - \frac1n \widehat{\mathrm{tr}\,\Sigma}, \qquad
              B_{simple} = \frac{\mathrm{tr}\,\Sigma}{\lVert G \rVert^2}

    The first two are unbiased, since the expectation of ‖ḡ‖² is ‖G‖² + tr Σ/n. Their ratio is not. Computed on the host
    in float64.

    Args:
      mean_square: of `gradient_moments`.
      example_square: of `gradient_moments`.
      num_examples: n ≥ 2.

    Returns:
      `GradientNoise`. The scale is infinite if the signal is not positive, and NaN if there is no gradient at all.

    Raises:
      UserError: for fewer than two examples.

    Example:
      >>> gradient_noise(8.0, 13.0, num_examples=2)
      GradientNoise(signal=3.0, trace=10.0, scale=3.3333333333333335)

    References:
      McCandlish, Kaplan, Amodei, `An Empirical Model of Large-Batch Training <https://arxiv.org/abs/1812.06162>`_,
      2018. Equation 2.9. Baveja, Lewandowski, Schmidt, `A Unified Noise-Curvature View of Loss of Trainability
      <https://arxiv.org/abs/2509.19698>`_, 2025, bound the step size by gradient noise at a batch size.

    Differs from:
      The indicator of Baveja et al., which is per layer and follows Adam's preconditioned step. Only their abstract was
      available here, so theirs is not reproduced.
    """
    if num_examples < 2:
        raise UserError(
            got=f"num_examples={num_examples}", wanted="at least 2", do="One gradient alone does not scatter."
        )
    mean_square, example_square = float(mean_square), float(example_square)
    trace = float(np.maximum((example_square - mean_square) * num_examples / (num_examples - 1), 0.0))
    signal = mean_square - trace / num_examples
    if signal > 0:
        return GradientNoise(signal, trace, trace / signal)
    return GradientNoise(signal, trace, float("inf") if trace > 0 else float("nan"))


def measure_moments(subject: Subject) -> dict[str, Array]:
    """Gradient moments on at most 512 probe examples, and the sizes that their readers need."""
    examples = some(subject.probe, _MOST)
    found = gradient_moments(loss(subject), subject.params, examples)
    number = len(jax.tree.leaves(examples)[0])
    batch_size = subject.rule.batch_size if subject.rule else 0
    return {**found._asdict(), "num_examples": jnp.asarray(number), "batch_size": jnp.asarray(batch_size)}


def _summarize(found: dict[str, np.ndarray]) -> Measured:
    noise = gradient_noise(float(found["mean_square"]), float(found["example_square"]), int(found["num_examples"]))
    numbers = {"gradient_signal": noise.signal, "gradient_noise": noise.trace, "gradient_noise_scale": noise.scale}
    return Measured(numbers)


GRADIENT_NOISE = Diagnostic(
    name="gradient-noise",
    summary="variance of examples' gradients on the new task, against the squared norm of their mean",
    cost="per-task",
    measure=measure_moments,
    summarize=_summarize,
    moment="start",
)
