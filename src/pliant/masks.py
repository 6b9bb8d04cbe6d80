"""Masks over parameters: which leaves a method touches."""

from collections.abc import Callable
from typing import TypeAlias

import jax
from jaxtyping import PyTree

from pliant.errors import UserError
from pliant.types import Params

Mask: TypeAlias = PyTree[bool] | Callable[[Params], PyTree[bool]] | None
"""True at the leaves to touch: a pytree of booleans, a function of the parameters that makes one, or None."""


def select(mask: Mask, params: Params, *, min_axes: int = 0) -> PyTree[bool]:
    """Resolves a mask to a pytree of booleans.

    Args:
      mask: as `Mask`; None selects all leaves with at least `min_axes` axes.
      params: the parameters.
      min_axes: 2 for methods that work on kernels only.

    Raises:
      UserError: if nothing is selected, since a method that does nothing reads like one that has nothing to do.

    Example:
      >>> select(None, {"bias": jax.numpy.zeros(3), "kernel": jax.numpy.zeros((2, 3))}, min_axes=2)
      {'bias': False, 'kernel': True}
    """
    if mask is None:
        chosen = jax.tree.map(lambda leaf: leaf.ndim >= min_axes, params)
    else:
        # Modules of some libraries are pytrees that can be called: a function is what has nothing but itself inside.
        is_function = all(callable(leaf) for leaf in jax.tree.leaves(mask))
        chosen = mask(params) if is_function else mask
    if not any(jax.tree.leaves(chosen)):
        raise UserError(
            got=f"a mask that selects none of {len(jax.tree.leaves(params))} parameter leaves",
            wanted="at least one leaf to act on",
            do="Check the mask: True at the leaves that the method is to touch.",
        )
    return chosen
