"""Finds the parameters that are not trained, since a program reads them behind `stop_gradient`."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from pliant.tracing._graph import graph_of
from pliant.types import Params, by_path


def find_frozen(function: Callable[[Params, PyTree], Any], params: Params, inputs: PyTree) -> set[str]:
    """The leaves that reach the output only through `stop_gradient`; none if no others reach it.

    Example:
      >>> def function(params, x):
      ...     return x @ jax.lax.stop_gradient(params["a"]) @ params["b"]
      >>> find_frozen(function, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}, jnp.ones((4, 2)))
      {'a'}
    """
    graph = graph_of(function, params, inputs)
    used, trained = graph.above(graph.outputs), graph.above(graph.outputs, without=("stop_gradient",))
    leaves = dict(zip(graph.inputs, by_path(params), strict=False))
    if not any(leaf in trained for leaf in leaves):
        return set()
    return {path for leaf, path in leaves.items() if leaf in used and leaf not in trained}
