"""Convolutions that stay fast inside compiled loops, and pooling to go with them.

XLA:CPU sends a convolution to its fast kernel only in the form NHWC × HWIO → NHWC. It rewrites other forms into that
one, but not inside loops (jax-ml/jax#12868), where JAX's own gradients of a convolution then run about fifty times
slower. So on the CPU the convolution is a primitive of its own, which is lowered to the stock one, and whose two
gradients are stated as convolutions of the same form. It is bilinear, so JAX derives forward mode and gradients of
gradients from that. Elsewhere it is the stock convolution, whose gradients the GPU's libraries know.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]
_FEW_CHANNELS = 3
_POSITIONS = 1024
"""That a kernel's gradient is summed over at once, at least."""


class _Window(NamedTuple):
    """How a kernel moves over an image; one entry for height and one for wide."""

    strides: Pair
    padding: tuple[Pair, Pair]
    """(before, after); negative numbers crop."""
    input_dilation: Pair
    kernel_dilation: Pair


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
    window = _Window(_pair(strides), (_pair(padding[0]), _pair(padding[1])), (1, 1), (1, 1))
    if jax.default_backend() != "cpu":
        return _stock(x, kernel, window)
    if kernel.shape[2] <= _FEW_CHANNELS:
        return _by_patches(x, kernel, window)
    return _convolution_p.bind(x, kernel, window=window)


def conv(
    in_features: int,
    out_features: int,
    kernel_size: Pair,
    *,
    strides: int = 1,
    padding: Padding | Sequence[Sequence[int]] = "SAME",
    use_bias: bool = True,
    kernel_init: Any,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Makes an `nnx.Conv` that runs on `convolution`.

    Example:
      >>> layer = conv(3, 8, (3, 3), kernel_init=jax.nn.initializers.ones, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 5, 3))).shape
      (2, 5, 5, 8)
    """

    def run(x: Array, kernel: Array, strides: Any, padding: Any, **_: Any) -> Array:
        return convolution(x, kernel, strides=strides, padding=padding)

    return nnx.Conv(
        in_features,
        out_features,
        kernel_size,
        strides=strides,
        padding=padding if isinstance(padding, str) else [_pair(pair) for pair in padding],
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=run,
        rngs=rngs,
    )


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


def _stock(x: Array, kernel: Array, window: _Window) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, *window[:2], lhs_dilation=window[2], rhs_dilation=window[3], dimension_numbers=_LAYOUT
    )


def _by_patches(x: Array, kernel: Array, window: _Window) -> Array:
    """Every patch as a row, times the kernel as a matrix: of pixels with few channels a fifth of the time.

    The kernel's gradient is then a product of matrices too; as a convolution its examples would be those few channels.
    """
    result = _shape(x, kernel, window=window)
    if 0 in result.shape:
        return jnp.zeros(result.shape, result.dtype)
    config = [(0, 0, 0), *((*pads, 0) for pads in window.padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
    rows, columns, _, out = kernel.shape
    reach = [(size - 1) * stride + 1 for size, stride in zip(result.shape[1:3], window.strides, strict=True)]
    shifted = [
        x[:, r : r + reach[0] : window.strides[0], c : c + reach[1] : window.strides[1]]
        for r in range(rows)
        for c in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, out)


def _on_cpu(x: Array, kernel: Array, window: _Window) -> Array:
    """The stock convolution, in a form that XLA:CPU leaves as it is and computes rightly.

    Rows and columns that negative padding takes away are cut off before: with less than nothing before and something
    after an image, XLA:CPU reads beyond it (openxla/xla#48713).

    Of a kernel with more rows times columns than the image, XLA makes the image, and of the image the kernel. That is
    less work, but not in the form of its fast kernel, in loops and out of them (up to 70 times slower, measured). Here
    it is done in the right form: both flipped, examples and output channels in each other's places.
    """
    result = _shape(x, kernel, window=window)
    x, window = _cropped(x, window)
    if 0 in (x.size, kernel.size, result.size):
        return jnp.zeros(result.shape, result.dtype)
    if kernel.shape[0] * kernel.shape[1] <= x.shape[1] * x.shape[2]:
        return _stock(x, kernel, window)
    pads = []
    for i in (0, 1):
        more = _span(x.shape[1 + i], window.input_dilation[i]) - _span(kernel.shape[i], window.kernel_dilation[i])
        pads.append((window.padding[i][0] + more, window.padding[i][1] + more))
    swapped = _Window(window.strides, (pads[0], pads[1]), window.kernel_dilation, window.input_dilation)
    image, small = kernel[::-1, ::-1].transpose(3, 0, 1, 2), x[:, ::-1, ::-1].transpose(1, 2, 3, 0)
    return _on_cpu(image, small, swapped).transpose(3, 1, 2, 0)


def _cropped(x: Array, window: _Window) -> tuple[Array, _Window]:
    """The same without negative padding. Of a dilated image, zeros between its entries may be left at the ends."""
    parts, pads = [], []
    for i in (0, 1):
        dilation = window.input_dilation[i]
        lost = [-(min(0, pad) // dilation) for pad in window.padding[i]]
        first, last = (pad + n * dilation for pad, n in zip(window.padding[i], lost, strict=True))
        pads.append((first, last))
        parts.append(slice(lost[0], max(lost[0], x.shape[1 + i] - lost[1])))
    return x[:, parts[0], parts[1]], window._replace(padding=(pads[0], pads[1]))


_convolution_p = Primitive("pliant_convolution")


def _run(x: Array, kernel: Array, *, window: _Window) -> Array:
    return jax.jit(_on_cpu, static_argnums=2)(x, kernel, window)


def _shape(x: Any, kernel: Any, *, window: _Window) -> Any:
    result = jax.eval_shape(lambda x, kernel: _stock(x, kernel, window), x, kernel)
    return jax.core.ShapedArray(result.shape, result.dtype)


def _span(size: int, dilation: int) -> int:
    """Length of an axis after zeros were put between its entries."""
    return (size - 1) * dilation + 1 if size else 0


def _to_input(g: Array, x: Any, kernel: Array, *, window: _Window) -> Array:
    """The input's gradient: y = Σ x k read backwards is the dilated g convolved with the flipped kernel.

    With q = (span of the kernel − 1) − p before the first row, strides and dilations of input and output swapped.
    """
    before = [_span(kernel.shape[i], window.kernel_dilation[i]) - 1 - window.padding[i][0] for i in (0, 1)]
    padding = []
    for i in (0, 1):
        reach = _span(x.aval.shape[1 + i], window.input_dilation[i]) + _span(kernel.shape[i], window.kernel_dilation[i])
        padding.append((before[i], reach - 1 - _span(g.shape[1 + i], window.strides[i]) - before[i]))
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    back = _Window(window.input_dilation, (padding[0], padding[1]), window.strides, window.kernel_dilation)
    return _convolution_p.bind(g, flipped, window=back)


def _to_kernel(g: Array, x: Array, kernel: Any, *, window: _Window) -> Array:
    """The kernel's gradient: x convolved with g as the kernel, examples in the place of channels.

    A few examples after the others: g of all of them is larger than a core's cache, and would be read anew for every
    few of x's channels: up to twice as slow (`benchmarks/convolutions.py`).
    """
    padding = []
    for i in (0, 1):
        before = window.padding[i][0]
        reach = _span(kernel.aval.shape[i], window.kernel_dilation[i]) + _span(g.shape[1 + i], window.strides[i])
        padding.append((before, reach - 1 - _span(x.shape[1 + i], window.input_dilation[i]) - before))
    across = _Window(window.kernel_dilation, (padding[0], padding[1]), window.input_dilation, window.strides)

    def of_some(x: Array, g: Array) -> Array:
        result = _convolution_p.bind(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), window=across)
        return result.transpose(1, 2, 0, 3)

    few = 8 * math.ceil(_POSITIONS / 8 / max(1, g.shape[1] * g.shape[2]))
    if len(x) <= few:
        return of_some(x, g)
    rest = len(x) % few
    rounds = tuple(part[rest:].reshape(len(x) // few, few, *part.shape[1:]) for part in (x, g))
    first = of_some(x[:rest], g[:rest]) if rest else jnp.zeros(kernel.aval.shape, g.dtype)
    return jax.lax.scan(lambda total, some: (total + of_some(*some), None), first, rounds)[0]


def _batch(arguments: Any, axes: Any, *, window: _Window) -> tuple[Array, int]:
    """Under `vmap`: an axis of the images joins the examples, one of the kernel the output channels.

    With an axis of both, one convolution after the other: as groups of channels they are two to four times as slow.
    """
    x, kernel = arguments
    x_axis, kernel_axis = axes
    if kernel_axis is None:
        x = jnp.moveaxis(x, x_axis, 0)
        y = _convolution_p.bind(x.reshape(-1, *x.shape[2:]), kernel, window=window)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    if x_axis is None:
        kernel = jnp.moveaxis(kernel, kernel_axis, 3)
        y = _convolution_p.bind(x, kernel.reshape(*kernel.shape[:3], -1), window=window)
        return y.reshape(*y.shape[:3], *kernel.shape[3:]), 3
    pairs = jnp.moveaxis(x, x_axis, 0), jnp.moveaxis(kernel, kernel_axis, 0)
    return jax.lax.map(lambda pair: _convolution_p.bind(*pair, window=window), pairs), 0


_convolution_p.def_impl(_run)
_convolution_p.def_abstract_eval(_shape)
ad.defbilinear(_convolution_p, _to_input, _to_kernel)
batching.primitive_batchers[_convolution_p] = _batch
mlir.register_lowering(_convolution_p, mlir.lower_fun(lambda x, kernel, *, window: _on_cpu(x, kernel, window), False))
