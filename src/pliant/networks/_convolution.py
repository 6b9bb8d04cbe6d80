"""Convolutions that stay fast inside compiled loops, and pooling to go with them.

XLA:CPU sends a convolution to its fast kernel only in the form NHWC × HWIO → NHWC. It rewrites other forms into that
one, but not inside loops (jax-ml/jax#12868), where JAX's own gradients of a convolution then run about fifty times
slower. So on the CPU a convolution and its two gradients are primitives of their own, computed in `_convolution_cpu`.
Of images x, kernel k and the output's gradient g, the number ⟨g, x ∗ k⟩ is linear in each. Each primitive is its
gradient to one of the three, so they are each other's gradients, and JAX derives forward mode and all orders from that.
Elsewhere it is the stock convolution, whose gradients the GPU's libraries know.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from pliant.networks import _convolution_cpu
from pliant.networks._convolution_cpu import Pair, Window
from pliant.networks._rows import spread

Padding = Literal["SAME", "VALID"]
_FEW_CHANNELS = 3


def convolution(
    x: Float[Array, "batch height wide channels"],
    kernel: Float[Array, "rows columns channels out"],
    *,
    strides: Sequence[int] = (1, 1),
    padding: Padding | Sequence[Sequence[int]] = "SAME",
) -> Float[Array, "batch new_height new_wide out"]:
    r"""Convolves images with a kernel (cross-correlation, as everywhere in deep learning).

    .. math:: y_{n,i,j,o} = \sum_{r,s,c} x_{n,\;i\,t_1+r-p_1,\;j\,t_2+s-p_2,\;c}\; k_{r,s,c,o}

    with strides t, zero padding of p before the first row and column.

    Args:
      x: images.
      kernel: HWIO.
      strides: t ≥ 1, for height and wide.
      padding: "SAME", "VALID", or (before, after) for height and for wide.

    Returns:
      The images' channels at the kernel's positions.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> convolution(x, jnp.ones((2, 2, 1, 1)), padding="VALID")[0, :, :, 0].tolist()
      [[8.0, 12.0], [20.0, 24.0]]

    References:
      jax-ml/jax#12868 for the trap that it avoids.

    Differs from:
      `jax.lax.conv_general_dilated`, with the same numbers: that one's gradients are slow in loops on a CPU, and so is
      all of it where the kernel has more rows times columns than the image. Under `shard_map` wants `check_vma=False`.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = (_pair(padding[0]), _pair(padding[1]))
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    window = Window(_pair(strides), pads, _pair(x.shape[1:3]), _pair(kernel.shape[:2]))
    if kernel.shape[2] <= _FEW_CHANNELS:
        return _by_patches(x, kernel, window)
    return _output_p.bind(x, kernel, window=window)


class Conv(nnx.Conv):
    """`nnx.Conv` on `convolution`, with a bias whose gradient is fast.

    Example:
      >>> layer = Conv(3, 8, (3, 3), kernel_init=jax.nn.initializers.ones, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 5, 3))).shape
      (2, 5, 5, 8)
    """

    strides: Pair
    padding: Padding | tuple[Pair, Pair]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Pair,
        *,
        strides: int = 1,
        padding: Padding | Sequence[Sequence[int]] = "SAME",
        use_bias: bool = True,
        kernel_init: Any,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides=(strides, strides),
            padding=padding if isinstance(padding, str) else (_pair(padding[0]), _pair(padding[1])),
            use_bias=use_bias,
            kernel_init=kernel_init,
            rngs=rngs,
        )

    def __call__(  # type: ignore[override] # without Flax' options
        self, x: Float[Array, "batch height wide in"]
    ) -> Float[Array, "batch new_height new_wide out"]:
        """The convolved images, plus the bias."""
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        y = convolution(x, kernel, strides=self.strides, padding=self.padding)
        return y if bias is None else y + spread(bias, y)


def max_pool(
    x: Float[Array, "batch height wide channels"], size: int = 2, *, stride: int | None = None, padding: int = 0
) -> Float[Array, "batch new_height new_wide channels"]:
    """Takes the maximum over windows of `size` × `size`; what does not fill a window at the end is dropped.

    Rows first and then columns, each as the maximum of shifted slices: the gradient of the windowed reduction is ten
    times as slow on a CPU. Where several entries of a window are largest, they share the gradient.

    Args:
      x: images.
      size: rows and columns of a window, ≥ 1; 1 with stride 1 returns the images.
      stride: from window to window, ≥ 1; by default `size`, so that windows do not overlap.
      padding: rows and columns that never win, put before and after, 0 ≤ padding < size.

    Returns:
      The largest entry of every window, channel by channel.

    Example:
      >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]

    References:
      Goodfellow, Bengio, Courville, `Deep Learning <https://www.deeplearningbook.org>`_, 2016. Section 9.3.

    Differs from:
      `flax.linen.max_pool` and PyTorch's, with the same values, in the gradient where entries are equally large: theirs
      goes to one of them.
    """
    stride = size if stride is None else stride
    return _slide(_slide(x, 1, size, stride, padding), 2, size, stride, padding)


def _slide(x: Array, axis: int, size: int, stride: int, padding: int) -> Array:
    """The maximum over windows along one axis."""
    if padding:
        widths = [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths, constant_values=-jnp.inf)
    reach = (x.shape[axis] - size) // stride * stride + 1
    slices = [jax.lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(size)]
    return functools.reduce(jnp.maximum, slices)


def _pair(values: Sequence[int]) -> Pair:
    first, second = values
    return int(first), int(second)


def _by_patches(x: Array, kernel: Array, window: Window) -> Array:
    """Every patch as a row, times the kernel as a matrix: of pixels with few channels a fifth of the time.

    The kernel's gradient is then a product of matrices too; as a convolution its examples would be those few channels.
    """
    height, wide = window.output
    if 0 in (len(x), height, wide):
        return jnp.zeros((len(x), height, wide, kernel.shape[3]), x.dtype)
    config = [(0, 0, 0), *((*pads, 0) for pads in window.padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
    reach = [(size - 1) * stride + 1 for size, stride in zip(window.output, window.strides, strict=True)]
    shifted = [
        x[:, r : r + reach[0] : window.strides[0], c : c + reach[1] : window.strides[1]]
        for r in range(window.kernel[0])
        for c in range(window.kernel[1])
    ]
    rows = jnp.concatenate(shifted, axis=-1)
    columns = kernel.reshape(rows.shape[-1], kernel.shape[3])
    return (rows.reshape(-1, rows.shape[-1]) @ columns).reshape(*rows.shape[:3], kernel.shape[3])


_output_p = Primitive("pliant_convolution")
"""x ∗ k, of the images and the kernel."""
_input_p = Primitive("pliant_convolution_to_input")
"""The gradient to the images, of g and the kernel."""
_kernel_p = Primitive("pliant_convolution_to_kernel")
"""The gradient to the kernel, of the images and g."""


def _define(
    primitive: Primitive, run: Callable[..., Array], shape: Callable[..., Any], joins: tuple[Pair, Pair]
) -> None:
    """Says how a primitive is computed, and what it makes of the axes that `vmap` adds.

    Args:
      primitive: bilinear.
      run: computes it.
      shape: of its result, from its arguments and the window.
      joins: for each argument, the axis that its own new axis joins, and which axis of the result that makes longer.
    """

    def abstract(a: Any, b: Any, *, window: Window) -> Any:
        return jax.core.ShapedArray(shape(a, b, window), jnp.result_type(a, b))

    def batch(arguments: Any, axes: Any, *, window: Window) -> tuple[Array, int]:
        """With new axes of both one after the other: as groups of channels they are two to four times as slow."""
        bind = functools.partial(primitive.bind, window=window)
        if None not in axes:
            pairs = tuple(jnp.moveaxis(x, axis, 0) for x, axis in zip(arguments, axes, strict=True))
            return jax.lax.map(lambda pair: bind(*pair), pairs), 0
        which = 0 if axes[1] is None else 1
        joined, longer = joins[which]
        x = jnp.moveaxis(arguments[which], axes[which], joined)
        flat = x.reshape(*x.shape[:joined], -1, *x.shape[joined + 2 :])
        y = bind(flat, arguments[1]) if which == 0 else bind(arguments[0], flat)
        return y.reshape(*y.shape[:longer], *x.shape[joined : joined + 2], *y.shape[longer + 1 :]), longer

    primitive.def_impl(jax.jit(run, static_argnames="window"))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))


_define(
    _output_p,
    _convolution_cpu.output,
    lambda x, kernel, window: (x.shape[0], *window.output, kernel.shape[3]),
    joins=((0, 0), (3, 3)),
)
_define(
    _input_p,
    _convolution_cpu.to_input,
    lambda g, kernel, window: (g.shape[0], *window.image, kernel.shape[2]),
    joins=((0, 0), (2, 3)),
)
_define(
    _kernel_p,
    _convolution_cpu.to_kernel,
    lambda x, g, window: (*window.kernel, x.shape[3], g.shape[3]),
    joins=((3, 2), (3, 3)),
)
ad.defbilinear(
    _output_p,
    lambda g, _x, kernel, *, window: _input_p.bind(g, kernel, window=window),
    lambda g, x, _kernel, *, window: _kernel_p.bind(x, g, window=window),
)
ad.defbilinear(
    _input_p,
    lambda x, _g, kernel, *, window: _output_p.bind(x, kernel, window=window),
    lambda x, g, _kernel, *, window: _kernel_p.bind(x, g, window=window),
)
ad.defbilinear(
    _kernel_p,
    lambda kernel, _x, g, *, window: _input_p.bind(g, kernel, window=window),
    lambda kernel, x, _g, *, window: _output_p.bind(x, kernel, window=window),
)
