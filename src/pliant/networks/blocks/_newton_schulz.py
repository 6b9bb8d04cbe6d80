"""Newton–Schulz orthogonalisation, and layers whose map is orthogonal whatever their weights are."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import require_range, require_whole, unknown_name
from pliant.isometry import matrix_view
from pliant.networks.blocks._spectral_norm import PowerIterated
from pliant.xla.convolution import Padding, Pair
from pliant.xla.squares import sum_of_squares

OrthogonalKind: TypeAlias = Literal["newton-schulz", "cans"]

_BJORCK: tuple[tuple[float, ...], ...] = (
    (3 / 2, -1 / 2),
    (15 / 8, -5 / 4, 3 / 8),
    (35 / 16, -35 / 16, 21 / 16, -5 / 16),
    (315 / 128, -105 / 32, 189 / 64, -45 / 32, 35 / 128),
)
"""Coefficients of σ, σ³, σ⁵, … by order: the Taylor series of σ (1 − (1 − σ²))^(−1/2) in 1 − σ²."""

_MARGIN = 1.05
"""The guard divides by this much more than the norm that it estimates, since estimates are from below."""

_TINY = 1e-30


def newton_schulz(matrix: Float[Array, "in out"], *, iterations: int = 7, order: int = 1) -> Float[Array, "in out"]:
    r"""Iterates a matrix towards the nearest one with orthonormal columns (rows, if it is wide).

    .. math:: Y \leftarrow Y \sum_{j=0}^{q} c_j (Y^\top Y)^j, \qquad
              q = 1:\ \tfrac32 Y - \tfrac12 Y Y^\top Y

    Every singular value follows the scalar polynomial, the singular vectors stay: σ > 0 goes to 1 below √3 = 1.7320
    for order 1, √(7/3) = 1.5275 for order 2, 1.5892 for order 3 and 1.4943 for order 4. From just above the bound
    orders 1 and 3 go to −1, and 2 and 4 diverge. The Gram matrix is that of the smaller side. Seven iterations of order
    1 take 0.05 to 0.714, 0.1 to 0.966, 0.2 to 0.99997 and 1.7 to 0.817.

    Args:
      matrix: its largest singular value should be at most 1, and must be below the order's bound. Computed in float32,
        or the matrix' own type if that is wider.
      iterations: ≥ 0.
      order: q in 1–4, the degree of the polynomial in the Gram matrix.

    Returns:
      The matrix after the iterations, float32 or wider.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> newton_schulz(jnp.diag(jnp.array([1.0, 0.5])), iterations=1).tolist()
      [[1.0, 0.0], [0.0, 0.6875]]

    References:
      Anil, Lucas, Grosse, `Sorting out Lipschitz function approximation <https://arxiv.org/abs/1811.05381>`_, 2019,
      after Björck, Bowie, `An iterative algorithm for computing the best estimate of an orthogonal matrix
      <https://doi.org/10.1137/0708036>`_, 1971.

    Differs from:
      LNets, which scales by the root of the number of entries, where twenty iterations are needed; scale the matrix
      beforehand. Muon's quintic, which ends at singular values between 0.7 and 1.2, is not one of the orders.
    """
    _check_iteration(iterations, order)
    return _iterate(matrix, (_BJORCK[order - 1],) * iterations)


def cans_coefficients(lower: float, iterations: int) -> tuple[tuple[float, float], ...]:
    r"""The best cubic steps towards 1 for singular values in [a, 1], as (coefficient of σ, coefficient of σ³).

    .. math:: p(\sigma) = c\,(3 s^2 \sigma - \sigma^3), \qquad s^2 = \tfrac13(a^2 + ab + b^2), \qquad
              c = \frac{2}{2 s^3 + ab(a + b)}

    maps [a, b] onto [1 − ε, 1 + ε] with :math:`\varepsilon = (2s^3 - ab(a+b))\,c/2`, the least that an odd cubic can
    reach: at a and b from below, at s from above. The next step has a = 1 − ε and b = 1 + ε.

    Args:
      lower: a in [1e-4, 0.99] for the first step; its b is 1.
      iterations: ≥ 0.

    Returns:
      Python numbers, one pair a step; they go to (1.5, −0.5), the Newton–Schulz step.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> [tuple(round(c, 4) for c in pair) for pair in cans_coefficients(0.1, 3)]
      [(3.9634, -3.5706), (1.8497, -0.5491), (1.584, -0.5119)]

    References:
      Grishina, Smirnov, Rakhuba, `Accelerating Newton–Schulz Iteration for Orthogonalization via Chebyshev-type
      Polynomials <https://arxiv.org/abs/2506.10935>`_, 2025. The degree-3 case; the formulas are derived here.

    Differs from:
      The authors' polynomials of degree 5 and more, which a Remez algorithm finds.
    """
    require_range("lower", lower, 1e-4, 0.99, do="Use 0.01, or what the matrix' condition allows.")
    _check_iteration(iterations)
    a, b = lower, 1.0
    steps = []
    for _ in range(iterations):
        s_squared = (a * a + a * b + b * b) / 3
        high, low = 2 * s_squared**1.5, a * b * (a + b)
        c = 2 / (high + low)
        steps.append((3 * s_squared * c, -c))
        error = max(high - low, 0.0) / (high + low)
        a, b = 1 - error, 1 + error
    return tuple(steps)


def cans(matrix: Float[Array, "in out"], *, iterations: int = 7, lower: float = 0.01) -> Float[Array, "in out"]:
    r"""Orthogonalises a matrix of any scale with the cubic steps of `cans_coefficients`.

    .. math:: Y_0 = A / \lVert A^\top A \rVert_F^{1/2}, \qquad
              Y \leftarrow c_1 Y + c_3 Y Y^\top Y

    Beyond b the cubics fall fast and turn negative (for a = 0.001 at 1.0006 b), which would flip singular directions.
    So the scale is a certified bound: :math:`\lVert A^\top A \rVert_F^2 = \sum_i \sigma_i^4 \ge \sigma_{\max}^4`.
    For an orthogonal n × n matrix it is n^(1/4), against n^(1/2) for the Frobenius norm.

    Args:
      matrix: of any scale; 0 stays 0.
      iterations: ≥ 0.
      lower: a in [1e-4, 0.99]: singular values of Y₀ from here on end within the error, for a = 0.01 and seven
        iterations 2.6e-4 (Newton–Schulz: 0.83); smaller ones grow at every step and end below.

    Returns:
      The matrix after the iterations, float32 or wider.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> q = cans(jnp.diag(jnp.array([30.0, 1.0])))
      >>> bool(jnp.allclose(q, jnp.eye(2), atol=3e-4))
      True

    References:
      See `cans_coefficients`.

    Differs from:
      See `cans_coefficients`.
    """
    return _iterate(_scaled(matrix), cans_coefficients(lower, iterations))


def reproject(kernel: Float[Array, "*axes out"], iterations: int = 20) -> Float[Array, "*axes out"]:
    """Replaces a kernel by its orthogonalised value: what Newton–Schulz layers need once in a while.

    The layers' maps stay what they are (up to 1e-3 for condition numbers up to 5), but the weights behind them are well
    conditioned again, and so are their gradients. Order 1, on the matrix view, scaled as in `cans`.

    Args:
      kernel: dense (in, out) or convolutional (height, wide, in, out).
      iterations: ≥ 0.

    Returns:
      A kernel of the same shape and type, whose singular values are 1 (0 where they were 0).

    Raises:
      UserError: for a vector, or a negative number of iterations.

    Example:
      >>> reproject(jnp.array([[8.0, 0.0], [0.0, -0.5]])).tolist()
      [[1.0, 0.0], [0.0, -1.0]]

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Appendix B: every 10,000 training steps.

    Differs from:
      LNets, which scales by the root of the number of entries and runs 50 iterations.
    """
    result = newton_schulz(_scaled(matrix_view(kernel)), iterations=iterations)
    return result.reshape(kernel.shape).astype(kernel.dtype)


class _Orthogonal(PowerIterated):
    """A kernel that is orthogonalised on every call; see `OrthogonalDense`."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        kind: OrthogonalKind = "newton-schulz",
        iterations: int = 7,
        order: int = 1,
        gain: float = 1.0,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        if kind not in get_args(OrthogonalKind):
            raise unknown_name("linear layer", kind, get_args(OrthogonalKind), do="Leave it out for 'newton-schulz'.")
        require_whole("linear_iterations", iterations, 1, do="Use 7, as published.")
        _check_iteration(iterations, order)
        super().__init__(shape, rngs=rngs, **options)
        self.kind = kind
        self.iterations = iterations
        self.order = order
        self.gain = gain
        if kind == "newton-schulz":
            self.start_power_iteration(rngs)

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The orthogonal kernel; with Newton–Schulz of W over max(1, 1.05 uᵀWv)."""
        kernel = self.kernel[...]
        matrix = matrix_view(kernel).astype(_wide(kernel))
        if self.kind == "cans":
            result = cans(matrix, iterations=self.iterations)
        else:
            scale = jnp.maximum(1.0, _MARGIN * self.estimated_norm(matrix, train=train))
            result = newton_schulz(matrix / scale, iterations=self.iterations, order=self.order)
        return (self.gain * result).reshape(kernel.shape).astype(kernel.dtype)


class OrthogonalDense(_Orthogonal):
    r"""A dense layer that applies the orthogonalised value of its weights.

    .. math:: y = g\, x\, Q(W) + b, \qquad Q(W) = \mathrm{NS}(W / s), \qquad s = \max(1, 1.05\,\hat\sigma)

    The guard's estimate :math:`\hat\sigma = u^\top W v` comes from vectors that are kept as state and get one power
    iteration a call with `train=True`; a call without it uses them as they are. The estimate is from below, which is
    forgiven up to a factor of 1.05 times the bound in `newton_schulz`: 1.81, 1.6, 1.66 and 1.56 for orders 1 to 4. So
    after a jump of the weights, as when they are loaded without the state, make some calls with `train=True` first.
    Gradients go through all iterations, in float32. "cans" needs neither guard nor state.

    Args:
      in_features: size of the input.
      out_features: size of the output.
      kind: "newton-schulz" or "cans".
      iterations: ≥ 1; with the 7 of the paper and order 1, singular values of W from 0.13 on end above 0.99 (from 0.13
        of the largest on, if that is above 1).
      order: 1–4, of Newton–Schulz.
      gain: g, the singular value of the map.
      use_bias: whether there is a b (initialised to 0).
      rngs: for the weights, which start orthogonal, and the guard.

    Raises:
      UserError: for an unknown kind, and numbers out of range.

    Example:
      >>> layer = OrthogonalDense(3, 2, rngs=nnx.Rngs(0))
      >>> layer.kernel[...] = jnp.array([[3.0, 0.0], [0.0, 0.8], [0.0, 0.0]])
      >>> for _ in range(5):
      ...     y = layer(jnp.array([[1.0, 2.0, 3.0]]), train=True)
      >>> jnp.round(y, 3).tolist()
      [[1.0, 2.0]]

    References:
      Anil, Lucas, Grosse, `Sorting out Lipschitz function approximation <https://arxiv.org/abs/1811.05381>`_, 2019.
      Rosseau et al. 2026 (arXiv 2606.09762), appendix B.

    Differs from:
      LNets, which runs 20 iterations from a scale that needs them. The margin of 1.05 is ours.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs, **options: Any):
        super().__init__((in_features, out_features), rngs=rngs, **options)


class OrthogonalConv(_Orthogonal):
    r"""A convolution whose kernel, seen as a matrix (height·wide·in, out), is orthogonal; see `OrthogonalDense`.

    That bounds the convolution's norm by √(height·wide), since that many patches read a pixel. It is an isometry where
    patches do not overlap.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      kernel_size: (height, wide).
      strides: ≥ 1, one for both axes, or (for height, for wide).
      padding: as in `pliant.networks.convolution`.
      rngs: for the weights, which start orthogonal, and the guard.
      options: `kind`, `iterations`, `order`, `gain` and `use_bias` of `OrthogonalDense`.

    Raises:
      UserError: for an unknown kind, and numbers out of range.

    Example:
      >>> layer = OrthogonalConv(3, 4, (1, 1), rngs=nnx.Rngs(0))
      >>> x = jnp.ones((1, 2, 2, 3))
      >>> bool(jnp.allclose(jnp.linalg.norm(layer(x)), jnp.linalg.norm(x), rtol=1e-5))
      True

    References:
      See `OrthogonalDense`.

    Differs from:
      Orthogonal convolutions proper (BCOP, Cayley, SOC), whose operator is an isometry.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Pair,
        *,
        strides: int | Pair = 1,
        padding: Padding | Sequence[Sequence[int]] = "SAME",
        rngs: nnx.Rngs,
        **options: Any,
    ):
        shape = (*kernel_size, in_features, out_features)
        super().__init__(shape, strides=strides, padding=padding, rngs=rngs, **options)


def _check_iteration(iterations: int, order: int = 1) -> None:
    require_whole("iterations", iterations, 0, do="Use 7 in a layer, 20 for a projection.")
    require_whole("order", order, 1, len(_BJORCK), do="Use 1, as published; 2–4 converge faster from close by.")


def _wide(array: Array) -> Any:
    return jnp.promote_types(array.dtype, jnp.float32)


def _gram(matrix: Array) -> Array:
    """AᵀA or AAᵀ, whichever is smaller."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return jnp.matmul(tall.T, tall, precision="highest")


def _scaled(matrix: Array) -> Array:
    """The matrix over ‖AᵀA‖_F^(1/2), which is at least its largest singular value; float32 or wider."""
    matrix = matrix.astype(_wide(matrix))
    gram = _gram(matrix)
    return matrix / jnp.maximum(sum_of_squares(gram), _TINY) ** 0.25


def _iterate(matrix: Array, steps: Sequence[Sequence[float]]) -> Array:
    """Applies Y ← Y Σ_j c_j (YᵀY)^j for each step's (c₀, c₁, …), from the left where the matrix is wide."""
    y = matrix.astype(_wide(matrix))
    is_tall = y.shape[0] >= y.shape[1]
    eye = jnp.eye(min(y.shape), dtype=y.dtype)
    for *lower, second, first in steps:
        gram = _gram(y)
        factor = second * eye + first * gram
        for coefficient in reversed(lower):
            factor = coefficient * eye + jnp.matmul(gram, factor, precision="highest")
        y = jnp.matmul(y, factor, precision="highest") if is_tall else jnp.matmul(factor, y, precision="highest")
    return y
