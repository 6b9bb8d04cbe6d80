"""Whether a hidden layer's units are where they are declared to be, found out by changing one of them."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pliant.errors import UserError
from pliant.torch._hidden_layers import Layer

_SIZES = (100.0, 3.0)
"""A unit is set to these and their negatives: far apart for activations that saturate, or near for gates that do."""


class Place(NamedTuple):
    """Where a unit is to be found."""

    where: str
    """The activation or the reader that sees it."""
    axis: int
    tiles: int
    repeats: int


def require_units_in_place(layer: Layer, run: Callable[[Sequence[Any]], None]) -> None:
    """Raises if a change of one unit shows elsewhere than where the layer is scored and where its readers find it.

    What does not change, or is not seen because a reader is not called as a module, passes. Norms and gates behind a
    unit may hide where it is, so a layer is refused only if two units, changed a lot and a little, all show elsewhere.

    Args:
      layer: the layer.
      run: makes a forward pass, and removes the hooks that it is given.

    Raises:
      UserError: see above.
    """
    misplaced: list[Place] = []
    for unit, size in itertools.product((layer.width - 1, 0), _SIZES):
        misplaced = _misplaced(layer, run, unit, size)
        if not misplaced:
            return
    where, axis, tiles, repeats = misplaced[0]
    raise UserError(
        got=f"{where}, where a change of one unit of {layer.name!r} shows in other entries than its own",
        wanted=f"the units along axis {axis}, each {repeats} times in a row, {tiles} times over",
        do="Behind a flatten of (batch, channels, H, W) it is Reader(name, repeats=H * W), with channels last "
        "Reader(name, tiles=H * W). Otherwise leave this hidden layer out.",
    )


def _misplaced(layer: Layer, run: Callable[[Sequence[Any]], None], unit: int, size: float) -> list[Place]:
    """The places where setting a unit to `size` instead of `-size` changes other entries than its own."""
    above, below = (_seen(layer, run, unit, value) for value in (size, -size))
    (output,), (other,) = above.outputs, below.outputs
    activation = Place("the activation", *layer.layout(output, above.shape))
    places = [(activation, output - other)]
    for (reader, (name, repeats, tiles)), first, second in zip(layer.readers, above.reads, below.reads, strict=True):
        place = Place(repr(name), 1 - reader.weight.ndim, tiles, repeats)
        places += [(place, a - b) for a, b in zip(first, second, strict=False)]
    return [place for place, difference in places if not _is_own(layer, unit, place, difference)]


class _Seen(NamedTuple):
    """What a forward pass shows."""

    shape: torch.Size | None
    """Of the feed's output."""
    outputs: list[Tensor]
    """Of the activation."""
    reads: list[list[Tensor]]
    """What each reader is called with."""


def _seen(layer: Layer, run: Callable[[Sequence[Any]], None], unit: int, value: float) -> _Seen:
    """Makes a forward pass in which a unit is set to a value in front of its norm and activation."""
    shapes: list[torch.Size] = []
    outputs: list[Tensor] = []
    reads: list[list[Tensor]] = [[] for _ in layer.readers]

    def change(module: Any, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        shapes.append(output.shape)
        changed = output.clone()
        changed.select(1 - layer.feed.weight.ndim, unit).fill_(value)
        return changed

    def observe(module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        outputs.append(output.clone())

    def note(read: list[Tensor], module: Any, inputs: Any) -> None:
        del module
        read.extend(each.clone() for each in inputs[:1])

    hooks = [layer.feed.register_forward_hook(change), layer.activation.register_forward_hook(observe)]
    for (reader, _), read in zip(layer.readers, reads, strict=True):
        hooks.append(reader.register_forward_pre_hook(functools.partial(note, read)))
    run(hooks)
    return _Seen(shapes[0] if shapes else None, outputs, reads)


def _is_own(layer: Layer, unit: int, place: Place, difference: Tensor) -> bool:
    """Whether a difference is the unit's own, as far as can be told."""
    change = difference.abs().float().movedim(place.axis, -1).reshape(-1, difference.shape[place.axis]).mean(dim=0)
    is_unit = torch.arange(layer.width, device=change.device) == unit
    own = is_unit.repeat_interleave(place.repeats).tile(place.tiles)
    changed = change > 1e-3 * change.max()
    is_elsewhere = bool((changed & ~own).any()) and not bool(changed[own].all())
    # Norms let a unit change the others too, but not as much. Where all change alike, this is another axis.
    is_even = layer.width > 2 and bool(change.max() < 1.2 * change.min())
    return not (is_elsewhere or is_even)
