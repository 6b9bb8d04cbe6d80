"""Broadcasts whose gradients are fast on CPU.

XLA:CPU sums the rows of a long matrix by windows. Adding one half to the other until few rows are left takes a tenth of
the time and is more exact. Such sums are a batch's statistics, and the gradients of biases and scales. `spread` and
`total` are primitives, each the other's gradient, from which JAX derives forward mode and all orders. Elsewhere than on
the CPU they are lowered to the stock operations. They require `check_vma=False` under `shard_map`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from pliant.xla.lowering import lower_by_platform

Scalar = Float[Array, ""]
_FEW_ROWS = 512
"""Up to here XLA's own sum is as fast."""
_LAST_ROWS = 16
"""Those are left to a product with ones."""


def spread(row: Float[Array, " columns"], like: Float[Array, "*rows columns"]) -> Float[Array, "*rows columns"]:
    """Broadcasts a row to the shape of `like`; its gradient is the `total`.

    Example:
      >>> spread(jnp.array([1.0, 2.0]), jnp.ones((1, 2, 2))).tolist()
      [[[1.0, 2.0], [1.0, 2.0]]]
    """
    if _are_few(like):
        return jnp.broadcast_to(row, like.shape)
    return _spread_p.bind(row, num_rows=num_rows(like)).reshape(like.shape)


def spread_number(number: Scalar, like: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Broadcasts a number to the shape of `like`; its gradient is the sum over all axes.

    XLA:CPU adds up a whole array one number after the other, however few rows there are.

    Example:
      >>> spread_number(jnp.float32(2.0), jnp.ones((1, 2))).tolist()
      [[2.0, 2.0]]
    """
    if like.ndim < 2:
        return jnp.broadcast_to(number, like.shape)
    row = jnp.broadcast_to(number, like.shape[-1:])
    return _spread_p.bind(row, num_rows=num_rows(like)).reshape(like.shape)


def total(x: Float[Array, "*rows columns"]) -> Float[Array, " columns"]:
    """Sums over all axes but the last.

    Example:
      >>> total(jnp.arange(12.0).reshape(2, 3, 2)).tolist()
      [30.0, 36.0]
    """
    if _are_few(x):
        return x.sum(range(x.ndim - 1))
    return _total_p.bind(x.reshape(num_rows(x), x.shape[-1]))


def num_rows(x: Float[Array, "*rows columns"]) -> int:
    """The number of rows: the product of all axes but the last.

    Example:
      >>> num_rows(jnp.ones((2, 3, 4)))
      6
    """
    return math.prod(x.shape[:-1])


def _are_few(x: Array) -> bool:
    return num_rows(x) <= _FEW_ROWS


def _spread(row: Array, *, num_rows: int) -> Array:
    return jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], num_rows, row.shape[-1]))


def _total(x: Array) -> Array:
    return x.sum(-2)


def _total_by_halves(x: Array) -> Array:
    """Halves of an odd number of rows leave one out, which joins the last rows.

    Those are summed by a product with ones: XLA would add them up again for every number that reads the sum.
    """
    dtype = x.dtype
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    left_out = []
    while (rows := x.shape[-2]) > _LAST_ROWS:
        half = rows // 2
        left_out.append(x[..., 2 * half :, :])
        x = x[..., :half, :] + x[..., half : 2 * half, :]
    x = jnp.concatenate([x, *left_out], axis=-2)
    return jnp.einsum("...rc,r->...c", x, jnp.ones(x.shape[-2], x.dtype), precision="highest").astype(dtype)


_spread_p = Primitive("pliant_spread")
"""(*batch, columns) → (*batch, rows, columns)."""
_total_p = Primitive("pliant_total")
"""(*batch, rows, columns) → (*batch, columns)."""


def _define(
    primitive: Primitive,
    cpu: Callable[..., Array],
    elsewhere: Callable[..., Array],
    transpose: Callable[..., Array],
    *parameters: str,
) -> None:
    """Makes a linear primitive of one argument; the axes that `vmap` adds come first."""

    def abstract(x: Any, **parameters: Any) -> Any:
        result: Any = jax.eval_shape(functools.partial(elsewhere, **parameters), x)
        return jax.core.ShapedArray(result.shape, result.dtype)

    def batch(arguments: Any, axes: Any, **parameters: Any) -> tuple[Array, int]:
        return primitive.bind(jnp.moveaxis(arguments[0], axes[0], 0), **parameters), 0

    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batch
    lower_by_platform(primitive, cpu=cpu, elsewhere=elsewhere, parameters=parameters)
    ad.deflinear2(primitive, lambda g, x, **_: [transpose(g, x.aval)])


_define(_spread_p, _spread, _spread, lambda g, _: _total_p.bind(g), "num_rows")
_define(_total_p, _total_by_halves, _total, lambda g, x: _spread_p.bind(g, num_rows=x.shape[-2]))
