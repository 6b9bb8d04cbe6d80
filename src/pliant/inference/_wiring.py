"""One call that finds the wiring of a network, whoever wrote it."""

import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree
from rich.console import Console

from pliant.errors import UserError, in_one_line
from pliant.inference._activation import recognised, stated
from pliant.inference._assemble import Named, assembled, find_heads, find_roles, module_name, unique
from pliant.inference._forward import Captured, Seen, forward_of
from pliant.inference._layers import Layer, find_layers, why_unread
from pliant.inference._network import Network, few, network_of
from pliant.inference._override import overridden, require_true
from pliant.inference._program import NumberedGraph, Program
from pliant.inference._stages import Stages
from pliant.inference._table import wiring_table
from pliant.inference._verify import verified
from pliant.tracing import Follower, Product, find_frozen
from pliant.types import HiddenLayer, Slot, Traits, Wiring

_EXAMPLES = 2


class Inferred(NamedTuple):
    """The wiring of a network, and the network with its features."""

    wiring: Wiring
    forward: Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]
    """`forward(params, x) -> (output, features)`: pure and differentiable, for any batch that `apply` takes. The
    features are those of all hidden layers, of what heads read, and what `apply` returns. Units along two axes, such as
    heads and their channels, are put on the last; a layer that is used several times gives rows of units for all uses.
    `jax.checkpoint` stays, and so do loops without features."""
    notes: Mapping[str, str]
    """By parameter, layer or output: what is no hidden layer or could not be followed, why, and what to do."""

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120)
        console.print(wiring_table(self.wiring, self.notes))
        return console.file.getvalue()  # type: ignore[attr-defined]


def infer_wiring(apply: Callable[[Any, Any], Any], params: PyTree, x: Any, wiring: Wiring | None = None) -> Inferred:
    """Finds which parameters feed and read the hidden units of a network, by following its traced program.

    Use it to give a network of your own to methods that reset or measure units.

    A hidden layer is what an activation makes of products with parameters, if every product that reads it reads it
    behind that activation. Units are followed through bias, norm, dropout, reshape, transpose, pooling, padding and
    concatenation to the products that read them. A layer that is used several times, with the same feeds and readers,
    is one layer. What a skip connection carries on is no hidden layer, and neither are units whose parameters are used
    again elsewhere, as in a recurrence or an encoder that is also the decoder. Every layer is checked by
    perturbation: with all that reads a unit at 0, nothing that is added to the unit changes the output. A layer that
    fails is left out. The notes name every kernel whose units are no hidden layer's, why, and what to do about it.

    Args:
      apply: `apply(params, x) -> output`, or `-> (output, features)`: features that are returned give layers their
        names. In evaluation mode, traceable; nn modules of any library.
      params: any pytree. Floating-point arrays are parameters, except the running statistics that Flax keeps. New units
        are drawn from initialisers that are estimated from these numbers: give those of the start of training.
      x: examples, (batch, …), or a pytree of such arrays; two are enough.
      wiring: what you know better. Its layers replace those of the same name, or are added; its roles, heads, output
        axes and biases replace what was found. Running statistics that are among the parameters, other than Flax's,
        are its frozen parameters.

    Returns:
      `Inferred`: the wiring, `forward`, and notes. Print it to see a table.

    Raises:
      UserError: for an `apply` that cannot be traced, parameters or examples without values, no parameters, and a layer
        in `wiring` that is not true.

    Example:
      >>> import jax.numpy as jnp
      >>> def apply(params, x):
      ...     return jnp.tanh(x @ params["in"]) @ params["out"]
      >>> params = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 1))}
      >>> inferred = infer_wiring(apply, params, jnp.ones((5, 3)))
      >>> layer = inferred.wiring.layers[0]
      >>> layer.name, layer.width, layer.activation, layer.readers[0].path
      ('in', 4, 'tanh', 'out')
      >>> inferred.forward(params, jnp.zeros((7, 3)))[1]["in"].shape
      (7, 4)

    References:
      None: a convention of this library.

    Differs from:
      Nothing known.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x))):
        raise UserError(
            got="params or x without values, inside a function that is traced",
            wanted="arrays: layers are checked by perturbation",
            do="Call pliant.infer_wiring(...) outside of it; use inferred.forward and inferred.wiring inside.",
        )
    with jax.core.eval_context():  # it may be called where something else is traced, such as a hyperparameter
        return _infer(apply, params, x, wiring)


def _infer(apply: Callable[[Any, Any], Any], params: PyTree, x: Any, wiring: Wiring | None) -> Inferred:
    network = network_of(apply, params)
    if not network.trained.paths:
        raise UserError(got="params without floating-point arrays", wanted="parameters", do="Pass the parameters.")
    traced = _traced(network, x)
    found = _found(network, traced, wiring.frozen if wiring else frozenset())
    graph, features = traced.graph, found.features
    returned = {
        name: (Seen(value, Slot("", -1)),) for value, name in reversed(traced.named.items()) if value in graph.variables
    }
    whole = overridden(found.wiring, wiring, returned | features)
    seen = {layer.name: _variables(graph, layer, (returned | features)[layer.name]) for layer in whole.layers}
    wrong = verified(traced.program, seen, whole, network.paths, traced.leaves, jax.tree.leaves(traced.x))
    require_true(wiring, wrong)
    whole = whole._replace(layers=tuple(layer for layer in whole.layers if layer.name not in wrong))
    notes = dict(found.notes) | {name: f"left out: {reason}" for name, reason in wrong.items()}
    fed = {feed.slot.path for layer in (*found.wiring.layers, *whole.layers) for feed in layer.feeds}
    for leaf, path in enumerate(network.paths):
        if whole.roles[path] == "matrix" and path not in fed and path not in notes:
            notes[path] = why_unread(traced.follower, leaf)
    where: dict[int, int | str] = {**traced.named, **graph.results}
    captured = {
        name: tuple(each._replace(value=where[each.value]) for each in seen)
        for name, seen in features.items()
        if all(each.value in where for each in seen)
    }
    return Inferred(whole, forward_of(network, Captured(traced.program.names, captured)), notes)


def _variables(graph: NumberedGraph, layer: HiddenLayer, seen: Sequence[Seen]) -> list[Seen]:
    """Where in the program's variables the units of a layer are; along an axis that the user may have stated."""
    if len(seen) == 1 and seen[0].place.groups == 1:
        return [Seen(graph.variables[seen[0].value], Slot("", layer.axis))]
    return [each._replace(value=graph.variables[each.value]) for each in seen]


class _Traced(NamedTuple):
    """A network's program on a few examples, and what is known of its values."""

    leaves: list[Array]
    x: Any
    program: Program
    graph: NumberedGraph
    follower: Follower
    outputs: Mapping[str, int]
    """The arrays that heads make."""
    named: dict[int, str]
    """The features that the network returns, by value."""


class _Found(NamedTuple):
    """What is found before the user's statements and the check by perturbation."""

    wiring: Wiring
    features: dict[str, tuple[Seen, ...]]
    """Where the features of layers are, and what heads read."""
    notes: Mapping[str, str]


def _traced(network: Network, x: Any) -> _Traced:
    leaves = network.leaves(network.params)
    small = _small(network, leaves, x)
    program = _program(network, leaves, small)
    graph = NumberedGraph(program)
    follower = Follower(graph, graph.inputs[: len(leaves)], graph.inputs[len(leaves) :])
    parts = jax.tree.unflatten(jax.tree.structure(program.returned), graph.outputs)
    return _Traced(leaves, small, program, graph, follower, parts.outputs, _origins(graph, parts.features))


def _found(network: Network, traced: _Traced, stated: Collection[str]) -> _Found:
    follower, graph, paths = traced.follower, traced.graph, network.paths
    stages = Stages(follower)
    layers, notes = find_layers(follower, stages, traced.named, list(traced.outputs.values()), paths)
    seen = {*graph.results, *traced.named}
    layers = [layer for layer in layers if all(each.feature in seen for each in layer.uses)]
    frozen = _frozen(network, traced.leaves, traced.x, stated)
    roles = find_roles(follower, layers, paths, frozen)
    chosen = _named(layers, network, traced, stages, roles.roles)
    heads, more = find_heads(follower, traced.outputs, chosen, traced.named, roles, paths)
    values = dict(zip(paths, traced.leaves, strict=True))
    found = assembled(chosen, roles, heads, values, frozen, network.every_path)
    of_layers = {path: note for path, note in notes.items() if roles.roles[path] != "head"}
    features: dict[str, tuple[Seen, ...]] = {name: (Seen(value, Slot("", -1)),) for name, value in more.items()}
    features |= {each.name: tuple(Seen(use.feature, use.place) for use in each.layer.uses) for each in chosen}
    return _Found(found, features, of_layers | roles.notes)


def _program(network: Network, leaves: Any, x: Any) -> Program:
    try:
        return Program(network.listed(network.params), leaves, x)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            got=f"an `apply` that cannot be traced: {in_one_line(error)}",
            wanted="a function of arrays that jax.jit takes",
            do="Call jax.jit(apply)(params, x) to see where it fails, or write the wiring yourself.",
        ) from error


def _small(network: Network, leaves: Any, x: Any) -> Any:
    """A few examples, if the network takes fewer than it was given."""
    x = jax.tree.map(jax.numpy.asarray, x)
    try:
        jax.eval_shape(network.listed(network.params), leaves, few(x, _EXAMPLES))
    except Exception:  # whatever a network made for one size of the batch raises for another
        return x
    return few(x, _EXAMPLES)


def _origins(graph: NumberedGraph, features: Mapping[str, int]) -> dict[int, str]:
    """The names of returned features by the values that they are, or are copies of."""
    found: dict[int, str] = {}
    for name, value in features.items():
        found.setdefault(value, name)
        found.setdefault(graph.original(value), name)
    return found


def _frozen(network: Network, leaves: Any, x: Any, stated: Collection[str]) -> list[str]:
    def outputs(leaves: Any, x: Any) -> Any:
        return list(network.listed(network.params)(leaves, x).outputs.values())

    numbered = find_frozen(outputs, leaves, x)
    stopped = {network.paths[int(place)] for place in numbered} | set(stated)
    return [path for path in network.every_path if path not in network.trained.paths or path in stopped]


def _named(
    layers: list[Layer], network: Network, traced: _Traced, stages: Stages, roles: Mapping[str, str]
) -> list[Named]:
    """The layers with their names, activations and branches."""
    names = []
    for layer in layers:
        own = [network.paths[maker.leaf] for _, maker in layer.feeds if isinstance(maker, Product)]
        others = [path for path, role in roles.items() if role in ("matrix", "head") and path not in own]
        returned = None if layer.again else traced.named.get(layer.feature)
        names.append(returned or module_name(own or ["layer"], others))
    found = []
    for name, layer in zip(unique(names), layers, strict=True):
        kinds = {_activation(each, traced, stages) for each in layer.uses}
        activation, traits = kinds.pop() if len(kinds) == 1 else ("custom", Traits(layer.outputs))
        features = {each.feature for each in layer.uses}
        readers = [output for output, value in traced.outputs.items() if features & traced.graph.above([value])]
        branch = readers[0] if len(readers) == 1 < len(traced.outputs) else ""
        found.append(Named(layer, name, activation, stated(activation, traits), branch))
    return found


def _activation(layer: Layer, traced: _Traced, stages: Stages) -> tuple[str, Traits]:
    stage, graph = layer.stage, traced.graph
    if any(traced.follower.sorted & set(node.outputs) for node in stage.nodes):
        return ("maxmin" if layer.together == 2 else "custom"), Traits(layer.outputs)
    sizes = [math.prod(graph.shape(each)) for each in (stage.sources[0], stage.value)]
    if len(stage.sources) == 1 and sizes[1] in (sizes[0], sizes[0] * layer.outputs):
        source, result = (graph.variables.get(each) for each in (stage.sources[0], stage.value))
        if source is None or result is None:
            return "custom", Traits(layer.outputs)
        arguments = [*traced.leaves, *jax.tree.leaves(traced.x)]
        return recognised(traced.program, source, result, arguments, layer.outputs)
    for value in stage.nodes[-1].inputs:
        inner = stages.before(value, layer.units)
        if not isinstance(inner, str) and len(inner.sources) == 1 and inner.value != stage.value:
            name, traits = _activation(layer._replace(stage=inner), traced, stages)
            return name, traits._replace(bounds=None, is_kinked=False)
    return "gated", Traits(layer.outputs)
