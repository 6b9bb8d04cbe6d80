"""Multiplication by a strength that is exactly 0 for strength 0, whatever the weights are: 0 · ∞ would be NaN."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.types import Number, Scalar


def heard(strength: Number, tree: PyTree) -> PyTree:
    """Returns the same arrays; their gradient is exactly 0 if the strength is 0.

    Example:
      >>> gradient = jax.grad(lambda x: 0.0 * 1 / heard(0.0, x))
      >>> float(gradient(0.0))
      0.0
    """
    is_on = jnp.asarray(strength) > 0
    return jax.tree.map(lambda leaf: _heard(leaf, is_on) if _is_inexact(leaf) else leaf, tree)


def scaled(strength: Number, value: Scalar | float) -> Scalar:
    """Returns the strength times a value, exactly 0 if the strength is 0.

    Example:
      >>> [float(scaled(strength, jnp.inf)) for strength in (0.0, 1.0)]
      [0.0, inf]
    """
    return jnp.where(jnp.asarray(strength) > 0, strength * value, 0.0)


@jax.custom_jvp
def _heard(leaf: Any, is_on: Array) -> Any:
    del is_on
    return leaf


@_heard.defjvp
def _along(primals: tuple[Any, Array], tangents: tuple[Any, Any]) -> tuple[Any, Array]:
    leaf, is_on = primals
    return leaf, jnp.where(is_on, tangents[0], jnp.zeros_like(tangents[0]))


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))
