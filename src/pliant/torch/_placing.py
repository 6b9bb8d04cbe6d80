"""Finds declared hidden layers in a forward pass, and checks that they are as declared."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pliant.errors import UserError
from pliant.torch._calls import Call
from pliant.torch._info import Core
from pliant.torch._ownership import Ownership
from pliant.torch._replay import Again
from pliant.torch._slots import joined
from pliant.torch._units import num_outputs
from pliant.torch._verify import why_not
from pliant.torch._wiring import WiredLayer


class Returned(NamedTuple):
    """What a module returned."""

    operation: int
    """The number of the operation that made it."""
    shape: torch.Size
    labels: Tensor | None
    core: Core | None
    call: Call | None


class Returns:
    """Notes what chosen modules return in a forward pass that is followed."""

    def __init__(self, module: nn.Module, ownership: Ownership, names: Collection[str]):
        self.module, self.ownership = module, ownership
        self.found: dict[str, list[Returned]] = {name: [] for name in names}
        self.handles: list[Any] = []

    def __enter__(self) -> "Returns":
        for name in self.found:
            part = self.module.get_submodule(name)
            self.handles.append(part.register_forward_hook(lambda *call, name=name: self.note(name, call[-1])))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def note(self, name: str, output: Any) -> None:
        """Called after a module ran."""
        if isinstance(output, Tensor) and self.ownership.follower is not None:
            info = self.ownership.follower.info(output)
            number = self.ownership.made.get(output, -1)
            call = self.ownership.follower.calls.get(output)
            self.found[name].append(Returned(number, output.shape, info.labels, info.core, call))


class Placed(NamedTuple):
    """A declared layer in a forward pass."""

    layer: WiredLayer
    operation: int
    """The number of the one that makes the activation."""
    readers: Sequence[int]
    """The numbers of the products that read it."""
    core: Core | None


def place(layer: WiredLayer, returned: Sequence[Returned], ownership: Ownership) -> Placed:
    """Finds where a declared layer's activation and readers are.

    Raises:
      UserError: if a weight is not used exactly once, the activation is not called behind the feed, or its units cannot
        be told.
    """
    feed = _use(layer, layer.feeds[0].parameter, ownership)
    readers = [_use(layer, slot.parameter, ownership) for slot in layer.readers]
    seen = next((each for each in returned if each.operation >= feed), None)
    if seen is None:
        raise UserError(
            got=f"the activation {layer.activation!r} of {layer.name!r}, called {len(returned)} times, never behind it",
            wanted="the module that makes the units' outputs",
            do="Name the activation that comes right behind the layer and its norm.",
        )
    core = seen.core
    why = "" if core is None else "it mixes units" if core.activation == "maxmin" else core.why
    labels = seen.labels if seen.labels is not None else _labels(layer, seen.shape)
    if why or labels is None or len(torch.unique(labels)) != layer.width:
        raise UserError(
            got=f"outputs of shape {tuple(seen.shape)} behind {layer.name!r}" + (f": {why}" if why else ""),
            wanted=f"outputs of its {layer.width} units",
            do="Name the activation that comes right behind the layer and its norm.",
        )
    labels = torch.unique(labels.cpu(), return_inverse=True)[1]
    known = None if core is None else ownership.known.get(core)
    followed = (
        known.feeds if known is not None and layer.feeds[0].parameter in {s.parameter for s in known.feeds} else ()
    )
    found = layer._replace(
        feeds=joined([*followed, *layer.feeds]),
        outputs=num_outputs(labels),
        labels=labels,
        call=seen.call,
        is_mixed=known is not None and known.mixes,
        is_normed=core in ownership.normed,
    )
    return Placed(found, seen.operation, readers, core)


def require_true(placed: Placed, again: Again, params: Mapping[str, Tensor]) -> None:
    """Raises unless a declared layer passes the checks of those that are found.

    Raises:
      UserError: with what a perturbation shows.
    """
    layer = placed.layer
    why = why_not(again, params, [placed.operation], layer, placed.readers, may_return=True)
    if why:
        raise UserError(
            got=f"the declared hidden layer {layer.name!r}: {why}",
            wanted="units whose outputs reach the rest of the network by the declared readers alone",
            do="Name all layers that multiply the outputs, with repeats=H * W behind a flatten of (batch, channels, H, "
            "W), with tiles=H * W where channels are last. Otherwise leave this hidden layer out.",
        )


def _use(layer: WiredLayer, parameter: str, ownership: Ownership) -> int:
    """The number of the only operation that uses a parameter."""
    uses = ownership.uses.get(parameter, set())
    if len(uses) != 1:
        raise UserError(
            got=f"the hidden layer {layer.name!r}, whose {parameter} is used {len(uses)} times in a forward pass",
            wanted="weights that are used once: a reset would change the other uses too",
            do="Leave this hidden layer out.",
        )
    return next(iter(uses))


def _labels(layer: WiredLayer, shape: torch.Size) -> Tensor | None:
    """The units of an output that could not be followed: along the axis of the layer's own output."""
    num_axes = layer.feeds[0].units.ndim
    axis = -1 if num_axes == 2 else 1 - num_axes
    if len(shape) < -axis or shape[axis] != layer.width:
        return None
    sizes = [1] * len(shape)
    sizes[axis] = layer.width
    return torch.arange(layer.width).reshape(sizes)
