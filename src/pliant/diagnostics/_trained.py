"""Which leaves of a user's parameters are measured: one rule for all diagnostics."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pliant.errors import UserError
from pliant.types import Params, leaf_path


class Trained(NamedTuple):
    """The parameters among the leaves of a tree: floating-point arrays, except frozen ones.

    Example:
      >>> params = {"step": 3, "w": np.ones(2, np.float16), "relu": jax.nn.relu, "key": jax.random.key(0)}
      >>> trained = find_trained(params)
      >>> jax.tree.map(lambda leaf: leaf.dtype.name, trained.part(trained.params)), trained.others
      ({'key': None, 'relu': None, 'step': None, 'w': 'float32'}, ('key',))
      >>> trained.whole({"w": jnp.zeros(2)})["w"].dtype.name
      'float16'
    """

    params: Params
    """All leaves, as they were given."""
    paths: tuple[str, ...]
    """Those of parameters."""
    others: tuple[str, ...]
    """Arrays that are none, by path: integers, keys, running statistics."""

    def part(self, params: Params, name: str = "params") -> Params:
        """The parameters of a tree with the same leaves, in float32 or wider; None in the place of all others.

        Args:
          params: of this moment or another one.
          name: what they are called in the message.

        Raises:
          UserError: for other leaves than those of `params`, or other shapes.
        """
        shapes = [{leaf_path(path): np.shape(leaf) for path, leaf in _arrays(each)} for each in (self.params, params)]
        if shapes[0] != shapes[1]:
            raise UserError(
                got=f"{name}= of another structure or other shapes than params",
                wanted="parameters of the same network",
                do="Give what `apply` was called with at that moment.",
            )
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: _widened(leaf) if leaf_path(path) in self.paths else None, params
        )

    def whole(self, part: Params) -> Params:
        """The tree that `apply` takes: parameters of the types that they had, and all other leaves."""
        own = iter(jax.tree.leaves(part))
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: next(own).astype(jnp.asarray(leaf).dtype) if leaf_path(path) in self.paths else leaf,
            self.params,
        )

    def without(self, frozen: Collection[str]) -> "Trained":
        """The same without frozen ones."""
        return self._replace(paths=tuple(path for path in self.paths if path not in frozen))


def find_trained(params: Params) -> Trained:
    """Treats all floating-point arrays as parameters, except the state that Flax keeps beside them.

    Example:
      >>> find_trained({"table": jnp.arange(3), "w": jnp.ones(2)}).paths
      ('w',)
    """
    arrays, states = [(leaf_path(path), leaf) for path, leaf in _arrays(params)], _states(params)
    paths = tuple(
        path
        for path, leaf in arrays
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not any(f"{path}/".startswith(f"{each}/") for each in states)
    )
    return Trained(params, paths, tuple(path for path, _ in arrays if path not in paths))


def _states(params: Params) -> list[str]:
    """Where Flax keeps what no gradient moves: Linen's collection of statistics, variables of NNX that are no Param."""
    if isinstance(params, Mapping) and "params" in params:
        return [name for name in ("batch_stats",) if name in params]
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda node: "Variable" in _flax_types(node))
    types = {leaf_path(path): _flax_types(node) for path, node in nodes}
    has_param = any("Param" in each for each in types.values())
    return [path for path, each in types.items() if has_param and "Variable" in each and "Param" not in each]


def _flax_types(node: Any) -> set[str]:
    return {kind.__name__ for kind in type(node).__mro__ if kind.__module__.startswith("flax.")}


def _arrays(params: Params) -> list[tuple[Any, Any]]:
    """Python's numbers, functions and texts are settings."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(path, leaf) for path, leaf in leaves if hasattr(leaf, "dtype") and hasattr(leaf, "shape")]


def _widened(leaf: Any) -> Array:
    array = jnp.asarray(leaf)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
