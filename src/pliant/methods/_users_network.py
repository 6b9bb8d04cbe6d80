"""Somebody's own functions as a network with a layer graph."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from pliant.errors import UserError, in_one_line
from pliant.inference import infer_wiring
from pliant.types import Features, Key, Network, Params, State, Wiring
from pliant.wiring import renamed

_PARAMS, _STATISTICS = "params", "batch_stats"  # the collections that inference knows


class Layers(NamedTuple):
    """What is known of the layers of a network."""

    forward: Callable[[Params, State, Any], tuple[Any, Features]]
    """`forward(params, statistics, x) -> (output, features by layer name)`."""
    wiring: Wiring
    notes: Mapping[str, str]


def find_layers(apply: Callable[..., Any], params: Params, statistics: State, x: Any, wiring: Wiring | None) -> Layers:
    """Finds the layers of a network: those that it returns and its wiring states, or those of its traced program.

    Args:
      apply: `apply(params, x)`, or `apply(params, statistics, x)`.
      params: the parameters.
      statistics: running statistics; None if the network has none.
      x: inputs.
      wiring: the layer graph, or what is known of it.

    Raises:
      UserError: if `apply` fails, or returns no features of a layer.
    """

    def without_statistics(params: Params, _: State, x: Any) -> Any:
        return apply(params, x)

    call = without_statistics if statistics is None else apply
    try:
        made = jax.eval_shape(call, params, statistics, x)
    except UserError:
        raise
    except Exception as error:
        arguments = "params, x" if statistics is None else "params, statistics, x"
        raise UserError(
            got=f"apply({arguments}), which fails: {in_one_line(error)}",
            wanted="a pure function that JAX can trace",
            do="Call it by hand with the same arguments.",
        ) from error
    has_features = isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping)
    if wiring is None or not has_features:
        return _inferred(apply, params, statistics, x, wiring)
    missing = [layer.name for layer in wiring.layers if layer.name not in made[1]]
    if missing:
        raise UserError(
            got=f"features of {', '.join(made[1]) or 'no layer'}",
            wanted=f"those of the wiring's layers, of which {missing[0]!r} is missing",
            do="Let apply return the post-activation array of every layer of the wiring.",
        )
    return Layers(call, wiring, {})


def _inferred(apply: Callable[..., Any], params: Params, statistics: State, x: Any, wiring: Wiring | None) -> Layers:
    if statistics is None:
        inferred = infer_wiring(apply, params, x, wiring)
        return Layers(lambda params, _, x: inferred.forward(params, x), inferred.wiring, inferred.notes)

    def whole(variables: Any, x: Any) -> Any:
        return apply(variables[_PARAMS], variables[_STATISTICS], x)

    given = None if wiring is None else renamed(wiring, _within(_PARAMS), state=_within(_STATISTICS))
    inferred = infer_wiring(whole, _variables(params, statistics), x, given)
    found = inferred.wiring
    roles = {path: role for path, role in found.roles.items() if _collection(path) == _PARAMS}
    frozen = frozenset(path for path in found.frozen if _collection(path) == _PARAMS)
    own = found._replace(roles=roles, frozen=frozen)
    return Layers(
        lambda params, statistics, x: inferred.forward(_variables(params, statistics), x),
        renamed(own, _outside),
        {_outside(name): note for name, note in inferred.notes.items()},
    )


def _variables(params: Params, statistics: State) -> dict[str, Any]:
    """Parameters and running statistics in one tree that tells them apart."""
    return {_PARAMS: params, _STATISTICS: statistics}


def _within(collection: str) -> Callable[[str], str]:
    return lambda path: f"{collection}/{path}" if path else collection


def _collection(path: str) -> str:
    return path.partition("/")[0]


def _outside(path: str) -> str:
    """The path of a leaf without that of its collection; other names as they are."""
    return path.partition("/")[2] if _collection(path) in (_PARAMS, _STATISTICS) else path


def as_network(
    layers: Layers, method: str, init: Callable[[Key], Any] | None, params: Params, statistics: State
) -> Network:
    """A network whose running statistics its user updates.

    Args:
      layers: its functions and its layer graph.
      method: the name of the method, for messages.
      init: draws new parameters, or `(params, statistics)`; None if nobody knows how.
      params: the parameters, of which the structure is read.
      statistics: running statistics; None if there are none.
    """
    like = params if statistics is None else (params, statistics)

    def drawn(key: Key) -> tuple[Params, State]:
        if init is None:
            raise UserError(
                got=f"the method {method!r}, which draws new networks, without init",
                wanted="a function that draws one",
                do="Give init=, where init(key) returns parameters like those that training began with.",
            )
        made: Any = init(key)
        given: Any = jax.tree.structure(made)
        if given != jax.tree.structure(like):
            raise UserError(
                got=f"init(key) with another structure: {given}",
                wanted="that of the parameters" if statistics is None else "that of (params, statistics)",
                do="Return what training began with.",
            )
        return (made, {}) if statistics is None else made

    def apply(params: Params, statistics: State, inputs: Any, *, train: bool, key: Any) -> Any:
        del train, key
        output, features = layers.forward(params, statistics, inputs)
        return output, features, statistics

    return Network(drawn, apply, layers.wiring)
