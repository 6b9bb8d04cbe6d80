"""Masks over parameters: which leaves a method touches."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from pliant.errors import UserError
from pliant.types import Params

Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None
"""True at the leaves to touch: a pytree of booleans, a prefix of one, a function of the parameters that makes one, or
None."""
Keys: TypeAlias = tuple[str, ...]
"""What leads to a leaf, from the root on."""


def select(mask: Mask, params: Params, *, min_axes: int = 0) -> PyTree[bool]:
    """Resolves a mask to a pytree of booleans with the structure of the parameters.

    What no method can do anything with is never selected: integers, keys, and leaves without entries.

    Args:
      mask: as `Mask`. Prefixes mean what they mean to `optax.masked`, and containers may be of other types than the
        parameters' (a dict for a FrozenDict or an nnx.State). None, and True in the place of several leaves, select
        those with at least `min_axes` axes.
      params: the parameters.
      min_axes: 2 for methods that work on kernels only. Biases and scales with several axes are not kernels: what is
        called "bias", and what has the shape of the bias beside it.

    Raises:
      UserError: for a mask that does not fit the parameters, has leaves other than True and False, depends on the
        parameters' values, or names a leaf of too few axes; and if nothing is selected, since a method that does
        nothing reads like one that has nothing to do.

    Example:
      >>> params = {"hidden": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}, "head": jnp.ones(3)}
      >>> select({"hidden": True, "head": False}, params, min_axes=2)
      {'head': False, 'hidden': {'bias': False, 'kernel': True}}
    """
    leaves = list(places(params))
    entries: dict[Keys, bool] = {(): True} if mask is None else _entries(mask, params)
    shapes = {keys: np.shape(leaf) for keys, leaf in leaves}
    chosen = [_is_chosen(entries, keys, shapes, min_axes, explicit=mask is not None) for keys, _ in leaves]
    if not any(chosen):
        raise UserError(
            got=f"a mask that selects none of {len(leaves)} parameter leaves",
            wanted="at least one leaf to act on",
            do="Check the mask: True at the leaves that the method is to touch.",
        )
    flags = [flag and _has_numbers(leaf) for flag, (_, leaf) in zip(chosen, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def _is_chosen(
    entries: Mapping[Keys, bool],
    keys: Keys,
    shapes: Mapping[Keys, tuple[int, ...]],
    min_axes: int,
    *,
    explicit: bool,
) -> bool:
    entry = next(part for part in reversed(_parts(keys)) if part in entries)
    if not entries[entry]:
        return False
    if explicit and entry == keys:
        if len(shapes[keys]) < min_axes:
            raise UserError(
                got=f"a parameter of shape {shapes[keys]}",
                wanted="a dense (in, out) or conv (height, width, in, out) kernel",
                do=f"Leave biases and scales out: the mask is True at {'/'.join(keys)!r}.",
            )
        return True
    bias = (*keys[:-1], "bias")
    is_vector = min_axes >= 2 and shapes.get(bias) == shapes[keys]
    return len(shapes[keys]) >= min_axes and not is_vector


def _has_numbers(leaf: Any) -> bool:
    return np.size(leaf) > 0 and jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.inexact)


def _entries(mask: Any, params: Params) -> dict[Keys, bool]:
    """The leaves of a mask by their place, checked against the parameters."""
    entries = dict(places(mask))
    is_tree = entries and all(map(_is_boolean, entries.values())) and _misfit(entries, params) is None
    if callable(mask) and not is_tree and type(mask) is not type(params):  # modules of some libraries can be called
        entries = dict(places(_made(mask, params)))
    for keys, entry in entries.items():
        if not _is_boolean(entry):
            raise UserError(
                got=f"a mask with {entry!r} at {'/'.join(keys)!r}",
                wanted="True or False at every leaf",
                do="Compare shapes or paths, as in jax.tree.map(lambda leaf: leaf.ndim >= 2, params).",
            )
    misfit = _misfit(entries, params)
    if misfit:
        raise UserError(
            got=f"a mask {misfit}",
            wanted="a pytree of booleans with the structure of the parameters, or a prefix of it",
            do="Make it by jax.tree.map over these parameters, or pass a function that does.",
        )
    return {keys: bool(entry) for keys, entry in entries.items()}


def _made(mask: Callable[[Params], Any], params: Params) -> Any:
    """What a function makes of the parameters, or of two others of their shapes where it is compiled."""
    found = mask(params)
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found)):
        return found
    with jax.ensure_compile_time_eval():
        both = [mask(jax.tree.map(lambda leaf: _blank(leaf, value), params)) for value in (0, 1)]  # noqa: B023
        first, second = (dict(places(tree)) for tree in both)
        differing = [keys for keys in first if _is_boolean(first[keys]) and bool(first[keys]) != bool(second[keys])]
    if differing:
        raise UserError(
            got=f"a mask that depends on the numbers at {'/'.join(differing[0])!r}",
            wanted="a function of shapes, types and paths: it is called again whenever a program is compiled",
            do="Call it yourself, and pass the pytree that it makes.",
        )
    return both[0]


def _blank(leaf: Any, value: int) -> Any:
    if jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jax.dtypes.extended):
        return leaf
    return np.broadcast_to(np.asarray(value, getattr(leaf, "dtype", None)), np.shape(leaf))


def _is_boolean(leaf: Any) -> bool:
    is_known = isinstance(leaf, bool | np.bool_ | np.ndarray | jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return is_known and np.shape(leaf) == () and np.asarray(leaf).dtype == bool


def _misfit(entries: Mapping[Keys, Any], params: Params) -> str | None:
    """What keeps the entries from being a prefix of the parameters, in words. None inside of what is empty matters."""
    leaves, empty = [keys for keys, _ in places(params)], set(empty_places(params))
    for keys in leaves:
        if not any(part in entries for part in _parts(keys)):
            return f"without an entry for {'/'.join(keys)!r}"
    nodes = {part for keys in (*leaves, *empty) for part in _parts(keys)}
    for keys in entries:
        if keys not in nodes and not any(part in empty for part in _parts(keys)):
            return f"with an entry for {'/'.join(keys)!r}, which the parameters do not have"
    return None


def _parts(keys: Keys) -> list[Keys]:
    """The node and all that it is inside of, from the root on."""
    return [keys[:length] for length in range(len(keys) + 1)]


def places(tree: Any) -> Iterator[tuple[Keys, Any]]:
    """The leaves with the keys that lead there. Flax' variables are looked through: optimizers see what is in them."""
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_variable):
        for leaf in jax.tree.leaves(node):
            yield keys_of(path), leaf


def empty_places(tree: Any) -> Iterator[Keys]:
    """The places of what has no leaves: None, `optax.MaskedNode`."""
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: not jax.tree.leaves(node)):
        if not jax.tree.leaves(node):
            yield keys_of(path)


def _is_variable(node: Any) -> bool:
    return any(base.__name__ == "Variable" and base.__module__.startswith("flax.") for base in type(node).__mro__)


def keys_of(path: Any) -> Keys:
    """The keys of one of JAX' paths, as text."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
