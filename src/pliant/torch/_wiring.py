"""The layer graph of a PyTorch network, found by following a forward pass and checked by perturbation."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError
from pliant.torch._called import as_it_was, inputs_for, require_real, unwrapped
from pliant.torch._follow import Core
from pliant.torch._ownership import Ownership, Read, Slot
from pliant.torch._replay import Again
from pliant.torch._seen import known as named
from pliant.torch._seen import reason
from pliant.torch._trace import Call, trace
from pliant.torch._verify import why_not


class WiredLayer(NamedTuple):
    """A hidden layer whose units can be reset: zeroing what reads a unit takes it out of the network."""

    name: str
    """The module whose weight makes the units."""
    width: int
    """How many units there are."""
    feeds: tuple[Slot, ...]
    """What belongs to the units: incoming weights, bias, and the norm's scale, offset and running statistics."""
    readers: tuple[Slot, ...]
    """The weights that multiply the units' outputs."""
    activation: str
    """What makes the outputs, with the module that calls it."""
    outputs: int
    """How many outputs each unit has: 2 behind CReLU."""
    labels: Tensor
    """The unit of each entry of the activation; axes that do not matter have size 1."""
    call: Call | None
    """The call that returns the activation; None if it happens out of Python's sight."""
    is_mixed: bool = False
    """Whether a norm over units lies among what feeds them."""
    is_normed: bool = False
    """Whether a norm over units lies between the activation and its readers: then a reset changes the output."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that a reset rewrites."""
        slots = [each for each in self.feeds if each.role != "statistic"]
        return tuple(dict.fromkeys(each.parameter for each in (*slots, *self.readers)))


class Wiring(NamedTuple):
    """The layer graph of a network. Print it to see the table."""

    layers: tuple[WiredLayer, ...]
    """In the order in which they are computed."""
    roles: Mapping[str, str]
    """The role of every parameter: "matrix", "head", "bias", "norm", "embed" or "other"."""
    heads: tuple[str, ...]
    """The parameters of the output layers."""
    biases: Mapping[str, str]
    """The bias that is added to what a kernel makes."""
    fans_in: Mapping[str, int]
    """How many weights feed each output of a kernel."""
    output_axes: Mapping[str, int]
    """The axis of a kernel that indexes its outputs: 0 for `nn.Linear`, 1 for the transposed layout of GPT-2."""
    norms: Mapping[str, tuple[str, ...]]
    """The scale and the offset of the norm behind a kernel, as far as it has them."""
    others: Mapping[str, str]
    """Activations whose units cannot be reset, and why."""

    def of_role(self, *roles: str) -> tuple[str, ...]:
        """The parameters of these roles, in the order of the network."""
        return tuple(name for name, role in self.roles.items() if role in roles)

    def __str__(self) -> str:
        rows = [("layer", "units", "fed by", "read by", "activation")]
        for layer in self.layers:
            fed = ", ".join(_short(each.parameter, layer.name) for each in layer.feeds)
            read = ", ".join(each.parameter.removesuffix(".weight") + _times(layer, each) for each in layer.readers)
            rows.append((layer.name, str(layer.width), fed, read, layer.activation))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append(f"heads: {', '.join(self.heads) or 'none found'}")
        if self.others:
            lines.append("not reset:")
            lines += [f"  {name}: {why}" for name, why in self.others.items()]
            lines.append("Add one by hand: wiring._replace(layers=(*wiring.layers, WiredLayer(...))).")
        return "\n".join(lines)


def infer_wiring(module: nn.Module, x: Any, *, head: str | None = None) -> Wiring:
    r"""Finds which parameters feed and which read the units of every hidden layer.

    Use it to see which layers of your network unit resets can act on, and as the wiring of `attach` and `ReDo`.

    One forward pass in evaluation mode is followed operation by operation, so functional calls, modules that are used
    twice, and any library's layers are found. Where a parameter meets data, its entries get the numbers of the units
    that they meet: through views, transposed and grouped layouts, flatten, pooling, concatenation and gates. Then every
    layer is checked by perturbation. With the readers' weights for half of the units at 0, changes of these units must
    not reach the readers' results nor the output, and a change of what feeds them must show in no other unit.

    Args:
      module: the network; behind `torch.compile` and `DataParallel` the module itself is followed.
      x: a batch of examples, (batch, …). A dictionary is passed as keyword arguments, a tuple as several arguments.
      head: the output layer's name; nothing in it or behind it is hidden. By default the layer whose product is the
        output, if no other contributes.

    Returns:
      A `Wiring`. Layers that cannot be reset are in `others`, each with the reason.

    Raises:
      UserError: for parameters without values (lazy modules, the device "meta"), and a module that cannot be called
        with x.

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
    device = next((each.device.type for each in module.parameters()), "cpu")
    with torch.inference_mode(mode=False), torch.autocast(device, enabled=False), as_it_was(module):
        return _inferred(module, args, kwargs, None if head is None else named(module, head, prefix))


def arguments(module: nn.Module, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the network's call."""
    if isinstance(x, Mapping):
        return (), inputs_for(module, x)
    if isinstance(x, tuple):
        return tuple(inputs_for(module, each) for each in x), {}
    return (inputs_for(module, x),), {}


def _inferred(module: nn.Module, args: Any, kwargs: Any, head: str | None) -> Wiring:
    params = dict(module.named_parameters())
    ownership = Ownership(params, dict(module.named_buffers()))
    inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.ndim]
    try:
        found = trace(lambda: module(*args, **kwargs), module, params, inputs, head, watcher=ownership)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            got=f"a module that cannot be called with x: {reason(error)}",
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
    layers: list[WiredLayer] = []
    others = dict(found.unseen)
    candidates = sorted(follower.candidates, key=lambda core: core.number)
    for core in [each for each in candidates if each in follower.read and not each.from_head]:
        layer, why = _layer(core, ownership)
        name = "" if layer is None else layer.name
        if any(name == other.name for other in layers):
            layer, why = None, f"{name} feeds two activations"
        if layer is not None and not why:
            why = why_not(
                again, params, ownership.operations[core], layer, [each.operation for each in ownership.reads[core]]
            )
        if layer is not None and not why:
            layers.append(layer)
        else:
            others.setdefault(core.name, why)
    sizes = {name: params[name] for name in params if roles[name] in ("matrix", "head")}
    axes = {name: _output_axis(name, ownership) for name in sizes}
    return Wiring(
        tuple(layers),
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
    slots = _joined([each.slot for each in reads])
    for slot in (*known.feeds, *slots):
        if slot.role == "kernel" and len(ownership.uses.get(slot.parameter, ())) > 1:
            return None, f"{slot.parameter} is used {len(ownership.uses[slot.parameter])} times"
    num = int(known.labels.numel() // known.width) if known.labels.numel() else 1
    outputs = num if core.tensor.ndim == known.labels.ndim and _is_repeated(known.labels) else 1
    layer = WiredLayer(
        kernels[0].parameter.rpartition(".")[0] or kernels[0].parameter,
        known.width,
        _joined(known.feeds),
        slots,
        core.name,
        outputs,
        known.labels,
        core.call,
        known.mixes,
        core in ownership.normed,
    )
    return layer, ""


def _is_repeated(labels: Tensor) -> bool:
    """Whether the units come several times in a row along one axis, as behind CReLU."""
    flat = labels.flatten()
    return sum(size > 1 for size in labels.shape) == 1 and len(flat) > 1 and bool((flat.diff() < 0).any())


def _joined(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """One slot for each parameter."""
    found: dict[str, Slot] = {}
    for slot in slots:
        if slot.parameter in found:
            before = found[slot.parameter].units
            one, other = torch.broadcast_tensors(before, slot.units)
            slot = slot._replace(units=torch.where(other >= 0, other, one))
        found[slot.parameter] = slot
    return tuple(found.values())


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


def _output_axis(name: str, ownership: Ownership) -> int:
    return ownership.output_axes.get(name, 0)


def _short(parameter: str, layer: str) -> str:
    return parameter.removeprefix(f"{layer}.")


def _times(layer: WiredLayer, slot: Slot) -> str:
    """How many inputs of a reader are one unit."""
    sizes = [size for size in slot.units.shape if size > 1]
    times = sizes[0] // layer.width if len(sizes) == 1 else 1
    return f" (× {times})" if times > 1 else ""
