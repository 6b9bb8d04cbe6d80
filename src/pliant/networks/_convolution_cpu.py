"""How a convolution and its two gradients are computed on the CPU: in the one form that XLA has a fast kernel for."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.networks import _winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
_POSITIONS = 1024
"""That a kernel's gradient is summed over at once, at least."""


class Window(NamedTuple):
    """How a kernel moves over an image; one entry for height and one for wide."""

    strides: Pair
    padding: Pads
    """(before, after); negative numbers crop."""
    image: Pair
    kernel: Pair

    @property
    def output(self) -> Pair:
        """How many positions the kernel has."""
        return (self._positions(0), self._positions(1))

    def _positions(self, axis: int) -> int:
        room = self.image[axis] + sum(self.padding[axis]) - self.kernel[axis]
        return max(0, room // self.strides[axis] + 1)


def output(
    x: Float[Array, "batch height wide channels"], kernel: Float[Array, "rows columns channels out"], *, window: Window
) -> Float[Array, "batch new_height new_wide out"]:
    """The convolution x ∗ k.

    Example:
      >>> window = Window((1, 1), ((0, 0), (0, 0)), image=(2, 2), kernel=(2, 2))
      >>> output(jnp.ones((1, 2, 2, 4)), jnp.ones((2, 2, 4, 1)), window=window).tolist()
      [[[[16.0]]]]
    """
    if window.strides == (1, 1) and _winograd.fits(x, kernel.shape, window.padding, fewest_channels=16):
        return _winograd.output(x, kernel, window.padding)
    return _fast_form(x, kernel, window.padding, strides=window.strides)


def to_input(
    g: Float[Array, "batch new_height new_wide out"],
    kernel: Float[Array, "rows columns channels out"],
    *,
    window: Window,
) -> Float[Array, "batch height wide channels"]:
    """The gradient of ⟨g, x ∗ k⟩ to x.

    With strides t and padding p before, row m = t·u + a of x meets the rows b, b + t, … of the kernel, where
    a + p = t·s + b and 0 ≤ b < t. So for each of the t phases a there is one convolution of g, with those rows in
    reverse order; the same with columns. One convolution of g with zeros between its entries would do, but XLA:CPU has
    no fast kernel for that.

    Example:
      >>> window = Window((2, 2), ((0, 0), (0, 0)), image=(2, 2), kernel=(1, 1))
      >>> to_input(jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 4, 1)), window=window)[0, :, :, 0].tolist()
      [[1.0, 0.0], [0.0, 0.0]]
    """
    if g.size == 0:
        return jnp.zeros((len(g), *window.image, kernel.shape[2]), g.dtype)
    phases = [[_phase(window, axis, a) for a in range(window.strides[axis])] for axis in (0, 1)]
    around = phases[0][0][1], phases[1][0][1]
    swapped = (*window.kernel, g.shape[-1], kernel.shape[2])
    if window.strides == (1, 1) and _winograd.fits(g, swapped, around, fewest_channels=16):
        return _winograd.output(g, kernel[::-1, ::-1], around, transposed=True)

    def part(rows: slice, above: Pair, columns: slice, left: Pair) -> Array:
        some = kernel[rows, columns][::-1, ::-1].swapaxes(2, 3)
        if some.size == 0:
            sizes = (-(-size // stride) for size, stride in zip(window.image, window.strides, strict=True))
            return jnp.zeros((len(g), *sizes, kernel.shape[2]), g.dtype)
        return _fast_form(g, some, (above, left))

    parts = [jnp.stack([part(*row, *column) for column in phases[1]], axis=3) for row in phases[0]]
    x = jnp.stack(parts, axis=2)
    x = x.reshape(len(g), x.shape[1] * x.shape[2], x.shape[3] * x.shape[4], -1)
    return x[:, : window.image[0], : window.image[1]]


def _phase(window: Window, axis: int, phase: int) -> tuple[slice, Pair]:
    """Which rows of the kernel, and the padding of g, for one phase of an axis of the image."""
    stride = window.strides[axis]
    shift, first = divmod(phase + window.padding[axis][0], stride)
    num_rows = len(range(first, window.kernel[axis], stride))
    before = num_rows - 1 - shift
    after = -(-window.image[axis] // stride) - window.output[axis] + shift
    return slice(first, None, stride), (before, after)


def to_kernel(
    x: Float[Array, "batch height wide channels"], g: Float[Array, "batch new_height new_wide out"], *, window: Window
) -> Float[Array, "rows columns channels out"]:
    """The gradient of ⟨g, x ∗ k⟩ to k: x convolved with g as the kernel, examples in the place of channels.

    A few examples after the others: g of all of them is larger than a core's cache, and would be read anew for every
    few of x's channels: up to twice as slow (`benchmarks/convolutions.py`). The sum over examples is in float32 or
    wider: in bfloat16 it would stop growing at 256 times what is added.

    Example:
      >>> window = Window((1, 1), ((0, 0), (0, 0)), image=(2, 2), kernel=(1, 1))
      >>> to_kernel(jnp.ones((8, 2, 2, 1)), jnp.ones((8, 2, 2, 1)), window=window).tolist()
      [[[[32.0]]]]
    """
    shape = (*window.kernel, x.shape[-1], g.shape[-1])
    if g.size == 0:
        return jnp.zeros(shape, g.dtype)
    if window.strides == (1, 1) and _winograd.fits(x, shape, window.padding, fewest_channels=64):
        return _winograd.to_kernel(x, g, window.padding)
    reach = [window.kernel[i] + (window.output[i] - 1) * window.strides[i] - window.image[i] for i in (0, 1)]
    padding = [(before, more - before) for (before, _), more in zip(window.padding, reach, strict=True)]

    dtype = jnp.result_type(x, g)
    wide = jnp.promote_types(dtype, jnp.float32)

    def of_some(x: Array, g: Array) -> Array:
        images, kernel = x.transpose(3, 1, 2, 0).astype(wide), g.transpose(1, 2, 0, 3).astype(wide)
        y = _fast_form(images, kernel, (padding[0], padding[1]), kernel_dilation=window.strides)
        return y.transpose(1, 2, 0, 3)

    few = 8 * math.ceil(_POSITIONS / 8 / max(1, math.prod(window.output)))
    if len(x) <= few:
        return of_some(x, g).astype(dtype)
    rest = len(x) % few
    rounds = tuple(part[rest:].reshape(len(x) // few, few, *part.shape[1:]) for part in (x, g))
    first = of_some(x[:rest], g[:rest]) if rest else jnp.zeros(shape, wide)
    return jax.lax.scan(lambda total, some: (total + of_some(*some), None), first, rounds)[0].astype(dtype)


def _fast_form(
    x: Array,
    kernel: Array,
    padding: Pads,
    *,
    strides: Pair = (1, 1),
    input_dilation: Pair = (1, 1),
    kernel_dilation: Pair = (1, 1),
) -> Array:
    """The stock convolution, in a form that XLA:CPU leaves as it is and computes rightly.

    Rows and columns that negative padding takes away are cut off before: with less than nothing before and something
    after an image, XLA:CPU reads beyond it (openxla/xla#48713).

    Of a kernel with more rows times columns than the image, XLA makes the image, and of the image the kernel. That is
    less work, but not in the form of its fast kernel, in loops and out of them (up to 70 times slower, measured). Here
    it is done in the right form: both flipped, examples and output channels in each other's places.
    """

    def stock(x: Array, kernel: Array, padding: Pads) -> Array:
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, input_dilation, kernel_dilation, dimension_numbers=_LAYOUT
        )

    result: Any = jax.eval_shape(lambda x, kernel: stock(x, kernel, padding), x, kernel)
    x, padding = _cropped(x, padding, input_dilation)
    if 0 in (x.size, kernel.size, result.size):
        return jnp.zeros(result.shape, result.dtype)
    if kernel.shape[0] * kernel.shape[1] <= x.shape[1] * x.shape[2]:
        return stock(x, kernel, padding)
    more = [_span(x.shape[1 + i], input_dilation[i]) - _span(kernel.shape[i], kernel_dilation[i]) for i in (0, 1)]
    pads = [(before + extra, after + extra) for (before, after), extra in zip(padding, more, strict=True)]
    image, small = kernel[::-1, ::-1].transpose(3, 0, 1, 2), x[:, ::-1, ::-1].transpose(1, 2, 3, 0)
    swapped = _fast_form(
        image,
        small,
        (pads[0], pads[1]),
        strides=strides,
        input_dilation=kernel_dilation,
        kernel_dilation=input_dilation,
    )
    return swapped.transpose(3, 1, 2, 0)


def _cropped(x: Array, padding: Pads, dilation: Pair) -> tuple[Array, Pads]:
    """The same without negative padding. Of a dilated image, zeros between its entries may be left at the ends."""
    parts, pads = [], []
    for i in (0, 1):
        lost = [-(min(0, pad) // dilation[i]) for pad in padding[i]]
        first, last = (pad + n * dilation[i] for pad, n in zip(padding[i], lost, strict=True))
        pads.append((first, last))
        parts.append(slice(lost[0], max(lost[0], x.shape[1 + i] - lost[1])))
    return x[:, parts[0], parts[1]], (pads[0], pads[1])


def _span(size: int, dilation: int) -> int:
    """Length of an axis after zeros were put between its entries."""
    return (size - 1) * dilation + 1 if size else 0
