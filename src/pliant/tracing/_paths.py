"""Paths through a network from one feature to another, whose derivatives are Jacobians."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError, unknown_name
from pliant.tracing._graph import Graph, graph_of
from pliant.tracing._perturbation import perturbable
from pliant.types import Features

Function: TypeAlias = Callable[[Array], tuple[Array, Features]]
"""`function(inputs) -> (output, features)`."""


def segment(
    function: Function, inputs: Array, start: str | None, end: str | None
) -> tuple[Callable[[Array], Array], Array]:
    """The part of a network between two features as a function of one array, and the value of that array.

    Args:
      function: the network.
      inputs: (examples, …), at least one.
      start: a feature; None is the inputs.
      end: a feature; None is the output.

    Raises:
      UserError: for an empty batch or an unknown feature; for a `start` that nothing reads, or that is read within a
        loop or a function with derivatives of its own; when called, for one that is no value of its own.
    """
    _require_examples(inputs)
    _, shapes = jax.eval_shape(function, inputs)
    _require_known((start, end), shapes)
    if start is not None:
        _require_read(*_features(function, inputs), start)

    def path(at: Array) -> Array:
        output, found = function(at) if start is None else perturbable(function)(inputs, {start: at})
        return output if end is None else found[end]

    if start is None:
        return path, inputs
    return path, jnp.zeros(shapes[start].shape, shapes[start].dtype)


def jacobian_shape(
    function: Function, inputs: Float[Array, "examples ..."], start: str | None, end: str | None
) -> tuple[int, int]:
    """Rows and columns of one example's Jacobian; nothing is computed."""
    _require_examples(inputs)
    output, found = jax.eval_shape(function, inputs)
    _require_known((start, end), found)
    rows = output.size if end is None else found[end].size
    columns = inputs.size if start is None else found[start].size
    return rows // len(inputs), columns // len(inputs)


def layer_starts(
    function: Function, inputs: Float[Array, "examples ..."], layers: Sequence[str]
) -> dict[str, str | None]:
    """The layer that comes before each: the nearest earlier one that it depends on; None is the inputs.

    In a chain that is the one before it in the list; layers that are parallel, such as the experts of a mixture, have
    the same one before them. Found in the traced program, whatever the numbers are. An earlier layer that nothing reads
    comes before all later ones, since how they depend on it cannot be seen; `segment` refuses to begin there.

    Args:
      function: the network.
      inputs: (examples, …), at least one.
      layers: names of features from input to output, at least one.

    Raises:
      UserError: for no layers, an empty batch, or an unknown feature.

    Example:
      >>> def function(x):
      ...     stem = x + 1
      ...     left, right = stem * 2, stem * 3
      ...     return left + right, {"stem": stem, "left": left, "right": right}
      >>> layer_starts(function, jnp.ones((1, 1)), ("stem", "left", "right"))
      {'stem': None, 'left': 'stem', 'right': 'stem'}
    """
    _require_examples(inputs)
    _, shapes = jax.eval_shape(function, inputs)
    _require_known(layers, shapes)
    if not layers:
        raise UserError(got="no layers", wanted="at least one", do="Name features that the function returns.")
    graph, values = _features(function, inputs)
    starts: dict[str, str | None] = {}
    for layer in layers:
        above = graph.above([values[layer]]) - {values[layer]}
        before = (each for each in reversed(starts) if values[each] in above or not _is_read(graph, values[each]))
        starts[layer] = next(before, None)
    return starts


def _features(function: Function, inputs: Array) -> tuple[Graph, dict[str, int]]:
    """The program, and the values in it that the features are, or are copies of."""
    names: list[str] = []

    def listed(inputs: Array) -> tuple[Array, list[Array]]:
        output, found = function(inputs)
        names[:] = found
        return output, list(found.values())

    graph = graph_of(listed, inputs)
    return graph, {name: graph.original(value) for name, value in zip(names, graph.outputs[1:], strict=True)}


def _is_read(graph: Graph, value: int) -> bool:
    return graph.is_read(value) or value == graph.original(graph.outputs[0])


def _require_read(graph: Graph, values: Mapping[str, int], start: str) -> None:
    value = values[start]
    if value in graph.producer and not _is_read(graph, value):
        raise UserError(
            got=f"the feature {start!r}, which nothing reads",
            wanted="a value that the network goes on with",
            do="Return the array that the next layer reads, not one that is computed beside it.",
        )
    if value in graph.producer and not graph.can_be_perturbed(value):
        raise UserError(
            got=f"the feature {start!r}, which is read within a loop, a branch or a function with its own derivative",
            wanted="one that is read outside, where it can be perturbed",
            do="Unroll the loop, or leave out derivatives with respect to this feature.",
        )


def _require_known(names: Sequence[str | None], found: Iterable[str]) -> None:
    for name in names:
        if name is not None and name not in found:
            raise unknown_name("feature", name, found, do="Name a feature that the function returns.")


def _require_examples(inputs: Array) -> None:
    if len(inputs) == 0:
        raise UserError(got="an empty batch", wanted="at least one example", do="Pass examples to measure on.")
