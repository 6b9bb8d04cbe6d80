"""Layers whose units have a direction and a size: by weight normalisation, or by a scale behind the weights."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._orthogonal import orthogonal
from pliant.types import Key, Method


class WeightNorm(KernelLayer):
    r"""A dense layer, or a convolution, with weight normalisation: of each unit's weights only the direction counts.

    .. math:: y_j = x\, \frac{g_j v_j}{\lVert v_j \rVert} + b_j

    with v_j all weights into unit j, and g the parameter `scale`, at the start the norms of v: the layer then is the
    plain one with the weights v. Norms are taken in float32, and that of v_j = 0 as 1.

    A unit's g_j stays the norm of its applied weights when one of the weights in v_j is set to 0: the others grow.

    Args:
      shape: of the kernel, (in, out) or (height, wide, in, out).
      rngs: for the weights.
      options: `gain`, `use_bias`, `strides` and `padding` of `KernelLayer`.

    Example:
      >>> layer = WeightNorm((2, 1), rngs=nnx.Rngs(0))
      >>> layer.kernel[...], layer.scale[...] = jnp.array([[3.0], [4.0]]), jnp.array([10.0])
      >>> layer(jnp.array([[1.0, 0.5]])).tolist()
      [[10.0]]

    References:
      Salimans, Kingma, `Weight Normalization <https://arxiv.org/abs/1602.07868>`_, 2016. Equation 2.

    Differs from:
      The paper, which sets g and b by the first batch. PyTorch's `weight_norm`, with the same numbers, which divides 0
      by 0 for a unit without weights.
    """

    def __init__(self, shape: tuple[int, ...], *, rngs: nnx.Rngs, **options: Any):
        super().__init__(shape, rngs=rngs, **options)
        self.scale = nnx.Param(column_norms(self.kernel[...]).reshape(-1))

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The directions times the scale."""
        del train
        kernel, scale = self.kernel[...], self.scale[...]
        factor = scale.reshape((1,) * (kernel.ndim - 1) + (-1,)) / column_norms(kernel)
        return (kernel * factor).astype(kernel.dtype)


class Scaled(KernelLayer):
    r"""A dense layer, or a convolution, with a learned scale behind the weights of each unit.

    .. math:: y_j = s_j\, x\, w_j + b_j

    The w_j start with norm 1, and `pliant.interventions.unit_sphere` brings them back there after every update. The
    parameter `scale`, s, starts such that the layer is the plain one that the weights were drawn for.

    Args:
      shape: of the kernel, (in, out) or (height, wide, in, out).
      rngs: for the weights.
      options: `gain`, `use_bias`, `strides` and `padding` of `KernelLayer`.

    Example:
      >>> layer = Scaled((4, 3), gain=2.0, rngs=nnx.Rngs(0))
      >>> jnp.round(column_norms(layer.kernel[...]), 3).tolist(), jnp.round(layer.scale[...], 3).tolist()
      ([[1.0, 1.0, 1.0]], [2.0, 2.0, 2.0])

    References:
      Lee et al., `Hyperspherical Normalization for Scalable Deep Reinforcement Learning
      <https://arxiv.org/abs/2502.15280>`_, 2025 (SimbaV2): linear layers on the sphere, each with a scaler.

    Differs from:
      SimbaV2, whose layers have no biases and whose scalers are learned at another rate than the weights.
    """

    def __init__(self, shape: tuple[int, ...], *, rngs: nnx.Rngs, **options: Any):
        super().__init__(shape, rngs=rngs, **options)
        norms = column_norms(self.kernel[...])
        self.kernel[...] = self.kernel[...] / norms
        self.scale = nnx.Param(norms.reshape(-1))

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The kernel times the scale."""
        del train
        kernel, scale = self.kernel[...], self.scale[...]
        return kernel * scale.reshape((1,) * (kernel.ndim - 1) + (-1,))


def column_norms(kernel: Float[Array, "*axes out"]) -> Float[Array, "*ones out"]:
    """The norm of the weights into each unit, 1 where they are 0: the kernel's shape with 1 for all axes but the last.

    In float32 or wider; the gradient at 0 is 0.

    Example:
      >>> column_norms(jnp.array([[3.0, 0.0], [4.0, 0.0]])).tolist()
      [[5.0, 1.0]]
    """
    wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    squares = jnp.sum(wide**2, axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1.0))


def fresh_direction(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Draws a kernel for `Scaled`: orthogonal, with columns of norm 1.

    Example:
      >>> jnp.round(column_norms(fresh_direction(jax.random.key(0), (2, 3))), 3).tolist()
      [[1.0, 1.0, 1.0]]
    """
    kernel = orthogonal(1.0)(key, shape, jnp.float32)
    return (kernel / column_norms(kernel)).astype(dtype)


def fresh_scale(gain: float, fan_in: int) -> Callable[[Key, tuple[int, ...], Any], Array]:
    """Makes the initialiser of a unit's scale: the root mean square norm of the columns of an orthogonal kernel.

    Where units are no more than inputs, all columns have that norm.

    Args:
      gain: singular values of the kernel, > 0.
      fan_in: rows of its matrix view.

    Example:
      >>> fresh_scale(2.0, 8)(jax.random.key(0), (4,), jnp.float32).tolist()
      [2.0, 2.0, 2.0, 2.0]
    """

    def initializer(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key
        return jnp.full(shape, gain * min(1.0, fan_in / shape[-1]) ** 0.5, dtype)

    return initializer


WEIGHT_NORM = Method(
    name="weight-norm",
    summary="Adam on a network with weight normalisation: direction and size of every unit's weights apart",
    reference="Salimans and Kingma 2016, equation 2",
    network={"linear": "weight-norm"},
)
