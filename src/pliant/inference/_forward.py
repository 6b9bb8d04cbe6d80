"""A network that returns the features of its hidden layers, although its author did not write that."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.inference._network import Network
from pliant.inference._program import run_with_results
from pliant.types import Slot


class Seen(NamedTuple):
    """Where a layer's units are in a program. A layer that is used again is seen several times."""

    value: Any
    """A value of the graph; for `Captured` the number of a result, or the name of what the network returns."""
    place: Slot
    """Where in it the units are."""


class Captured(NamedTuple):
    """Where features are in a network's program."""

    names: tuple[str, ...]
    """Of the program's results."""
    features: Mapping[str, Sequence[Seen]]
    """By name."""


def as_one(arrays: Sequence[Array], seen: Sequence[Seen]) -> Array:
    """A layer's feature: units along two axes are put on the last, and what is seen several times in rows.

    Args:
      arrays: the values.
      seen: where in each the units are.

    Example:
      >>> seen = [Seen(0, Slot("", -1)), Seen(1, Slot("", 1))]
      >>> as_one([jnp.ones((2, 5, 3)), jnp.ones((2, 3, 7))], seen).shape
      (24, 3)
    """
    if len(arrays) == 1 and seen[0].place.groups == 1:
        return arrays[0]
    last = [each.place.units_last(array) for array, each in zip(arrays, seen, strict=True)]
    return last[0] if len(last) == 1 else jnp.concatenate([array.reshape(-1, array.shape[-1]) for array in last])


def forward_of(network: Network, captured: Captured) -> Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]:
    """`forward(params, x) -> (output, features)`: those that the network returns, and the captured ones.

    Args:
      network: the user's.
      captured: the features among its intermediate values.
    """
    wanted = {each.value for seen in captured.features.values() for each in seen if isinstance(each.value, int)}

    def forward(params: PyTree, x: Any) -> tuple[PyTree, dict[str, Array]]:
        arguments = (network.leaves(params), x)
        found = run_with_results(network.listed(params), arguments, captured.names, wanted)
        if isinstance(found, int):
            raise UserError(
                got=f"a network of {found} operations for these inputs; {len(captured.names)} were traced",
                wanted="the same operations for every batch",
                do="Infer the wiring with inputs of this shape.",
            )
        parts, results = found
        known: dict[Any, Array] = {**parts.features, **results}
        features = {
            name: as_one([known[each.value] for each in seen], seen) for name, seen in captured.features.items()
        }
        return parts.output, parts.features | features

    return forward
