"""Finds the output and the features of the layers in what a user's own network returns."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError
from pliant.types import leaf_path

_OUTPUT = ("output", "logits")
_FEATURES = "features"


class Returned(NamedTuple):
    """What `returned` makes of it."""

    output: Array
    features: dict[str, Array]
    """By their place in what was returned, joined by slashes, in that order: no dictionary is sorted."""
    others: tuple[str, ...]
    """Names of what stands beside the output and is no feature."""


def returned(result: Any) -> Returned:
    """Separates the output, the features and everything else in what `apply` returned.

    Args:
      result: an array; something with a field or key "output" or "logits", and perhaps "features"; a dictionary of one
        array; or a pair of one of these and the features, which are arrays in dictionaries, lists, tuples or
        dataclasses.

    Raises:
      UserError: if it is not clear which array is the output.

    Example:
      >>> found = returned(({"logits": jnp.ones(2)}, {"z": jnp.ones(3), "a": [jnp.ones(4)]}))
      >>> list(found.features), found.output.shape
      (['z', 'a/0'], (2,))
    """
    if type(result) in (tuple, list) and len(result) == 2 and not _is_array(result[1]):
        first = returned(result[0])
        return first._replace(features=first.features | _named(result[1]))
    if type(result) in (tuple, list) and len(result) == 1:
        return returned(result[0])
    if _is_array(result):
        return Returned(jnp.asarray(result), {}, ())
    fields = {name: value for name, value in _fields(result).items() if value is not None}
    own = next((name for name in _OUTPUT if _is_array(fields.get(name))), None)
    arrays = [name for name, value in fields.items() if _is_array(value)]
    if own is None and len(arrays) == len(fields) == 1:
        own = arrays[0]
    if own is None:
        raise UserError(
            got=f"{_kind(result)} from `apply`",
            wanted="one output, or a pair (output, features)",
            do="Wrap `apply` so that it returns the output to measure: lambda params, x: apply(params, x)[0].",
        )
    others = tuple(name for name in fields if name not in (own, _FEATURES))
    return Returned(jnp.asarray(fields[own]), _named(fields.get(_FEATURES)), others)


def _named(features: Any, path: str = "") -> dict[str, Array]:
    if features is None:
        return {}
    if _is_array(features):
        return {path: jnp.asarray(features)}
    inner = _fields(features)
    if not inner and not isinstance(features, Mapping | tuple | list):
        inner = {leaf_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(features) if keys}
    found: dict[str, Array] = {}
    for name, value in inner.items():
        found |= _named(value, f"{path}/{name}" if path else str(name))
    return found


def _fields(value: Any) -> dict[Any, Any]:
    """What is inside by name, or number; empty for what has no parts that can be seen."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return {name: getattr(value, name) for name in (*_OUTPUT, _FEATURES) if hasattr(value, name)}


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not dataclasses.is_dataclass(type(value))


def _kind(value: Any) -> str:
    names = ", ".join(map(str, _fields(value)))
    return f"{type(value).__name__} ({names})" if names else type(value).__name__
