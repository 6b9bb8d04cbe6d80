"""The sum of all rows of a matrix, and one row in place of all: each the other's gradient.

XLA:CPU sums the rows of a long matrix by windows. Halves added to halves until one row is left take a tenth of the time
and are more exact (`benchmarks/rows.py`). Gradients of biases are such sums where there are many positions, and the
statistics of a batch. Both are primitives, so that each is the other's gradient, whoever differentiates; they are
linear, so JAX derives everything else from that.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_FEW_ROWS = 512
"""Up to here XLA's own sum is as fast."""


def total(x: Float[Array, "*rows columns"]) -> Float[Array, " columns"]:
    """Sums over all axes but the last, in float32 or wider.

    Example:
      >>> total(jnp.arange(12.0).reshape(2, 3, 2)).tolist()
      [30.0, 36.0]
    """
    rows = x.reshape(-1, x.shape[-1])
    return rows.sum(0) if len(rows) <= _FEW_ROWS else _total_p.bind(rows[None])[0]


def spread(row: Float[Array, " columns"], shape: Sequence[int]) -> Float[Array, "*rows columns"]:
    """Broadcasts a row to all axes of `shape` but the last; the gradient is the `total`.

    Example:
      >>> spread(jnp.array([1.0, 2.0]), (1, 2, 2)).tolist()
      [[[1.0, 2.0], [1.0, 2.0]]]
    """
    num_rows = math.prod(shape[:-1])
    if num_rows <= _FEW_ROWS:
        return jnp.broadcast_to(row, shape)
    return _spread_p.bind(row[None], num_rows=num_rows).reshape(shape)


_total_p = Primitive("pliant_total")
"""(batch, rows, columns) → (batch, columns)."""
_spread_p = Primitive("pliant_spread")
"""(batch, columns) → (batch, rows, columns)."""


def _sum(x: Array) -> Array:
    return x.sum(1)


def _by_halves(x: Array) -> Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    odd = []
    while (num_rows := wide.shape[1]) > 1:
        half = num_rows // 2
        if num_rows % 2:
            odd.append(wide[:, -1])
        wide = wide[:, :half] + wide[:, half : 2 * half]
    return sum(odd, start=wide[:, 0]).astype(x.dtype)


def _repeat(row: Array, *, num_rows: int) -> Array:
    return jnp.broadcast_to(row[:, None], (len(row), num_rows, row.shape[1]))


def _batch(primitive: Primitive, arguments: Any, axes: Any, **parameters: Any) -> tuple[Array, int]:
    (x,), (axis,) = arguments, axes
    x = jnp.moveaxis(x, axis, 0)
    result = primitive.bind(x.reshape(-1, *x.shape[2:]), **parameters)
    return result.reshape(*x.shape[:2], *result.shape[1:]), 0


def _define(primitive: Primitive, stock: Any, on_cpu: Any) -> None:
    """Makes a linear primitive that computes `stock`, on the CPU in the way of `on_cpu`."""

    def shape(x: Any, **parameters: Any) -> Any:
        result = jax.eval_shape(lambda x: stock(x, **parameters), x)
        return jax.core.ShapedArray(result.shape, result.dtype)

    primitive.def_impl(lambda x, **parameters: jax.jit(lambda x: primitive.bind(x, **parameters))(x))
    primitive.def_abstract_eval(shape)
    batching.primitive_batchers[primitive] = lambda *given, **parameters: _batch(primitive, *given, **parameters)
    mlir.register_lowering(primitive, mlir.lower_fun(stock, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")


_define(_total_p, _sum, _by_halves)
_define(_spread_p, _repeat, _repeat)
ad.deflinear2(_total_p, lambda g, x: [_spread_p.bind(g, num_rows=x.aval.shape[1])])
ad.deflinear2(_spread_p, lambda g, row, *, num_rows: [_total_p.bind(g)])
