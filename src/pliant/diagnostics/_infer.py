"""Infers the layers and kernels of a network without a wiring from its traced program."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from pliant.tracing import NONE, PRODUCTS, Follower, Graph, Node, Places, Product, along, graph_of, moved
from pliant.types import Feed, Head, HiddenLayer, Params, Role, Slot, Wiring, by_path

Function = Callable[[Params, PyTree], tuple[Any, Mapping[str, Any]]]
"""`function(params, inputs) -> (output, features)`."""
_GIVE_WIRING = "give wiring="


class Form(NamedTuple):
    """How the activations of a layer are brought into the form (batch, …, units)."""

    feature: str
    batch: int = 0
    """The axis of the examples."""
    units: tuple[int, ...] = (-1,)
    """The axes that index units."""
    layer: tuple[int, int] | None = None
    """Which entry along which axis, if several layers are stacked."""

    def of(self, features: Mapping[str, Array]) -> Array:
        """The layer's activations."""
        found = features[self.feature]
        batch, units = self.batch % found.ndim, tuple(axis % found.ndim for axis in self.units)
        if self.layer is not None:
            index, at = self.layer
            found = jax.lax.index_in_dim(found, index, at, keepdims=True)
        rest = [axis for axis in range(found.ndim) if axis != batch and axis not in units]
        order = (batch, *rest, *units)
        moved = found if order == tuple(range(found.ndim)) else found.transpose(order)
        dropped = [order.index(at)] if self.layer is not None else []
        shape = [size for axis, size in enumerate(moved.shape[: 1 + len(rest)]) if axis not in dropped]
        shape.append(math.prod(moved.shape[1 + len(rest) :]))
        return moved if tuple(shape) == moved.shape else moved.reshape(shape)


class Inferred(NamedTuple):
    """What `infer` finds."""

    wiring: Wiring
    forms: Mapping[str, Form]
    """By layer."""
    notes: Mapping[str, str]
    """By feature or parameter: what is not measured, and why."""


def infer(function: Function, params: Params, inputs: PyTree) -> Inferred:
    """Finds hidden layers, their order and units, the feature that the head reads, and the layout of kernels.

    The order is that of the computation. Units are the axes that a product with weights made; a kernel's outputs those
    that its product left. A feature on which the output does not depend is no hidden layer; a copy (reshaped, cast,
    transposed) stands for what it is a copy of. The head is the kernels whose product no other product reads.

    Args:
      function: traceable.
      params: floating-point arrays.
      inputs: examples, or their shapes.

    Example:
      >>> def function(params, x):
      ...     first = jnp.tanh(x @ params["b"].T)
      ...     second = jnp.tanh(first @ params["c"])
      ...     return second @ params["a"], {"y": second, "x": first}
      >>> params = {"a": jnp.ones((4, 2)), "b": jnp.ones((5, 3)), "c": jnp.ones((5, 4))}
      >>> wiring = infer(function, params, jnp.ones((6, 3))).wiring
      >>> [layer.name for layer in wiring.layers], wiring.head_reads(), wiring.roles["a"], wiring.output_axes["b"]
      (['x', 'y'], 'y', 'head', (0,))
    """
    names: list[str] = []

    def listed(params: Params, inputs: PyTree) -> tuple[Any, list[Any]]:
        output, features = function(params, inputs)
        names[:] = features
        return output, list(features.values())

    graph = graph_of(listed, params, inputs)
    num_leaves = len(jax.tree.leaves(params))
    parameters, data = graph.inputs[:num_leaves], graph.inputs[num_leaves:]
    follower = Follower(graph, parameters, data)
    products = [node for node in graph.nodes if _is_product(node, follower)]
    paths = list(by_path(params))
    roles, output_axes, of_kernels = _kernels(follower, products, paths)
    batch_axes = _batch_axes(listed, params, inputs)
    values = dict(zip(names, graph.outputs[1:], strict=True))
    origins = _origins(graph, values)
    values = {name: values[name] for name in origins}
    forms, of_features = _layers(follower, values, origins, dict(zip(names, batch_axes, strict=True)), data)
    head, of_head = _head_input(graph, origins, forms)
    feeds = {name: _feeds(follower, products, values, origins, forms, name, paths) for name in forms}
    layers = tuple(
        HiddenLayer(name, _width(graph, values, form), feeds[name], (), activation="unknown", elementwise=True)
        for name, form in forms.items()
    )
    notes = of_features | of_kernels | of_head
    notes |= {
        f"grama/{name}": "not measured: which weights feed its units is not known" for name in forms if not feeds[name]
    }
    kernels = tuple(path for path, role in roles.items() if role == "head")
    return Inferred(Wiring(layers, roles, {"output": Head(kernels, head)}, output_axes=output_axes), forms, notes)


def as_returned(features: Mapping[str, Any], params: Params, output: Array) -> Inferred:
    """The layers and kernels of a network that cannot be traced: features in the order in which they are returned.

    Example:
      >>> params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3, 3, 1))}
      >>> found = as_returned({"y": jnp.ones((5, 4)), "x": jnp.zeros(5)}, params, jnp.ones((5, 1)))
      >>> found.wiring.head_reads(), found.wiring.roles, found.notes["x"]
      ('y', {'a': 'matrix', 'b': 'other'}, 'not measured: no layer: shape (5,)')
    """
    forms, notes = {}, {}
    for name, feature in features.items():
        if not jnp.issubdtype(feature.dtype, jnp.floating) or feature.ndim < 2 or len(feature) != len(output):
            notes[name] = f"not measured: no layer: shape {feature.shape}"
        elif feature.shape == output.shape and bool((feature == output).all()):
            notes[name] = "not measured: no hidden layer: the output itself"
        else:
            forms[name] = Form(name)
            if feature.ndim > 2:
                notes[f"{name}/units"] = f"taken along the last axis of {feature.shape}"
    shapes = {path: leaf.shape for path, leaf in by_path(params).items()}
    roles: dict[str, Role] = {path: "matrix" if len(shape) == 2 else "other" for path, shape in shapes.items()}
    notes |= {
        path: f"not measured: which axes of {shape} are outputs is not known: {_GIVE_WIRING}"
        for path, shape in shapes.items()
        if len(shape) > 2
    }
    layers = tuple(
        HiddenLayer(name, features[name].shape[-1], (), (), activation="unknown", elementwise=True) for name in forms
    )
    head = Head(None, layers[-1].name if layers else "features")
    return Inferred(Wiring(layers, roles, {"output": head}), forms, notes)


def _is_product(node: Node, follower: Follower) -> bool:
    """Whether it is a product of what is computed from the inputs with what is not."""
    return node.name in PRODUCTS and sum(value in follower.data for value in node.inputs[:2]) == 1


def _kernels(
    follower: Follower, products: Sequence[Node], paths: Sequence[str]
) -> tuple[dict[str, Role], dict[str, tuple[int, ...]], dict[str, str]]:
    graph = follower.graph
    hidden = graph.above(value for node in products for value in node.inputs)
    uses: dict[int, list[Product]] = defaultdict(list)
    for product in follower.products:
        if product.data != NONE and product.outputs:
            uses[product.leaf].append(product)
    embeddings, unread = {each.leaf for each in follower.products if each.data == NONE}, _unread(follower)
    roles: dict[str, Role] = {}
    output_axes: dict[str, tuple[int, ...]] = {}
    notes: dict[str, str] = {}
    for leaf, (value, path) in enumerate(zip(follower.parameters, paths, strict=True)):
        shape, own = graph.shape(value), uses[leaf]
        roles[path] = "bias" if len(shape) < 2 else "other"
        if len(shape) < 2 or math.prod(shape) == 0:
            continue
        if not own and leaf not in unread:
            roles[path] = "embed" if leaf in embeddings else "other"
        elif any(use.is_mapped or not use.is_whole for use in own):
            notes[path] = f"not measured: holds several kernels, {shape}, whose singular values are not those of one"
        elif own and (layout := _layout([use.outputs for use in own], len(shape))) is not None:
            roles[path] = "matrix" if any(use.value in hidden for use in own) else "head"
            output_axes[path] = layout
        elif len(shape) == 2 and min(shape) > 1:
            roles[path] = "matrix"  # which of two axes are outputs does not change singular values
        else:
            reader = unread.get(leaf, "products of different layouts")
            notes[path] = (
                f"not measured: which axes of {shape} are outputs is not known (read by {reader}): {_GIVE_WIRING}"
            )
    return roles, output_axes, notes


def _unread(follower: Follower) -> dict[int, str]:
    """Parameters that something reads which is neither a product nor elementwise, and what that is."""
    found = dict(follower.met)
    for use in follower.beside:
        shape = follower.graph.shape(follower.parameters[use.leaf])
        is_summed = any(node.name == "reduce_sum" for node in follower.graph.readers[use.value])
        if use.name == "mul" and is_summed and sum(size > 1 for size in shape) > 1:
            found.setdefault(use.leaf, "mul")
    return found


def _layout(uses: Sequence[tuple[int, ...]], num_axes: int) -> tuple[int, ...] | None:
    """The output axes, if all products read one matrix or its transpose."""
    first = uses[0]
    if len(first) == num_axes:
        return None
    transposed = tuple(axis for axis in range(num_axes) if axis not in first)
    return first if all(use in (first, transposed) for use in uses) else None


def _batch_axes(listed: Callable[..., Any], params: Params, inputs: PyTree) -> list[int | None]:
    """The axis of each feature whose length follows the number of examples."""

    def shapes(more: int) -> list[tuple[int, ...]]:
        of = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(leaf) + more, *leaf.shape[1:]), leaf.dtype), inputs)
        return [feature.shape for feature in jax.eval_shape(listed, params, of)[1]]

    own, number = shapes(0), len(jax.tree.leaves(inputs)[0])
    try:
        with_one_more = shapes(1)
    except Exception:  # a network may be made for one size of the batch
        return [0 if shape and shape[0] == number else None for shape in own]
    found: list[int | None] = []
    for shape, other in zip(own, with_one_more, strict=True):
        axes = [axis for axis, sizes in enumerate(zip(shape, other, strict=True)) if sizes[0] != sizes[1]]
        found.append(axes[0] if len(axes) == 1 else None)
    return found


def _origins(graph: Graph, values: Mapping[str, int]) -> dict[str, int]:
    """The values that features are, or are copies of; last those that are computed again beside the network."""
    above, numbers = graph.above(graph.outputs[:1]), graph.numbers()
    same = {numbers[value]: value for value in sorted(above, reverse=True) if value in numbers}
    origins = {name: graph.original(value) for name, value in values.items()}
    again = {
        name: same[numbers[each]] for name, each in origins.items() if each not in above and numbers.get(each) in same
    }
    return {name: each for name, each in origins.items() if name not in again} | again


def _layers(
    follower: Follower,
    values: Mapping[str, int],
    origins: Mapping[str, int],
    batch_axes: Mapping[str, int | None],
    data: Sequence[int],
) -> tuple[dict[str, Form], dict[str, str]]:
    """The hidden layers in the order of computation, and why other features are none."""
    graph, below = follower.graph, follower.data
    above = graph.above(graph.outputs[:1])
    output = graph.original(graph.outputs[0])
    seen: dict[int, str] = {}
    found: list[tuple[int, int, str, Form]] = []
    notes: dict[str, str] = {}
    for name, value in values.items():
        origin, shape, batch = origins[name], graph.shape(value), batch_axes[name]
        if not jnp.issubdtype(graph.avals[value].dtype, jnp.floating):
            notes[name] = f"not measured: no layer: holds {graph.avals[value].dtype}"
        elif origin in data:
            notes[name] = "not measured: no layer: the inputs themselves"
        elif origin == output:
            notes[name] = "not measured: no hidden layer: the output itself"
        elif origin not in below:
            notes[name] = "not measured: no layer: does not depend on the examples"
        elif origin not in above:
            is_read = graph.is_read(origin)
            notes[name] = "not measured: no hidden layer: " + (
                "the output does not depend on it" if is_read else "nothing reads it, the output does not depend on it"
            )
        elif origin in seen:
            notes[name] = f"not measured: the same as {seen[origin]}"
        elif batch is None:
            notes[name] = f"not measured: no axis of {shape} is that of the examples"
        elif isinstance(forms := _forms(name, shape, batch, follower, value), str):
            notes[name] = f"not measured: {forms}"
        else:
            found += [(graph.position[origin], i, own, form) for i, (own, form) in enumerate(forms.items())]
            seen[origin] = name
    return {name: form for _, _, name, form in sorted(found, key=lambda each: each[:2])}, notes


def _forms(name: str, shape: tuple[int, ...], batch: int, follower: Follower, value: int) -> dict[str, Form] | str:
    """How the feature is brought into form, of each layer if it holds several; or why it cannot be."""
    stacked = [axis for axis in _stacked(follower, value) if axis != batch]
    rest = [axis for axis in range(len(shape)) if axis != batch and axis not in stacked]
    units = [axis for axis in rest if axis in follower.unit_axes(value)] if len(rest) > 1 else rest
    if not rest:
        return "no layer: one number for each example"
    if not units or len(stacked) > 1:
        return f"which axes of {shape} are units is not known: {_GIVE_WIRING}, or return (batch, units)"
    form = Form(name, batch, tuple(units))
    if not stacked:
        return {name: form}
    return {f"{name}/{i}": form._replace(layer=(i, stacked[0])) for i in range(shape[stacked[0]])}


def _stacked(follower: Follower, value: int) -> list[int]:
    """The axes along which a loop over layers has put their values together."""
    graph, steps = follower.graph, list[tuple[Node, int]]()
    while (node := graph.producer.get(value)) is not None and node.name not in PRODUCTS:
        with_data = [place for place, each in enumerate(node.inputs) if each in follower.data]
        if node.name == "stack_of" and with_data == [0]:
            found = along(0, range(graph.shape(value)[0]), len(graph.shape(value)))
            for each, place in reversed(steps):
                labels = moved(graph, each, place, found)
                if labels is None or labels.ndim != len(graph.shape(each.outputs[0])):
                    return []
                found = labels
            return [axis for axis, size in enumerate(found.shape) if size > 1]
        if len(with_data) != 1:
            break
        steps.append((node, with_data[0]))
        value = node.inputs[with_data[0]]
    return []


def _width(graph: Graph, values: Mapping[str, int], form: Form) -> int:
    shape = graph.shape(values[form.feature])
    return math.prod(shape[axis] for axis in form.units)


def _feeds(
    follower: Follower,
    products: Sequence[Node],
    values: Mapping[str, int],
    origins: Mapping[str, int],
    forms: Mapping[str, Form],
    name: str,
    paths: Sequence[str],
) -> tuple[Feed, ...]:
    """The kernels whose products make the units of a layer; none unless all of those products are followed."""
    graph, form = follower.graph, forms[name]
    ends, own = {origins[each.feature] for each in forms.values()}, origins[form.feature]
    made = {node.outputs[0] for node in products}
    reached = graph.above([own], stop=(ends - {own}) | made) & made
    found = {}
    for use in follower.products:
        shape, axes = graph.shape(follower.parameters[use.leaf]), use.outputs
        is_known = use.value in reached and use.is_whole and not use.is_mapped and 0 < len(axes) < len(shape)
        if not is_known or math.prod(shape[axis] for axis in axes) != _width(graph, values, form):
            continue
        if len(axes) == 1:
            found[use.value] = Feed(Slot(paths[use.leaf], axes[0]), jax.nn.initializers.zeros)
        elif use.feeds is not None and _is_in_order(follower, use.feeds, values[form.feature]):
            slot = Slot(paths[use.leaf], axes[1], groups=shape[axes[0]], across=axes[0])
            found[use.value] = Feed(slot, jax.nn.initializers.zeros)
    return tuple(found.values()) if set(found) == reached and form.layer is None else ()


def _is_in_order(follower: Follower, places: Places, value: int) -> bool:
    """Whether the units of a kernel follow each other as in a value."""
    return np.array_equal(follower.units.find(places.units).reshape(-1), follower.of(value).reshape(-1))


def _head_input(graph: Graph, origins: dict[str, int], forms: Mapping[str, Form]) -> tuple[str, dict[str, str]]:
    """The last of the layers that the output reads without another between, and a note if there are several.

    That is the one that depends on all others; without one they are joined, which is no layer's name.
    """
    features = {value: name for name, value in reversed(origins.items())}
    output = graph.original(graph.outputs[0])
    ends = [value for value in features if value != output]
    read = [value for value in graph.above(graph.outputs[:1], stop=ends) if value in ends]
    names = {value: _last_form(features[value], forms) for value in read}
    last = [value for value in read if graph.above([value]) >= set(read)]
    if not last:
        return " and ".join(sorted(names.values())) or "features", {}
    others = sorted(name for value, name in names.items() if value != last[0])
    note = f"of {names[last[0]]}, the last layer; past it the output also reads {', '.join(others)}"
    return names[last[0]], {"ranks": note} if others else {}


def _last_form(feature: str, forms: Mapping[str, Form]) -> str:
    return next((name for name, form in reversed(list(forms.items())) if form.feature == feature), feature)
