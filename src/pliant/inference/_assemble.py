"""Puts together the wiring of what was found in a program."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pliant.inference._follow import Beside, Follower, Product
from pliant.inference._initializers import estimated
from pliant.inference._labels import NONE
from pliant.inference._layers import Layer, terminal
from pliant.types import Feed, Head, HiddenLayer, Role, Traits, Wiring

_STEPS = frozenset(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy copy_p stop_gradient "
    "reduce_precision neg mul div select_n add add_any".split()
)


class Named(NamedTuple):
    """A hidden layer with its name and activation."""

    layer: Layer
    name: str
    activation: str
    traits: Traits | None
    branch: str


class Roles(NamedTuple):
    """What each parameter is."""

    roles: dict[str, Role]
    biases: dict[str, str]
    output_axes: dict[str, tuple[int, ...]]
    indirect: frozenset[str]
    notes: dict[str, str]


def find_roles(follower: Follower, paths: Sequence[str], trained: Sequence[str]) -> Roles:
    """The role of each parameter, the bias of each kernel, and the axes that index outputs.

    Args:
      follower: what is known of the program.
      paths: of its parameters.
      trained: those that are trained.
    """
    graph = follower.graph
    roles: dict[str, Role] = {}
    biases: dict[str, str] = {}
    axes: dict[str, tuple[int, ...]] = {}
    notes: dict[str, str] = {}
    indirect = set()
    ends = {product.value for product in terminal(graph, follower.products)}
    tables = {paths[product.leaf] for product in follower.products if product.data == NONE}
    for product in follower.products:
        path = paths[product.leaf]
        if product.data == NONE:
            roles[path] = "embed"
            continue
        if path in tables:
            continue
        shape = graph.shape(follower.parameters[product.leaf])
        is_kernel = len(shape) > 1 and bool(product.outputs) and len(product.outputs) < len(shape)
        if not is_kernel:
            roles.setdefault(path, "other")
            continue
        if roles.get(path) not in ("matrix",):
            roles[path] = "head" if product.value in ends else "matrix"
        if not product.is_whole:
            notes[path] = f"holds several kernels, {shape}, along one axis: methods on singular values see them as one"
        if not product.is_direct:
            indirect.add(path)
        transposed = tuple(axis for axis in range(len(shape)) if axis not in product.outputs)
        if path in axes and axes[path] not in (product.outputs, transposed):
            notes[path] = "read by products of different layouts"
        axes.setdefault(path, product.outputs)
    for use in follower.beside:
        path = paths[use.leaf]
        if path in roles:
            continue
        kernels = _kernels_before(follower, use)
        is_added = use.name in ("add", "add_any")
        num_axes = len(graph.shape(follower.parameters[use.leaf]))
        is_position = is_added and num_axes > 1 and (use.feeds is None or use.is_table)
        if use.name == "concatenate" or (is_position and not _is_scaled(follower, use.data)):
            roles[path] = "embed"
        elif use.name == "kernel" or (use.name == "mul" and kernels):
            roles[path] = "other"
        elif is_added and kernels and use.feeds is not None:
            roles[path] = "bias"
            biases |= {paths[leaf]: path for leaf in kernels if paths[leaf] not in biases}
        elif use.feeds is not None and use.name in ("add", "add_any", "sub", "mul", "div"):
            roles[path] = "norm"
        else:
            roles[path] = "other"
    for leaf, path in enumerate(paths):
        if path not in roles:
            roles[path] = "other"
            if leaf in follower.lost and path in trained:
                notes[path] = f"not followed behind {follower.lost[leaf]}: state its role in wiring=Wiring(..., roles=)"
    return Roles(roles, biases, axes, frozenset(indirect), notes)


def _is_scaled(follower: Follower, value: int) -> bool:
    """Whether a value is what a norm makes before its offset."""
    node = follower.graph.producer.get(value)
    return node is not None and node.name in ("mul", "div")


def _kernels_before(follower: Follower, use: Beside) -> list[int]:
    """The kernels of the products that a parameter is added to, if there is nothing else between."""
    products = {product.value: product.leaf for product in follower.products if product.data != NONE}
    found, waiting = [], [use.data]
    while waiting:
        value = waiting.pop()
        if value in products:
            found.append(products[value])
            continue
        node = follower.graph.producer.get(value)
        if node is None or node.name not in _STEPS | {"pliant_spread"}:
            return []
        live = [each for each in node.inputs if each in follower.labels and (follower.of(each) != NONE).any()]
        others = [each for each in node.inputs if each not in live]
        if node.name in ("mul", "div", "add", "add_any") and any(
            math.prod(follower.graph.shape(each)) > 1 for each in others
        ):
            return []
        if not live:
            return []
        waiting += live
    return found


def find_heads(
    follower: Follower,
    outputs: Mapping[str, int],
    layers: Sequence[Named],
    names: Mapping[int, str],
    found: Roles,
    paths: Sequence[str],
) -> tuple[dict[str, Head], dict[str, int]]:
    """The heads by the name of their output, and the values of the features that they read beside those of layers."""
    graph = follower.graph
    heads: dict[str, Head] = {}
    more: dict[str, int] = {}
    for name, value in outputs.items():
        above = graph.above([value])
        ends = [product for product in terminal(graph, follower.products) if product.value in above]
        kernels = tuple(
            dict.fromkeys(paths[end.leaf] for end in ends if found.roles[paths[end.leaf]] in ("head", "matrix"))
        )
        biases = tuple(found.biases[path] for path in kernels if path in found.biases)
        reads: str | None = None
        for end in ends[-1:]:
            reads, at = _read(follower, end, layers, names, name if len(outputs) > 1 else "")
            if reads is not None and at is not None:
                more[reads] = at
        branch = name if len(outputs) > 1 and any(each.branch == name for each in layers) else ""
        heads[name] = Head((*kernels, *dict.fromkeys(biases)), reads, branch)
    return heads, more


def _read(
    follower: Follower, end: Product, layers: Sequence[Named], names: Mapping[int, str], output: str
) -> tuple[str | None, int | None]:
    """The feature that a head reads; if it is no layer's and not returned, its value as well."""
    for each in layers:
        if any(reader.value == end.value for _, reader in each.layer.readers):
            return each.name, None
    value = end.data
    at = value
    while True:
        if value in names:
            return names[value], None
        node = follower.graph.producer.get(value)
        if node is None or value not in follower.data:
            return None, None
        with_data = [each for each in dict.fromkeys(node.inputs) if each in follower.data]
        if node.name not in _STEPS - {"mul", "div", "add", "add_any", "select_n", "neg"} or len(with_data) != 1:
            break
        value = at = with_data[0]
    return (f"{output}/head_input" if output else "head_input"), at


def assembled(
    layers: Sequence[Named],
    found: Roles,
    heads: Mapping[str, Head],
    values: Mapping[str, Any],
    frozen: Sequence[str],
    every_path: Sequence[str],
) -> Wiring:
    """The wiring.

    Args:
      layers: the hidden layers.
      found: the roles.
      heads: by output.
      values: the parameters by path, from which initialisers are estimated.
      frozen: what is not trained.
      every_path: of all leaves, parameters or not.
    """
    own = []
    for each in layers:
        fed = [(slot, maker) for slot, maker in each.layer.feeds if slot.path not in frozen]
        kept = [slot for slot, _ in each.layer.feeds if slot.path in frozen]
        own.append(
            HiddenLayer(
                each.name,
                len(each.layer.units),
                tuple(Feed(slot, estimated(values[slot.path])) for slot, _ in fed),
                tuple(slot for slot, _ in each.layer.readers),
                each.activation,
                elementwise=True,
                axis=each.layer.axis,
                statistics=tuple(kept),
                branch=each.branch,
                activation_traits=each.traits,
            )
        )
    roles: dict[str, Role] = {path: found.roles.get(path, "other") for path in every_path}
    roles |= dict.fromkeys(frozen, "other")
    axes = {path: own_axes for path, own_axes in found.output_axes.items() if roles[path] in ("matrix", "head")}
    kept_biases = {kernel: bias for kernel, bias in found.biases.items() if bias not in frozen}
    return Wiring(tuple(own), roles, dict(heads), found.indirect, axes, frozenset(frozen), kept_biases)


def module_name(paths: Sequence[str]) -> str:
    """A name for what these kernels make: the module that they are in.

    Example:
      >>> module_name(["params/dense_0/kernel"]), module_name(["mlp/gate/kernel", "mlp/up/kernel"]), module_name(["w"])
      ('dense_0', 'mlp', 'w')
    """
    parts = [path.removesuffix("/value").split("/") for path in paths]
    shared: list[str] = []
    for names in zip(*(each[:-1] for each in parts), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    if shared[:1] == ["params"]:
        shared = shared[1:]
    if shared:
        return "/".join(shared)
    first = parts[0][1:] if parts[0][0] == "params" and len(parts[0]) > 1 else parts[0]
    return "/".join(first[:-1] or first)


def unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where several are equal.

    Example:
      >>> unique(["a", "b", "a"])
      ['a', 'b', 'a_1']
    """
    seen: dict[str, int] = {}
    found = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        found.append(f"{name}_{number}" if number else name)
    return found
