"""Ways through a network from one feature to another: what Jacobians are derivatives of."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Float

from pliant.diagnostics._taps import tapped
from pliant.errors import UserError, unknown_name
from pliant.types import Features

Function: TypeAlias = Callable[[Array], tuple[Array, Features]]
"""`function(inputs) -> (output, features)`."""


def segment(
    function: Function, inputs: Array, start: str | None, end: str | None
) -> tuple[Callable[[Array], Array], Array]:
    """What lies between two features as a function of one array, and the array at which it is the network's.

    Args:
      function: the network.
      inputs: (examples, …), at least one.
      start: a feature; None is the inputs.
      end: a feature; None is the output.

    Raises:
      UserError: for an empty batch or an unknown feature; when called, for a `start` that is no value of its own.
    """
    _require_examples(inputs)
    _, shapes = jax.eval_shape(function, inputs)
    _require_known((start, end), shapes)

    def path(at: Array) -> Array:
        output, found = function(at) if start is None else tapped(function)(inputs, {start: at})
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
    the same one before them. Found in the traced program, whatever the numbers are.

    Args:
      function: the network.
      inputs: (examples, …), at least one.
      layers: names of features from input to output, at least one.

    Raises:
      UserError: for no layers, an empty batch, an unknown feature, or one that is no value of its own.

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
    zeros = [jnp.zeros(shapes[name].shape, shapes[name].dtype) for name in layers]

    def perturbed(changes: list[Array]) -> list[Array]:
        _, found = tapped(function)(inputs, dict(zip(layers, changes, strict=True)))
        return [found[name] for name in layers]

    jaxpr = jax.make_jaxpr(perturbed)(zeros).jaxpr
    read: dict[Var, set[str]] = {variable: {name} for variable, name in zip(jaxpr.invars, layers, strict=True)}
    for equation in jaxpr.eqns:
        above = [read.get(atom, set()) for atom in equation.invars if isinstance(atom, Var)]
        read |= dict.fromkeys(equation.outvars, set().union(*above))
    starts: dict[str, str | None] = {}
    for layer, variable in zip(layers, jaxpr.outvars, strict=True):
        assert isinstance(variable, Var)  # it was perturbed, so it is no constant
        starts[layer] = next((earlier for earlier in reversed(starts) if earlier in read[variable]), None)
    return starts


def _require_known(names: Sequence[str | None], found: Iterable[str]) -> None:
    for name in names:
        if name is not None and name not in found:
            raise unknown_name("feature", name, found, do="Name a feature that the function returns.")


def _require_examples(inputs: Array) -> None:
    if len(inputs) == 0:
        raise UserError(got="an empty batch", wanted="at least one example", do="Pass examples to measure on.")
