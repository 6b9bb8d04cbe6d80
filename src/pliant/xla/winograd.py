r"""Winograd's convolution with kernels of 3 × 3: 16 products where the definition has 36.

.. math:: y = A^\top \left[ (G k G^\top) \odot (B^\top d B) \right] A

for every tile d of 4 × 4 inputs, whose outputs y are 2 × 2. Over channels, each of the 16 entries is one product of
matrices, (tiles, in) times (in, out). Tiles overlap by two. A few examples go through all steps before the next ones,
so that intermediate results stay in a core's cache. Rounding errors are about those of the definition: a few 10⁻⁷ of
the largest output.

References:
  Lavin, Gray, `Fast Algorithms for Convolutional Neural Networks <https://arxiv.org/abs/1509.09308>`_, 2015. Section
  4.1, F(2 × 2, 3 × 3).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Matrix = Sequence[Sequence[float]]
Blocks = list[list[Array]]
Pads = Sequence[Sequence[int]]

_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
_POSITIONS = 2048
"""Outputs of a channel in one round: what of them is in between fits a core's cache up to a few hundred channels."""
_FEW = 256
"""Tiles of one round, below which the products are too small to be fast."""


def fits(x: Any, kernel: tuple[int, ...], padding: Pads, *, fewest_channels: int) -> bool:
    """Whether a convolution with stride 1 can be done this way, and is faster so.

    Args:
      x: images, or their shape and type.
      kernel: shape, HWIO.
      padding: (before, after) for height and wide.
      fewest_channels: in and out, from which it is faster.

    Example:
      >>> image = jax.ShapeDtypeStruct((8, 32, 32, 64), jnp.float32)
      >>> fits(image, (3, 3, 64, 64), ((1, 1), (1, 1)), fewest_channels=16)
      True
      >>> fits(image, (3, 3, 64, 64), ((1, 1), (1, 0)), fewest_channels=16)
      False
    """
    rows, columns, *channels = kernel
    height, wide = (x.shape[1 + i] + sum(padding[i]) - 2 for i in (0, 1))
    tiled = min(height, wide) > 0 and height % 2 == wide % 2 == 0 and min(map(min, padding)) >= 0
    if (rows, columns) != (3, 3) or not tiled or not len(x):
        return False
    tiles = _examples_at_once(len(x), x.shape[1:3], padding) * height * wide // 4
    return min(channels) >= fewest_channels and tiles >= _FEW and x.dtype in (jnp.float32, jnp.float64)


def output(
    x: Float[Array, "batch height wide channels"],
    kernel: Float[Array, "3 3 _ _"],
    padding: Pads,
    *,
    transposed: bool = False,
) -> Float[Array, "batch new_height new_wide _"]:
    """The convolution with stride 1, of an even number of rows and columns.

    Args:
      x: images.
      kernel: HWIO.
      padding: (before, after) ≥ 0 for height and wide.
      transposed: whether the kernel is given as HWOI; faster than to transpose it before.

    Example:
      >>> output(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), ((0, 0), (0, 0)))[0, :, :, 0].tolist()
      [[9.0, 9.0], [9.0, 9.0]]
    """
    weights = _both(_KERNEL, [[kernel[r, c] for c in range(3)] for r in range(3)])
    contracted = (((3,), (1 if transposed else 0,)), ((), ()))

    def some(x: Array) -> Array:
        tiles = _tiles(x, padding)
        products = [[jax.lax.dot_general(tiles[i][j], weights[i][j], contracted) for j in range(4)] for i in range(4)]
        y = jnp.stack([jnp.stack(row, axis=3) for row in _both(_OUTPUT, products)], axis=2)
        return y.reshape(len(x), 2 * y.shape[1], 2 * y.shape[3], -1)

    y = jax.lax.map(some, _rounds(x, padding))
    return y.reshape(len(x), *y.shape[2:])


def to_kernel(
    x: Float[Array, "batch height wide channels"], g: Float[Array, "batch new_height new_wide out"], padding: Pads
) -> Float[Array, "3 3 channels out"]:
    """The gradient of ⟨g, output(x, kernel, padding)⟩ to the kernel.

    Rows that nobody reads are put below g, as a way to have each round's part written down: otherwise XLA:CPU fuses the
    choice of the round into every reader, which then runs without vector instructions.

    Example:
      >>> x, g = jnp.ones((1, 4, 4, 1)), jnp.ones((1, 2, 2, 1))
      >>> to_kernel(x, g, ((0, 0), (0, 0)))[:, :, 0, 0].tolist()
      [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """
    back = tuple(zip(*_OUTPUT, strict=True))

    def add(sums: Blocks, some: tuple[Array, Array]) -> tuple[Blocks, None]:
        x, g = some
        tiles = _tiles(x, padding)
        g = jnp.pad(g, ((0, 0), (0, 2), (0, 0), (0, 0)))
        outputs = _both(back, [[g[:, p:-2:2, q::2] for q in range(2)] for p in range(2)])
        return [[sums[i][j] + _rows(tiles[i][j]).T @ _rows(outputs[i][j]) for j in range(4)] for i in range(4)], None

    zero = jnp.zeros((x.shape[-1], g.shape[-1]), g.dtype)
    rounds = _rounds(x, padding)
    sums, _ = jax.lax.scan(add, [[zero] * 4] * 4, (rounds, g.reshape(*rounds.shape[:2], *g.shape[1:])))
    return jnp.stack([jnp.stack(row) for row in _both(tuple(zip(*_KERNEL, strict=True)), sums)])


def _both(matrix: Matrix, blocks: Sequence[Sequence[Array]]) -> Blocks:
    """The matrix times the blocks times the matrix transposed."""
    columns = [_combined(matrix, column) for column in zip(*blocks, strict=True)]
    return [_combined(matrix, row) for row in zip(*columns, strict=True)]


def _combined(matrix: Matrix, parts: Sequence[Array]) -> list[Array]:
    """The matrix times a vector of arrays; zeros are left out."""
    rows = [[(weight, part) for weight, part in zip(row, parts, strict=True) if weight] for row in matrix]
    return [sum((part * weight for weight, part in rest), start=first * weight) for (weight, first), *rest in rows]


def _tiles(x: Array, padding: Pads) -> Blocks:
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    last_row, last_column = x.shape[1] - 3, x.shape[2] - 3
    return _both(_INPUT, [[x[:, i : i + last_row : 2, j : j + last_column : 2] for j in range(4)] for i in range(4)])


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _rounds(x: Array, padding: Pads) -> Array:
    """The examples, some at a time: (rounds, examples, …)."""
    some = _examples_at_once(len(x), x.shape[1:3], padding)
    return x.reshape(-1, some, *x.shape[1:])


def _examples_at_once(num_examples: int, shape: Sequence[int], padding: Pads) -> int:
    """The largest divisor of their number that stays below the limit of positions."""
    positions = (shape[0] + sum(padding[0]) - 2) * (shape[1] + sum(padding[1]) - 2)
    most = max(1, _POSITIONS // positions)
    return max(some for some in range(1, most + 1) if num_examples % some == 0)
