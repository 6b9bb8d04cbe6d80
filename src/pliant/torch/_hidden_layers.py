"""Hidden layers that are declared by hand: the modules that feed, activate and read their units."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from pliant.errors import UserError, unknown_name
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._numbers import whole_number
from pliant.torch._slots import Role, Slot
from pliant.torch._wiring import WiredLayer, Wiring


class Reader(NamedTuple):
    """A layer that reads the units of another, and where it finds them among its inputs."""

    module: str
    """Its name in the network (`named_modules`)."""
    repeats: int = 1
    """How many adjacent inputs are one unit: H·W behind a flatten of (batch, channels, H, W)."""
    tiles: int = 1
    """How often the sequence of all units is repeated: 2 behind CReLU, H·W behind a flatten with channels last."""


class HiddenLayer(NamedTuple):
    """One hidden layer: what feeds each unit, where it is observed, and who reads it. Modules are given by name."""

    feed: str
    """A linear layer or convolution: its outputs are the units."""
    activation: str
    """The module whose output is scored: where it is called several times, at its first call behind `feed`."""
    readers: Sequence[str | Reader]
    """All layers that multiply the units' outputs; a name is a `Reader` with its defaults."""
    norm: str | None = None
    """The norm whose scale and offset belong to the units; found if the forward pass can be followed there."""


_STATISTICS = ("running_mean", "running_var")


def resolve(module: nn.Module, layers: Sequence[HiddenLayer]) -> Wiring:
    """Finds the parameters that declared layers name. A forward pass completes it: it finds the activations.

    Raises:
      UserError: for unknown names, modules in which no unit can be reset, and layers that are declared twice.

    Example:
      >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
      >>> (layer,) = resolve(net, [HiddenLayer("0", "1", readers=["2"])]).layers
      >>> [slot.parameter for slot in (*layer.feeds, *layer.readers)]
      ['0.weight', '0.bias', '2.weight']
    """
    found = [_resolved(module, layer) for layer in layers]
    names = [layer.name for layer in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                got=f"{names.count(name)} hidden layers fed by {name!r}", wanted="one", do="List all readers in it."
            )
    slots = [slot for layer in found for slot in layer.feeds + layer.readers]
    roles = {slot.parameter: "matrix" if slot.role == "kernel" else slot.role for slot in slots}
    return Wiring(tuple(found), roles, (), {}, {}, {}, {}, {})


def _resolved(module: nn.Module, layer: HiddenLayer) -> WiredLayer:
    feed = _kernel_layer(module, layer.feed)
    name = next(name for name, part in module.named_modules() if part is feed)
    _find(module, layer.activation)
    width = int(feed.weight.shape[0])
    if not width:
        raise UserError(got=f"{layer.feed!r} without units", wanted="at least one", do="Leave this hidden layer out.")
    norm = None if layer.norm is None else _find(module, layer.norm)
    for scale in _own(str(layer.norm), norm).values():
        if scale.shape != (width,):
            raise UserError(
                got=f"the norm {layer.norm!r} with a scale of shape {tuple(scale.shape)}",
                wanted=f"one number for each of {width} units",
                do="Name a norm over units or channels, or none.",
            )
    units = torch.arange(width)
    own = _own(layer.feed, feed)
    feeds = [_slot(module, name, own["weight"], units, 0, "kernel")]
    feeds += [_slot(module, name, own["bias"], units, 0, "bias")] if "bias" in own else []
    feeds += [_slot(module, name, each, units, 0, "norm") for each in _own(str(layer.norm), norm).values()]
    statistics = {} if norm is None else {kind: norm._buffers.get(kind) for kind in _STATISTICS}
    path = next((path for path, part in module.named_modules() if part is norm), "")
    feeds += [
        Slot(f"{path}.{kind}".lstrip("."), units, "statistic") for kind, each in statistics.items() if each is not None
    ]
    readers = tuple(
        _slot(module, name, reader.weight, units.repeat_interleave(repeats).tile(tiles), 1, "kernel")
        for reader, (_, repeats, tiles) in _readers(module, layer, width)
    )
    return WiredLayer(name, width, tuple(feeds), readers, layer.activation, 1, torch.empty(0), None)


def _slot(module: nn.Module, layer: str, parameter: Tensor, units: Tensor, axis: int, role: Role) -> Slot:
    """The entries along an axis of a parameter, which must not be shared between modules."""
    holders = [
        f"{path}.{kind}".lstrip(".")
        for path, part in module.named_modules()
        for kind, other in part._parameters.items()
        if other is parameter
    ]
    if len(holders) > 1:
        raise UserError(
            got=f"{layer!r}, where a parameter of shape {tuple(parameter.shape)} is shared by {', '.join(holders)}",
            wanted="parameters that belong to one module",
            do="Leave this hidden layer out: a reset would change the other modules too.",
        )
    shape = [1] * parameter.ndim
    shape[axis] = -1
    return Slot(holders[0], units.reshape(shape), role)


def _readers(module: nn.Module, layer: HiddenLayer, width: int) -> Iterator[tuple[Any, Reader]]:
    entries = [layer.readers] if isinstance(layer.readers, str | Reader) else layer.readers
    if not entries:
        raise UserError(
            got=f"{layer.feed!r} without readers",
            wanted="the layers that multiply the units' outputs",
            do="Name all of them: a reset sets their weights for the unit to 0.",
        )
    for entry in entries:
        reader = Reader(entry) if isinstance(entry, str) else entry
        for name in ("repeats", "tiles"):
            whole_number(name, getattr(reader, name), 1, do="Use 1, unless there is a flatten or CReLU in between.")
        found = _kernel_layer(module, reader.module)
        if found.weight.shape[1] != width * reader.repeats * reader.tiles:
            raise UserError(
                got=f"{reader.module!r} with {found.weight.shape[1]} inputs per output, for {width} units of "
                f"{layer.feed!r} × {reader.repeats} repeats × {reader.tiles} tiles",
                wanted="as many",
                do=f"Behind a flatten of (batch, {width}, H, W) it is Reader({reader.module!r}, repeats=H * W).",
            )
        yield found, reader


def _find(module: nn.Module, name: Any) -> nn.Module:
    known = dict(module.named_modules(remove_duplicate=False))
    if name not in known:
        raise unknown_name("module", str(name), known, do="Use a name of module.named_modules().")
    return known[name]


def _kernel_layer(module: nn.Module, name: str) -> Any:
    """The linear layer or convolution of that name, whose weight is a parameter of its own."""
    found = _find(module, name)
    if not isinstance(found, KERNEL_LAYERS) or getattr(found, "groups", 1) != 1:
        raise UserError(
            got=f"{name!r}, which is {found}",
            wanted="a linear layer or a convolution, without groups",
            do="Leave this hidden layer out.",
        )
    _own(name, found, ["weight"])
    return found


def _own(name: str, module: nn.Module | None, kinds: Sequence[str] = ("weight", "bias")) -> Mapping[str, Tensor]:
    """A module's weight and bias, those that it has.

    Raises:
      UserError: if one of them is no parameter of the module's own (pruned, normalised or parametrised) or has no shape
        yet.
    """
    found: dict[str, Tensor] = {}
    for kind in kinds:
        parameter = None if module is None else module._parameters.get(kind)
        if parameter is not None and is_lazy(parameter):
            raise UserError(
                got=f"{name!r}, a lazy module that is not initialized",
                wanted="weights that have a shape",
                do="Call the network on a batch first.",
            )
        if parameter is not None:
            found[kind] = parameter
        elif module and (parametrize.is_parametrized(module, kind) or getattr(module, kind, None) is not None):
            sources = [source for source, _ in module.named_parameters() if kind in source]
            raise UserError(
                got=f"{name!r}, whose {kind} is computed from {', '.join(sources) or 'something else'}",
                wanted=f"a {kind} that is a parameter of its own: a reset would write to the copy",
                do="Leave this hidden layer out, or make it a parameter, as torch.nn.utils.prune.remove, "
                "remove_weight_norm, remove_spectral_norm and parametrize.remove_parametrizations do.",
            )
    return found
