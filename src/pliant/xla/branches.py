"""Branches that stay branches when seeds are batched."""

import jax
from jaxtyping import Array, Bool


def anywhere(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; inside `vmap` whether it is up for any member of the batch, as one flag for all of them.

    So a `lax.cond` on it stays a branch where a decision depends on the data, while one on the flag itself computes
    both ways. Its body must change nothing for members whose own flag is down.

    Example:
      >>> jax.vmap(anywhere)(jnp.array([False, True])).tolist()
      [True, True]
    """
    raised: Array = _anywhere(flag)
    return raised


@jax.custom_batching.custom_vmap
def _anywhere(flag: Array) -> Array:
    return flag


@_anywhere.def_vmap
def _anywhere_in_batch(axis_size: int, in_batched: object, flag: Array) -> tuple[Array, bool]:
    del axis_size, in_batched
    return _anywhere(flag.any(axis=0)), False
