r"""How far a kernel is from an isometry: the Gram deviation and its gradient, in one place.

AdamO descends it, the coupled penalty adds it to the loss, the diagnostic reports it.
"""

import math
from typing import Literal, TypeAlias, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice
from pliant.types import Number, Scalar
from pliant.xla.squares import sum_of_squares

Rectangular: TypeAlias = Literal["none", "fan"]
_Kernel = TypeVar("_Kernel", Array, np.ndarray)


def require_rectangular(rectangular: str) -> None:
    """Raises unless it is "none" or "fan".

    Example:
      >>> require_rectangular("fan")
    """
    require_choice("rectangular", rectangular, *get_args(Rectangular))


def split_axes(shape: tuple[int, ...], output_axes: tuple[int, ...] = (-1,)) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a kernel that index inputs, and those that index outputs: ascending, from 0.

    Raises:
      UserError: for a vector or a scalar, and for axes that the kernel does not have or that leave no input.

    Example:
      >>> split_axes((64, 8, 16), (-2, -1))
      ((0,), (1, 2))
    """
    if len(shape) < 2:
        raise UserError(
            got=f"a parameter of shape {shape}",
            wanted="a dense (in, out) or conv (height, width, in, out) kernel",
            do="Leave biases and scales out: pass a mask that is True at kernels only.",
        )
    outputs = tuple(sorted({axis % len(shape) for axis in output_axes if -len(shape) <= axis < len(shape)}))
    inputs = tuple(axis for axis in range(len(shape)) if axis not in outputs)
    if len(outputs) != len(output_axes) or not outputs or not inputs:
        raise UserError(
            got=f"output_axes={tuple(output_axes)} for a kernel of shape {shape}",
            wanted="different axes of the kernel, at least one, and at least one that is left for its inputs",
            do="Use (-1,) for (in, out), (0,) for (out, in, height, width), (-2, -1) for (in, heads, size).",
        )
    return inputs, outputs


def matrix_view(kernel: _Kernel, output_axes: tuple[int, ...] = (-1,)) -> _Kernel:
    """The kernel as a matrix (in, out), whatever its layout; `from_matrix` is the inverse.

    Inputs and outputs are flattened in the order of their axes, so a conv kernel (height, width, in, out) becomes
    (height · width · in, out).

    Args:
      kernel: of JAX or NumPy, with two or more axes.
      output_axes: the axes that index outputs; all others index inputs. (−1,) for dense (in, out) and conv (height,
        width, in, out) kernels, (0,) for (out, in, height, width), (−2, −1) for attention (in, heads, size).

    Returns:
      The matrix (in, out), of the same type.

    Raises:
      UserError: for a vector or a scalar, and for axes that the kernel does not have or that leave no input.

    Example:
      >>> matrix_view(jnp.zeros((3, 3, 8, 16))).shape, matrix_view(jnp.zeros((16, 8, 3, 3)), (0,)).shape
      ((72, 16), (72, 16))

    References:
      Miyato et al., `Spectral Normalization for Generative Adversarial Networks <https://arxiv.org/abs/1802.05957>`_,
      2018, who flatten convolutions for their spectral norm.

    Differs from:
      PyTorch and Miyato et al., whose matrix is the transpose, (out, everything else). The view's singular values are
      not the convolution's, see `pliant.networks.OrthogonalConv`.
    """
    axes = split_axes(kernel.shape, output_axes)
    num_in, num_out = (math.prod(kernel.shape[axis] for axis in side) for side in axes)
    return kernel.transpose(*axes[0], *axes[1]).reshape(num_in, num_out)


def from_matrix(matrix: _Kernel, shape: tuple[int, ...], output_axes: tuple[int, ...] = (-1,)) -> _Kernel:
    """The kernel of a shape from its matrix (in, out): the inverse of `matrix_view`.

    Example:
      >>> kernel = jnp.arange(24.0).reshape(2, 3, 4)
      >>> bool((from_matrix(matrix_view(kernel, (0,)), (2, 3, 4), (0,)) == kernel).all())
      True
    """
    order: tuple[int, ...] = sum(split_axes(shape, output_axes), ())
    kernel = matrix.reshape(*(shape[axis] for axis in order))
    return kernel.transpose(*(order.index(axis) for axis in range(len(shape))))


def spatial_axes(shape: tuple[int, ...], output_axes: tuple[int, ...] = (-1,)) -> tuple[int, ...]:
    """The input axes of a convolution that index positions, not channels; none for dense and attention kernels.

    Example:
      >>> spatial_axes((3, 3, 8, 16)), spatial_axes((16, 8, 3, 3), (0,)), spatial_axes((8, 16))
      ((0, 1), (2, 3), ())
    """
    inputs, outputs = split_axes(shape, output_axes)
    if len(outputs) > 1:
        return ()
    return inputs[1:] if outputs == (0,) else inputs[:-1]


def _tall(
    kernel: Float[Array, "..."], gain: Number, rectangular: Rectangular, output_axes: tuple[int, ...]
) -> tuple[Float[Array, "large small"], Scalar]:
    """A (float32 or wider, rows ≥ columns) and s²."""
    require_rectangular(rectangular)
    wide = jnp.promote_types(kernel.dtype, jnp.float32)  # bfloat16 would lose the signal, which is σ² − s²
    matrix = matrix_view(kernel, output_axes).astype(wide)
    num_in, num_out = matrix.shape
    target = jnp.asarray(gain, wide) ** 2
    if rectangular == "fan" and num_out > num_in:
        target = target * (num_out / max(num_in, 1))
    return matrix if num_in >= num_out else matrix.T, target


def _residual(tall: Float[Array, "large small"], target: Scalar) -> Float[Array, "small small"]:
    """AᵀA − s²I."""
    gram = jnp.matmul(tall.T, tall, precision="highest")
    return gram - target * jnp.eye(gram.shape[0], dtype=gram.dtype)


@jax.custom_jvp
def _deviation(tall: Float[Array, "large small"], target: Scalar) -> Scalar:
    """The sum of the squares of AᵀA − s²I. JAX's own gradient multiplies by A twice, from either side."""
    return sum_of_squares(_residual(tall, target))


@_deviation.defjvp
def _along(primals: tuple[Array, Scalar], tangents: tuple[Array, Scalar]) -> tuple[Scalar, Scalar]:
    residual = _residual(*primals)
    by_matrix = jnp.vdot(4.0 * jnp.matmul(primals[0], residual, precision="highest"), tangents[0], precision="highest")
    return sum_of_squares(residual), by_matrix - 2.0 * jnp.trace(residual) * tangents[1]


def gram_deviation(
    kernel: Float[Array, "..."],
    gain: Number = 1.0,
    rectangular: Rectangular = "none",
    output_axes: tuple[int, ...] = (-1,),
) -> Scalar:
    r"""The Gram deviation of a kernel: 0 when all its singular values equal the gain.

    .. math:: R(W) = \lVert A^\top A - s^2 I \rVert_F^2 = \sum_i (\sigma_i^2 - s^2)^2

    where A is `matrix_view(kernel, output_axes)`, transposed if it has more columns than rows, and s is `gain`.

    Args:
      kernel: dense, conv or attention kernel. Computed in float32 or its own dtype, if that is wider.
      gain: s > 0, the singular value aimed at.
      rectangular: "none" as published, or "fan": the target s² is multiplied by out/in where out > in.
      output_axes: the axes of the kernel that index outputs, see `matrix_view`.

    Returns:
      R ≥ 0, summed over the singular values (not averaged).

    Raises:
      UserError: for a vector or a scalar, an unknown `rectangular`, and axes that the kernel does not have.

    Example:
      >>> float(gram_deviation(jnp.diag(jnp.array([2.0, 1.0, 0.5]))))
      9.5625

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Equations 16 and 17.

    Differs from:
      The authors' nanochat code, which has a factor ½ (halve the strength to reproduce it), and their rejax code,
      which always uses "fan" and skips convolutions.
    """
    return _deviation(*_tall(kernel, gain, rectangular, output_axes))


def gram_deviation_gradient(
    kernel: Float[Array, "*axes"],
    gain: Number = 1.0,
    rectangular: Rectangular = "none",
    output_axes: tuple[int, ...] = (-1,),
) -> tuple[Float[Array, "*axes"], Scalar]:
    r"""The gradient of `gram_deviation` in closed form, and a bound on the largest σ².

    .. math:: \nabla R = 4 A (A^\top A - s^2 I), \qquad
              \sigma_{\max}^2 \le s^2 + \lVert A^\top A - s^2 I \rVert_\infty

    The bound is Gershgorin's (largest absolute row sum): free once the Gram is there, and tight near the target. Far
    from it the norm is up to √n times the largest |σ² − s²|, for n the smaller side.

    Args:
      kernel: dense, conv or attention kernel.
      gain: s > 0, the singular value aimed at.
      rectangular: as in `gram_deviation`.
      output_axes: as in `gram_deviation`.

    Returns:
      The gradient in the kernel's shape, and the bound on max(σ², s²), a scalar; both float32 or wider.

    Raises:
      UserError: for a vector or a scalar, an unknown `rectangular`, and axes that the kernel does not have.

    Example:
      >>> gradient, bound = gram_deviation_gradient(jnp.diag(jnp.array([2.0, 1.0, 0.5])))
      >>> [float(g) for g in jnp.diag(gradient)], float(bound)
      ([24.0, 0.0, -1.5], 4.0)

    References:
      As `gram_deviation`; the closed form is derived from equation 16.

    Differs from:
      The authors' rejax and nanochat code, whose factor is 2.
    """
    tall, target = _tall(kernel, gain, rectangular, output_axes)
    residual = _residual(tall, target)
    gradient = 4.0 * jnp.matmul(tall, residual, precision="highest")
    num_in, num_out = matrix_view(kernel, output_axes).shape
    gradient = from_matrix(gradient if num_in >= num_out else gradient.T, kernel.shape, output_axes)
    return gradient, target + jnp.max(jnp.sum(jnp.abs(residual), axis=1), initial=0)
