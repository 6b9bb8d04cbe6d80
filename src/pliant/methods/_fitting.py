"""Whether what a user's training loop hands over is what the method was attached to."""

from typing import Any

import jax
import jax.numpy as jnp

from pliant.errors import UserError
from pliant.types import Key, by_path


def require_tree(name: str, tree: Any, like: Any, *, is_batch: bool = False) -> None:
    """Raises unless a tree has the structure and the shapes of another.

    Args:
      name: of the argument, for the message.
      tree: what was given.
      like: what was attached, arrays or their shapes.
      is_batch: whether the first axis, of examples, may have another length.

    Example:
      >>> require_tree("params", {"w": jnp.ones(2)}, {"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    """
    do = f"Pass the {name} of the network that the method was attached to."
    structure: Any = jax.tree.structure(tree)
    if structure != jax.tree.structure(like):
        given, known = set(by_path(tree)), set(by_path(like))
        odd = sorted(given ^ known)
        named = f", in which {odd[0]!r} is {'new' if odd[0] in given else 'missing'}" if odd else ""
        raise UserError(
            got=f"{name} with another structure{named}", wanted=f"{name} as they were attached: {_named(known)}", do=do
        )
    for path, leaf in by_path(tree).items():
        shape, wanted = jnp.shape(leaf), jnp.shape(by_path(like)[path])
        if shape[is_batch:] != wanted[is_batch:] or len(shape) != len(wanted):
            where = f"{name}[{path!r}]" if path else name
            shown = f"(batch, {', '.join(map(str, wanted[1:]))})" if is_batch else str(wanted)
            raise UserError(got=f"{where} of shape {shape}", wanted=f"shape {shown}", do=do)


def require_arrays(name: str, tree: Any) -> None:
    """Raises unless all leaves are arrays or numbers, as what a method trains must be.

    Args:
      name: of the argument, for the message.
      tree: what was given.

    Example:
      >>> require_arrays("params", {"w": jnp.ones(2)})
    """
    for path, leaf in by_path(tree).items():
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise UserError(
                got=f"{name} in which {path!r} is a {type(leaf).__name__}",
                wanted="a pytree of arrays",
                do="Keep the rest apart: params, rest = equinox.partition(model, equinox.is_array), for example, and "
                "combine them in apply.",
            )


def require_state(state: Any, kind: type) -> None:
    """Raises unless it is the state of an attached method.

    Example:
      >>> require_state((1, 2), tuple)
    """
    if not isinstance(state, kind):
        raise UserError(
            got=f"a state that is {type(state).__name__}",
            wanted="what plastic.init or the last update returned",
            do="Mind the order: update(grads, state, params, x), switch(state, params), reported(params, state).",
        )


def require_key(key: Any) -> Key:
    """Returns a random key as a typed one of the default kind.

    Example:
      >>> require_key(jax.random.PRNGKey(0)) == jax.random.key(0)
      Array(True, dtype=bool)
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
        is_default = jax.random.key_impl(key) == jax.random.key_impl(jax.random.key(0))
        return key if is_default else jax.random.key(jax.random.bits(key))
    if dtype == jnp.uint32 and jnp.ndim(key) == 1:
        return jax.random.wrap_key_data(key)
    raise UserError(
        got=f"the key {key!r}",
        wanted="one random key",
        do="Write plastic.init(params, jax.random.key(seed)); for several seeds, vmap it over keys.",
    )


def _named(paths: set[str]) -> str:
    shown = sorted(paths)[:4]
    return ", ".join(shown) + (f" and {len(paths) - len(shown)} more" if len(paths) > len(shown) else "")
