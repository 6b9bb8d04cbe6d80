"""Keeps values that are not finite out of running statistics, where one bad batch would stay."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def keep_finite(new: PyTree, old: PyTree) -> PyTree:
    """The new numbers where they are finite, the old ones elsewhere: the update of a running statistic.

    Args:
      new: arrays; integers are always finite.
      old: of the same structure and shapes.

    Returns:
      The arrays, in the types of `new`.

    Example:
      >>> keep_finite(jnp.array([0.5, jnp.nan, jnp.inf]), jnp.array([1.0, 2.0, 3.0])).tolist()
      [0.5, 2.0, 3.0]

    References:
      None: the definition.

    Differs from:
      `optax.apply_if_finite`, which keeps or leaves out an update of all parameters together.
    """
    return jax.tree.map(lambda now, before: jnp.where(jnp.isfinite(now), now, before.astype(now.dtype)), new, old)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all numbers in all leaves are finite; True for no leaves.

    Example:
      >>> bool(all_finite({"w": jnp.array([1.0, jnp.nan])}))
      False

    References:
      None: the definition.

    Differs from:
      `jnp.isfinite(optax.tree.norm(tree))`, which overflows for large numbers.
    """
    flags = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(flags).all() if flags else jnp.array(True)
