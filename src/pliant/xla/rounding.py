"""Rounding points: numbers that do not depend on what XLA fuses a stage of the step with.

A method of strength 0 must leave every bit of the plain optimizer's run as it is. XLA:CPU, however, contracts a product
and a sum in one fused loop to a fused multiply-add, which rounds once instead of twice; whether the two meet in one
loop changes when a method adds a term between them, even one that is exactly 0. `jax.lax.optimization_barrier` does
not help: XLA:CPU removes it before it fuses. So the bits of the numbers are combined by "or" with an integer that is
always 0, which XLA cannot know: every operation before that point has to be rounded there. ("Exclusive or" would cancel
where two such points meet.) It costs one pass of integer operations that is fused with its neighbours.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree


def rounded(tree: PyTree, step: Int[Array, ""]) -> PyTree:
    """The same numbers, rounded to their type here; `step` is any traced integer that is never negative.

    Example:
      >>> rounded({"w": jnp.array([0.5, -1.0])}, jnp.int32(3))["w"].tolist()
      [0.5, -1.0]
    """
    zero = jnp.minimum(step, 0)

    def leaf(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        integer = jnp.dtype(f"int{8 * x.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(x, integer)
        return jax.lax.bitcast_convert_type(bits | zero.astype(integer), x.dtype)

    return jax.tree.map(leaf, tree)


@jax.custom_vjp
def with_rounded_gradient(tree: PyTree, step: Int[Array, ""]) -> PyTree:
    """The same numbers; what flows back through them is `rounded` before it is added to other gradients.

    Example:
      >>> jax.grad(lambda x: with_rounded_gradient(x, jnp.int32(1)) ** 2)(3.0).item()
      6.0
    """
    del step
    return tree


def _forward(tree: PyTree, step: Any) -> tuple[PyTree, Any]:
    return tree, step


def _backward(step: Any, gradients: PyTree) -> tuple[PyTree, None]:
    return rounded(gradients, step), None


with_rounded_gradient.defvjp(_forward, _backward)
