"""Projections of parameters: moving them towards a goal."""

import jax.numpy as jnp
from jaxtyping import Array

from pliant.types import Number


def toward(leaf: Array, goal: Array, strength: Number) -> Array:
    """Moves a parameter towards its goal by a share, 0 ≤ `strength` ≤ 1; keeps its type.

    With 1 it is the goal, with 0 it is the parameter, both to the bit and whatever the other is.

    Example:
      >>> toward(jnp.array([1.0, 2.0]), jnp.array([3.0, 2.0]), 0.25).tolist()
      [1.5, 2.0]
    """
    moved = jnp.where(strength < 1, (1 - strength) * leaf + strength * goal, goal).astype(leaf.dtype)
    return jnp.where(strength > 0, moved, leaf)


def wide(leaf: Array) -> Array:
    """Returns the same numbers in float32, or in their own type if that is wider.

    Example:
      >>> wide(jnp.ones(2, jnp.bfloat16)).dtype.name
      'float32'
    """
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
