"""A network that returns the features of its hidden layers, although its author did not write that."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.inference._network import Network
from pliant.inference._program import run_with_results
from pliant.types import Slot


class Captured(NamedTuple):
    """Where features are in a network's program."""

    names: tuple[str, ...]
    """Of the program's results."""
    results: Mapping[str, int]
    """By feature."""
    folded: Mapping[str, Slot]
    """Where the units are in features that have them along two axes: these become the last one."""


def forward_of(network: Network, captured: Captured) -> Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]:
    """`forward(params, x) -> (output, features)`: those that the network returns, and the captured ones.

    Args:
      network: the user's.
      captured: the features among its intermediate values.
    """

    def forward(params: PyTree, x: Any) -> tuple[PyTree, dict[str, Array]]:
        arguments = (network.leaves(params), x)
        found = run_with_results(network.listed(params), arguments, captured.names, captured.results.values())
        if isinstance(found, int):
            raise UserError(
                got=f"a network of {found} operations for these inputs; {len(captured.names)} were traced",
                wanted="the same operations for every batch",
                do="Infer the wiring with inputs of this shape.",
            )
        parts, results = found
        features = parts.features | {name: results[number] for name, number in captured.results.items()}
        features |= {name: place.units_last(features[name]) for name, place in captured.folded.items()}
        return parts.output, features

    return forward
