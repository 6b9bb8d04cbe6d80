"""Convolutions that stay fast inside compiled loops, and pooling to go with them.

XLA:CPU sends a convolution to its fast kernel only in the form NHWC × HWIO → NHWC. It rewrites other forms into that
one, but not inside loops (jax-ml/jax#12868), where JAX's own gradients of a convolution then run about fifty times
slower. So a convolution and its two gradients are primitives, which are lowered to that form on the CPU. On all other
platforms they are lowered to the stock convolution and its gradients, which the GPU's libraries know.

Of images x, kernel k and the output's gradient g, the number ⟨g, x ∗ k⟩ is linear in each. Each primitive is its
gradient to one of the three, so they are each other's gradients, and JAX derives forward mode and all orders from that.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from pliant.xla import winograd
from pliant.xla.lowering import lower_by_platform

Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
_FEW_CHANNELS = 3
_LAYOUT = ("NHWC", "HWIO", "NHWC")
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
      all of it where the kernel has more rows times columns than the image. Under `shard_map`
      it requires `check_vma=False`.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = (pair(padding[0]), pair(padding[1]))
    window = Window(pair(strides), pads, pair(x.shape[1:3]), pair(kernel.shape[:2]))
    return _output_p.bind(x, kernel, window=window)


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


def pair(values: Sequence[int]) -> Pair:
    """Two whole numbers as a tuple, which compiled functions can be told apart by."""
    first, second = values
    return int(first), int(second)


def _by_patches(x: Array, kernel: Array, *, window: Window) -> Array:
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


def _output(
    x: Float[Array, "batch height wide channels"], kernel: Float[Array, "rows columns channels out"], *, window: Window
) -> Float[Array, "batch new_height new_wide out"]:
    """The convolution x ∗ k.

    Example:
      >>> window = Window((1, 1), ((0, 0), (0, 0)), image=(2, 2), kernel=(2, 2))
      >>> _output(jnp.ones((1, 2, 2, 4)), jnp.ones((2, 2, 4, 1)), window=window).tolist()
      [[[[16.0]]]]
    """
    if window.strides == (1, 1) and winograd.fits(x, kernel.shape, window.padding, fewest_channels=16):
        return winograd.output(x, kernel, window.padding)
    return _fast_form(x, kernel, window.padding, strides=window.strides)


def _to_input(
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
      >>> _to_input(jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 4, 1)), window=window)[0, :, :, 0].tolist()
      [[1.0, 0.0], [0.0, 0.0]]
    """
    if g.size == 0:
        return jnp.zeros((len(g), *window.image, kernel.shape[2]), g.dtype)
    phases = [[_phase(window, axis, a) for a in range(window.strides[axis])] for axis in (0, 1)]
    around = phases[0][0][1], phases[1][0][1]
    swapped = (*window.kernel, g.shape[-1], kernel.shape[2])
    if window.strides == (1, 1) and winograd.fits(g, swapped, around, fewest_channels=16):
        return winograd.output(g, kernel[::-1, ::-1], around, transposed=True)

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


def _to_kernel(
    x: Float[Array, "batch height wide channels"], g: Float[Array, "batch new_height new_wide out"], *, window: Window
) -> Float[Array, "rows columns channels out"]:
    """The gradient of ⟨g, x ∗ k⟩ to k: x convolved with g as the kernel, examples in the place of channels.

    In blocks of examples: g of all of them is larger than a core's cache, and would be read again for every
    few of x's channels: up to twice as slow (`benchmarks/convolutions.py`). The sum over examples is in float32 or
    wider: in bfloat16 it would stop growing at 256 times what is added.

    Example:
      >>> window = Window((1, 1), ((0, 0), (0, 0)), image=(2, 2), kernel=(1, 1))
      >>> _to_kernel(jnp.ones((8, 2, 2, 1)), jnp.ones((8, 2, 2, 1)), window=window).tolist()
      [[[[32.0]]]]
    """
    shape = (*window.kernel, x.shape[-1], g.shape[-1])
    if g.size == 0:
        return jnp.zeros(shape, g.dtype)
    if window.strides == (1, 1) and winograd.fits(x, shape, window.padding, fewest_channels=64):
        return winograd.to_kernel(x, g, window.padding)
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


def _stock(x: Array, kernel: Array, *, window: Window) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, window.strides, window.padding, dimension_numbers=_LAYOUT)


Form = Callable[..., Array]
"""One of a convolution and its two gradients: `form(a, b, *, window)`."""


def _gradients(output: Form) -> tuple[Form, Form]:
    """Both gradients of a way to convolve, as JAX derives them."""

    def to_input(g: Array, kernel: Array, *, window: Window) -> Array:
        x = jax.ShapeDtypeStruct((len(g), *window.image, kernel.shape[2]), g.dtype)
        found: Array = jax.linear_transpose(lambda x: output(x, kernel, window=window), x)(g)[0]
        return found

    def to_kernel(x: Array, g: Array, *, window: Window) -> Array:
        kernel = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], g.shape[3]), g.dtype)
        found: Array = jax.linear_transpose(lambda kernel: output(x, kernel, window=window), kernel)(g)[0]
        return found

    return to_input, to_kernel


_output_p = Primitive("pliant_convolution")
"""x ∗ k, of the images and the kernel; leading axes that both have are mapped over."""
_input_p = Primitive("pliant_convolution_to_input")
"""The gradient to the images, of g and the kernel."""
_kernel_p = Primitive("pliant_convolution_to_kernel")
"""The gradient to the kernel, of the images and g."""


def _define(
    primitive: Primitive,
    direct: Form,
    by_patches: Form,
    stock: Form,
    *,
    shape: Callable[..., Any],
    channels: Callable[[Array, Array], int],
    joins: tuple[Pair, Pair],
) -> None:
    """Says how a primitive is computed, and what it makes of the axes that `vmap` adds.

    Args:
      primitive: bilinear.
      direct: computes it on the CPU.
      by_patches: computes it on the CPU where channels are few.
      stock: computes it elsewhere.
      shape: of its result, from the last four axes of its arguments and the window.
      channels: the number of the images' channels.
      joins: for each argument, the axis that its own new axis joins, and which axis of the result that makes longer.
    """

    def abstract(a: Any, b: Any, *, window: Window) -> Any:
        found = (*a.shape[:-4], *shape(a.shape[-4:], b.shape[-4:], window))
        return jax.core.ShapedArray(found, jnp.result_type(a, b))

    def on_cpu(a: Array, b: Array, *, window: Window) -> Array:
        """Mapped over one after the other: as groups of channels they are two to four times as slow."""
        are_few = channels(a, b) <= _FEW_CHANNELS
        if a.ndim == 4:
            return (by_patches if are_few else direct)(a, b, window=window)
        one = functools.partial(on_cpu, window=window)
        found: Array = jax.vmap(one)(a, b) if are_few else jax.lax.map(lambda pair: one(*pair), (a, b))
        return found

    def elsewhere(a: Array, b: Array, *, window: Window) -> Array:
        run = functools.partial(stock, window=window)
        for _ in a.shape[:-4]:
            run = jax.vmap(run)
        return run(a, b)

    def batch(arguments: Any, axes: Any, *, window: Window) -> tuple[Array, int]:
        bind = functools.partial(primitive.bind, window=window)
        if None not in axes:
            return bind(*(jnp.moveaxis(x, axis, 0) for x, axis in zip(arguments, axes, strict=True))), 0
        which = 0 if axes[1] is None else 1
        joined, longer = (arguments[1 - which].ndim - 4 + axis for axis in joins[which])
        x = jnp.moveaxis(arguments[which], axes[which], joined)
        flat = x.reshape(*x.shape[:joined], -1, *x.shape[joined + 2 :])
        y = bind(flat, arguments[1]) if which == 0 else bind(arguments[0], flat)
        return y.reshape(*y.shape[:longer], *x.shape[joined : joined + 2], *y.shape[longer + 1 :]), longer

    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batch
    lower_by_platform(primitive, cpu=on_cpu, elsewhere=elsewhere, parameters=("window",))


_define(
    _output_p,
    _output,
    _by_patches,
    _stock,
    shape=lambda x, kernel, window: (x[0], *window.output, kernel[3]),
    channels=lambda _x, kernel: kernel.shape[-2],
    joins=((0, 0), (3, 3)),
)
_define(
    _input_p,
    _to_input,
    _gradients(_by_patches)[0],
    _gradients(_stock)[0],
    shape=lambda g, kernel, window: (g[0], *window.image, kernel[2]),
    channels=lambda _g, kernel: kernel.shape[-2],
    joins=((0, 0), (2, 3)),
)
_define(
    _kernel_p,
    _to_kernel,
    _gradients(_by_patches)[1],
    _gradients(_stock)[1],
    shape=lambda x, g, window: (*window.kernel, x[3], g[3]),
    channels=lambda x, _g: x.shape[-1],
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
