"""Primitives that are computed in one way on CPUs and in another elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array


def lower_by_platform(
    primitive: Primitive, *, cpu: Callable[..., Array], elsewhere: Callable[..., Array], parameters: Sequence[str] = ()
) -> None:
    """Defines how a primitive is computed; the choice falls when a program is lowered, for the platform it is for.

    `jax.default_backend()` would choose when the program is traced: wrongly for a device other than the default one.
    `jax.lax.platform_dependent` would hide both ways in a branch, where nothing that reads programs finds them.

    Args:
      primitive: with one result.
      cpu: `(*arrays, **parameters) -> array`.
      elsewhere: the same function, for all other platforms.
      parameters: names of the primitive's parameters.
    """
    compiled = jax.jit(primitive.bind, static_argnames=parameters)

    def run(*arrays: Array, **values: Any) -> Array:
        with jax.disable_jit(disable=False):  # without compilation it would call itself
            return compiled(*arrays, **values)

    primitive.def_impl(run)
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")
