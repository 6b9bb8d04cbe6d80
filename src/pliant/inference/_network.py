"""A user's own network as a function of its floating-point arrays, and what it returns by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.diagnostics import Trained, find_trained, returned
from pliant.errors import UserError
from pliant.types import leaf_path


class Parts(NamedTuple):
    """What a network returned."""

    output: PyTree
    """Without the features."""
    outputs: dict[str, Array]
    """The arrays in it that heads make, by name; "output" if there is one."""
    features: dict[str, Array]


def parts_of(result: Any) -> Parts:
    """Separates outputs and features.

    Example:
      >>> list(parts_of(({"policy": jnp.ones(2), "value": jnp.ones(1)}, {"hidden": jnp.ones(3)})).outputs)
      ['policy', 'value']
    """
    is_pair = type(result) in (tuple, list) and len(result) == 2 and not hasattr(result[1], "shape")
    output = result[0] if is_pair else result
    try:
        found = returned(result)
    except UserError:
        arrays = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(output)}
        if len(arrays) < 2 or not all(hasattr(leaf, "shape") for leaf in arrays.values()):
            raise
        features = returned((next(iter(arrays.values())), result[1])).features if is_pair else {}
        return Parts(output, arrays, features)
    return Parts(output, {"output": found.output}, found.features)


class Network(NamedTuple):
    """A network, and which of its leaves are arrays."""

    apply: Callable[[Any, Any], Any]
    params: PyTree
    paths: tuple[str, ...]
    """Of the floating-point arrays."""
    trained: Trained
    every_path: tuple[str, ...]
    """Of all leaves."""

    def leaves(self, params: PyTree) -> list[Array]:
        """The floating-point arrays of parameters."""
        found = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        missing = [path for path in self.paths if path not in found]
        if missing:
            raise UserError(
                got=f"parameters without {missing[0]!r}",
                wanted="those of the network whose wiring was inferred",
                do="Infer the wiring of this network.",
            )
        return [jnp.asarray(found[path]) for path in self.paths]

    def listed(self, params: PyTree) -> Callable[[list[Array], Any], Parts]:
        """The network as a function of the floating-point arrays; all other leaves are those of `params`."""

        def run(leaves: list[Array], x: Any) -> Parts:
            own = dict(zip(self.paths, leaves, strict=True))
            whole = jax.tree_util.tree_map_with_path(lambda path, leaf: own.get(leaf_path(path), leaf), params)
            return parts_of(self.apply(whole, x))

        return run


def network_of(apply: Callable[[Any, Any], Any], params: PyTree) -> Network:
    """The network that a user has given."""
    trained = find_trained(params)
    leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    paths = tuple(
        path
        for path, leaf in leaves.items()
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.floating)
    )
    return Network(apply, params, paths, trained, tuple(leaves))


def few(x: PyTree, number: int) -> PyTree:
    """The first examples."""
    return jax.tree.map(lambda leaf: leaf[:number], x)
