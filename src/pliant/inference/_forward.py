"""A network that returns the features of its hidden layers, although its author did not write that."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.inference._network import Network
from pliant.inference._program import Place, Program


class Captured(NamedTuple):
    """Where features are in a network's program."""

    names: tuple[str, ...]
    """Of the operations that are no copies."""
    places: Mapping[str, Place]
    """By feature."""


def forward_of(network: Network, captured: Captured) -> Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]:
    """`forward(params, x) -> (output, features)`: those that the network returns, and the captured ones.

    Args:
      network: the user's.
      captured: the features among its intermediate values.
    """

    def forward(params: PyTree, x: Any) -> tuple[PyTree, dict[str, Array]]:
        leaves = network.leaves(params)
        program = Program(network.listed(params), leaves, x)
        names = tuple(each.primitive.name for each in program.significant)
        if names != captured.names:
            raise UserError(
                got=f"a network of {len(names)} operations for these inputs; {len(captured.names)} were traced",
                wanted="the same operations for every batch",
                do="Infer the wiring with inputs of this shape.",
            )
        variables = [program.variable(place) for place in captured.places.values()]
        found = program.evaluate([*program.closed.jaxpr.outvars, *variables], [*leaves, *jax.tree.leaves(x)])
        number = len(program.closed.jaxpr.outvars)
        parts = jax.tree.unflatten(jax.tree.structure(program.returned), found[:number])
        return parts.output, parts.features | dict(zip(captured.places, found[number:], strict=True))

    return forward
