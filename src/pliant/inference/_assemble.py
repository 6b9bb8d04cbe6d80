"""Puts together the wiring of what was found in a program."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pliant.inference._initializers import estimated
from pliant.inference._layers import Layer, shown, terminal
from pliant.tracing import NONE, Beside, Follower, Product
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


def find_roles(follower: Follower, layers: Sequence[Layer], paths: Sequence[str], frozen: Collection[str]) -> Roles:
    """The role of each parameter, the bias of each kernel, and the axes that index outputs.

    Args:
      follower: what is known of the program.
      layers: its hidden layers.
      paths: of its parameters.
      frozen: those that are not trained.
    """
    kernels = [product for product in follower.products if _is_kernel(follower, product)]
    indirect = frozenset(paths[product.leaf] for product in kernels if not product.is_direct)
    found = Roles({}, {}, {}, indirect, {})
    _add_kernels(follower, kernels, paths, found)
    single = [each.stage for layer in layers for each in layer.uses if len(each.stage.sources) == 1]
    within = {value for stage in single for node in stage.nodes for value in node.outputs}
    for use in sorted(follower.beside, key=lambda use: use.feeds is None):
        path = paths[use.leaf]
        if path not in found.roles and path not in frozen:
            role, of_kernels = ("other", []) if use.value in within else _beside_kernels(follower, use)
            found.roles[path] = role
            if role == "bias":
                found.biases.update({paths[leaf]: path for leaf in of_kernels if paths[leaf] not in found.biases})
    for leaf, path in enumerate(paths):
        if path not in found.roles:
            found.roles[path] = "other"
            if leaf in follower.lost and path not in frozen:
                found.notes[path] = (
                    f"not followed behind {shown(follower.lost[leaf])}; state its role in wiring=Wiring(..., roles=)"
                )
    return found


def _is_kernel(follower: Follower, product: Product) -> bool:
    num_axes = len(follower.graph.shape(follower.parameters[product.leaf]))
    return product.data != NONE and 0 < len(product.outputs) < num_axes


def _add_kernels(follower: Follower, kernels: Sequence[Product], paths: Sequence[str], found: Roles) -> None:
    """Adds what products say of their parameters."""
    ends = {product.value for product in terminal(follower.graph, follower.products)}
    found.roles.update({paths[each.leaf]: "embed" for each in follower.products if each.data == NONE})
    for product in kernels:
        path, shape = paths[product.leaf], follower.graph.shape(follower.parameters[product.leaf])
        if found.roles.get(path) == "embed":
            continue
        if found.roles.get(path) != "matrix":
            found.roles[path] = "head" if product.value in ends else "matrix"
        if not product.is_whole:
            found.notes[path] = (
                f"holds several kernels, {shape}, along one axis: no layer is found, and methods on singular values "
                "see them as one; keep one array a kernel"
            )
        elif product.is_mapped:
            found.notes[path] = (
                f"holds several kernels, {shape}, side by side: methods on singular values see them as one"
            )
        transposed = tuple(axis for axis in range(len(shape)) if axis not in product.outputs)
        if found.output_axes.get(path, product.outputs) not in (product.outputs, transposed):
            found.notes[path] = "read by products of different layouts; state its outputs in Wiring(..., output_axes=)"
        found.output_axes.setdefault(path, product.outputs)


def _beside_kernels(follower: Follower, use: Beside) -> tuple[Role, list[int]]:
    """The role of a parameter that is no kernel, and the kernels that it belongs to."""
    is_added = use.name in ("add", "add_any")
    kernels = _kernels_before(follower, use, may_add=is_added)
    num_axes = len(follower.graph.shape(follower.parameters[use.leaf]))
    if use.name == "concatenate" or (is_added and num_axes > 1 and use.is_table and not _is_scaled(follower, use.data)):
        return "embed", []
    if use.name == "kernel" or (use.name == "mul" and kernels):
        return "other", []
    if is_added and kernels and (use.feeds is not None or num_axes > 1):
        return "bias", kernels
    if use.feeds is not None and use.name in ("add", "add_any", "sub", "mul", "div"):
        return "norm", []
    return "other", []


def _is_scaled(follower: Follower, value: int) -> bool:
    """Whether a value is what a norm makes before its offset."""
    node = follower.graph.producer.get(value)
    return node is not None and node.name in ("mul", "div")


def _kernels_before(follower: Follower, use: Beside, *, may_add: bool) -> list[int]:
    """The kernels of the products that a parameter is added to, if there is nothing else between, or only sums."""
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
        changing = ("mul", "div") if may_add else ("mul", "div", "add", "add_any")
        if node.name in changing and any(math.prod(follower.graph.shape(each)) > 1 for each in others):
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
    """The heads by the name of their output, and the values of the features that they read beside those of layers.

    A head that reads several features reads the last of them; `found.notes` says so.
    """
    graph = follower.graph
    heads: dict[str, Head] = {}
    more: dict[str, int] = {}
    for name, value in outputs.items():
        above = graph.above([value])
        ends = [each for each in terminal(graph, follower.products) if each.value in above and each.data != NONE]
        kernels = tuple(dict.fromkeys(paths[end.leaf] for end in ends if found.roles[paths[end.leaf]] != "embed"))
        biases = tuple(found.biases[path] for path in kernels if path in found.biases)
        read = [_read(follower, end, layers, names, name if len(outputs) > 1 else "") for end in ends]
        reads, at = read[-1] if read else (None, None)
        if reads is not None and at is not None:
            more[reads] = at
        several = list(dict.fromkeys(str(each) for each, _ in read))
        if len(several) > 1:
            found.notes[name] = (
                f"its kernels read {', '.join(several)}, and the last counts as its input; for another one give "
                f"wiring=Wiring((), {{}}, heads={{{name!r}: Head(leaves, reads)}})"
            )
        branch = name if len(outputs) > 1 and any(each.branch == name for each in layers) else ""
        heads[name] = Head((*kernels, *dict.fromkeys(biases)), reads, branch)
    return heads, more


def _read(
    follower: Follower, end: Product, layers: Sequence[Named], names: Mapping[int, str], output: str
) -> tuple[str | None, int | None]:
    """The feature that a head reads; if it is no layer's and not returned, its value as well."""
    for each in layers:
        if any(reader.value == end.value for use in each.layer.uses for _, reader in use.readers):
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
        kept = [slot for slot, maker in each.layer.feeds if slot.path in frozen and _is_statistic(maker)]
        fed = [slot for slot, _ in each.layer.feeds if slot not in kept]
        own.append(
            HiddenLayer(
                each.name,
                len(each.layer.units) * each.layer.together,
                tuple(Feed(slot, estimated(values[slot.path])) for slot in fed),
                tuple(slot for slot, _ in each.layer.readers),
                each.activation,
                elementwise=each.layer.together == 1,
                axis=-1 if each.layer.again or each.layer.place.groups > 1 else each.layer.place.axis,
                statistics=tuple(kept),
                branch=each.branch,
                activation_traits=each.traits,
            )
        )
    roles: dict[str, Role] = {path: found.roles.get(path, "other") for path in every_path}
    roles |= dict.fromkeys(frozen, "other")
    axes = {path: own_axes for path, own_axes in found.output_axes.items() if roles[path] in ("matrix", "head")}
    kept_biases = {kernel: bias for kernel, bias in found.biases.items() if bias not in frozen}
    whole = Wiring(tuple(own), roles, dict(heads), found.indirect, axes, frozenset(frozen))
    return whole._replace(biases=kept_biases)  # no more: a bias of one kernel is not that of all in its layer


def _is_statistic(maker: Product | Beside) -> bool:
    """Whether what is not trained is a norm's mean or variance, not a frozen kernel or bias."""
    is_bias = isinstance(maker, Beside) and maker.name in ("add", "add_any") and maker.is_direct
    return isinstance(maker, Beside) and maker.name != "kernel" and not is_bias


def module_name(paths: Sequence[str], others: Sequence[str]) -> str:
    """A name for what these kernels make: their module, or that of the first; its path if other kernels are in it.

    Args:
      paths: of the kernels.
      others: kernels that make something else.

    Example:
      >>> module_name(["params/dense_0/kernel"], []), module_name(["mlp/gate/kernel", "mlp/up/kernel"], ["mlp/w"])
      ('dense_0', 'mlp/gate')
      >>> module_name(["net/w1"], ["net/w2"]), module_name(["w"], [])
      ('net/w1', 'w')
    """
    own = [_keys(path) for path in paths]
    taken = ["/".join(_keys(path)) for path in others]
    shared = [keys[0] for keys in itertools.takewhile(lambda keys: len(set(keys)) == 1, zip(*own, strict=False))]
    for module in (shared if len(own) > 1 else own[0][:-1], own[0][:-1]):
        name = "/".join(module)
        if name and not any(other.startswith(f"{name}/") for other in taken):
            return name
    return "/".join(own[0])


def _keys(path: str) -> list[str]:
    """Of a parameter, without what Flax puts around all of them."""
    return path.removeprefix("params/").removesuffix("/value").split("/")


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
