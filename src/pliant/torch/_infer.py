"""Finds the layer graph of a network by following a forward pass, and checks it by perturbation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from pliant.errors import UserError, in_one_line
from pliant.torch._called import as_it_was, inputs_for, recordable, require_real, unwrapped
from pliant.torch._hidden_layers import HiddenLayer, resolve
from pliant.torch._info import Core
from pliant.torch._owned import Read
from pliant.torch._ownership import Ownership
from pliant.torch._placing import Returns, place, require_true
from pliant.torch._replay import Again
from pliant.torch._seen import known as named
from pliant.torch._slots import joined
from pliant.torch._trace import trace
from pliant.torch._units import num_outputs
from pliant.torch._verify import why_not
from pliant.torch._wiring import WiredLayer, Wiring


def infer_wiring(module: nn.Module, x: Any, *, head: str | None = None, layers: Sequence[HiddenLayer] = ()) -> Wiring:
    r"""Finds which parameters feed and which read the units of every hidden layer.

    Use it to see which layers of your network unit resets can act on, and as the wiring of `attach` and `ReDo`.

    One forward pass in evaluation mode is followed operation by operation, so functional calls, modules that are used
    twice, and any library's layers are found. Where a parameter meets data, its entries get the numbers of the units
    that they meet: through views, transposed and grouped layouts, flatten, pooling, concatenation and gates. A layer
    that is used several times, with the same feeds and readers, is one layer. Then every layer is checked by
    perturbation. With the readers' weights for half of the units at 0, changes of these units must not reach the
    readers' results nor the output, and a change of what feeds them must show in no other unit.

    Args:
      module: the network; behind `torch.compile` and `DataParallel` the module itself is followed.
      x: a batch of examples, (batch, …). A dictionary is passed as keyword arguments, a tuple as several arguments.
      head: the output layer's name; nothing in it or behind it is hidden. By default the layer whose product is the
        output, if no other contributes.
      layers: hidden layers that you declare, because they are not found or not found right. They replace those of the
        same feed, or are added. They are checked by perturbation too, but the network may return their features. Other
        parts of a `Wiring` are changed by `wiring._replace(roles=..., norms=...)`.

    Returns:
      A `Wiring`. Layers that cannot be reset are in `others`, each with the reason.

    Raises:
      UserError: for parameters without values (lazy modules, the device "meta"), a module that cannot be called
        with x, and declared layers that are not as declared.

    Example:
      >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
      >>> wiring = infer_wiring(net, torch.randn(5, 1, 4, 4))
      >>> [(layer.name, layer.width, [slot.parameter for slot in layer.readers]) for layer in wiring.layers]
      [('0', 3, ['3.weight'])]
      >>> wiring.layers[0].readers[0].units.tolist()
      [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]

    References:
      The definition is ours.

    Differs from:
      `torch.fx` and `torch.export`, which do not follow Python that depends on data. Channel pruning libraries, which
      group layers by rules for known module classes.
    """
    module, prefix = unwrapped(module)
    require_real(module)
    args, kwargs = arguments(module, x)
    return follow(
        module, args, kwargs, None if head is None else named(module, head, prefix), resolve(module, layers).layers
    )


def arguments(module: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the network's call."""
    if isinstance(x, Mapping):
        return (), inputs_for(module, x)
    if isinstance(x, tuple):
        return tuple(inputs_for(module, each) for each in x), {}
    return (inputs_for(module, x),), {}


def follow(
    module: nn.Module, args: Any, kwargs: Any, head: str | None = None, declared: Sequence[WiredLayer] = ()
) -> Wiring:
    """The wiring of a network that is called with these arguments; see `infer_wiring`."""
    device = next((each.device.type for each in module.parameters()), "cpu")
    args, kwargs = tree_map_only(Tensor, recordable, (args, kwargs))
    with torch.inference_mode(mode=False), torch.autocast(device, enabled=False), as_it_was(module):
        return _inferred(module, args, kwargs, head, declared)


def _inferred(module: nn.Module, args: Any, kwargs: Any, head: str | None, declared: Sequence[WiredLayer]) -> Wiring:
    params = dict(module.named_parameters())
    ownership = Ownership(params, dict(module.named_buffers()))
    inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.ndim]
    returns = Returns(module, ownership, {layer.activation for layer in declared})

    def call() -> Any:
        with returns:
            return module(*args, **kwargs)

    try:
        found = trace(call, module, params, inputs, head, watcher=ownership)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            got=f"a module that cannot be called with x: {in_one_line(error)}",
            wanted="a batch of examples as for training",
            do="Pass x on the device and of the type of the weights; a dictionary is passed as keyword arguments.",
        ) from error
    follower = ownership.follower
    if follower is None:
        raise UserError(
            got="a module that computes nothing with x", wanted="a network", do="Pass the network that you train."
        )
    ownership.leave([each for each in tree_leaves(found.output) if isinstance(each, Tensor)])
    heads = _heads(ownership, found.heads)
    roles = _roles(params, ownership, heads)
    again = Again(module, args, kwargs)
    placed = [place(layer, returns.found[layer.activation], ownership) for layer in declared]
    for each in placed:
        require_true(each, again, params)
    layers = {each.layer.name: (each.operation, each.layer) for each in placed}
    known = {each.core for each in placed}
    others = dict(found.unseen)
    candidates = sorted(follower.candidates, key=lambda core: core.number)
    used: dict[Any, list[tuple[Core, WiredLayer]]] = {}
    for core in [each for each in candidates if each in follower.read and not each.from_head and each not in known]:
        found_layer, why = _layer(core, ownership)
        if found_layer is None:
            others.setdefault(core.name, why)
        else:
            used.setdefault(_parts(found_layer, ownership) or core, []).append((core, found_layer))
    for uses in used.values():
        first, *rest = (each for _, each in uses)
        layer, cores = first._replace(again=tuple(rest)), [core for core, _ in uses]
        why = _used_elsewhere(layer, ownership)
        if layer.name in layers:
            why = f"{layer.name} feeds two activations"
        if not why:
            readers = [each.operation for core in cores for each in ownership.reads[core]]
            why = why_not(again, params, [ownership.operations[core] for core in cores], layer, readers)
        if not why:
            layers[layer.name] = ownership.operations[cores[0]], layer
        else:
            others.update({core.name: why for core in cores if core.name not in others})
    sizes = {name: params[name] for name in params if roles[name] in ("matrix", "head")}
    axes = {name: ownership.output_axes.get(name, 0) for name in sizes}
    return Wiring(
        tuple(layer for _, layer in sorted(layers.values(), key=lambda pair: pair[0])),
        roles,
        heads,
        {kernel: bias for kernel, bias in ownership.biases.items() if roles.get(bias) == "bias"},
        {name: each.numel() // max(1, each.shape[axes[name]]) for name, each in sizes.items()},
        axes,
        {kernel: names for kernel, names in ownership.norms.items() if roles[kernel] == "matrix"},
        others,
    )


def _layer(core: Core, ownership: Ownership) -> tuple[WiredLayer | None, str]:
    """An activation as a layer, or the reason why its units cannot be reset."""
    known = ownership.known.get(core)
    if core.why or known is None:
        return None, core.why or "which of its entries are units is not known"
    why = ownership.leaks.get(core) or known.why
    if why:
        return None, why
    reads: Sequence[Read] = ownership.reads.get(core, ())
    kernels = [each for each in known.feeds if each.role == "kernel"]
    if not reads or not kernels:
        return None, "no weights read it" if kernels else "no weights of the network feed it"
    slots = joined([each.slot for each in reads])
    layer = WiredLayer(
        kernels[0].parameter.removesuffix(".weight"),
        known.width,
        joined(known.feeds),
        slots,
        core.name,
        num_outputs(known.labels),
        known.labels,
        core.call,
        known.mixes,
        core in ownership.normed,
    )
    return layer, ""


def _parts(layer: WiredLayer, ownership: Ownership) -> Any:
    """What feeds and reads a layer, if some of it is used several times; the same for another use of the layer."""
    slots = (*layer.feeds, *layer.readers)
    if all(len(ownership.uses.get(slot.parameter, ())) < 2 for slot in slots):
        return None
    parts = [(slot.parameter, tuple(slot.units.shape), tuple(slot.units.flatten().tolist())) for slot in slots]
    return tuple(parts), len(layer.feeds), layer.outputs


def _used_elsewhere(layer: WiredLayer, ownership: Ownership) -> str:
    """Why what feeds or reads a layer is not its own; empty if it is."""
    for slot in (*layer.feeds, *layer.readers):
        number = len(ownership.uses.get(slot.parameter, ()))
        if number not in (0, len(layer.uses)):
            return f"{slot.parameter} is used {number} times"
    return ""


def _heads(ownership: Ownership, names: Sequence[str]) -> tuple[str, ...]:
    """The kernels and biases of the output layers."""
    products = ownership.follower.products
    kernels = [kernel for number, kernel in ownership.kernels.items() if products[number].name in names]
    kernels = list(dict.fromkeys(kernels))
    biases = [ownership.biases[kernel] for kernel in kernels if kernel in ownership.biases]
    return tuple(dict.fromkeys([*kernels, *biases]))


def _roles(params: Mapping[str, Tensor], ownership: Ownership, heads: Sequence[str]) -> dict[str, str]:
    names = {"kernel": "matrix", "embedding": "embed", "bias": "bias", "norm": "norm"}
    roles = {name: names.get(ownership.roles.get(name, ""), "other") for name in params}
    return {name: "head" if role == "matrix" and name in heads else role for name, role in roles.items()}
