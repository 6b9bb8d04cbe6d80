"""Checks by perturbation that a hidden layer's units are where they are declared to be, and nowhere else."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._hidden_layers import Layer

_SIZES = (100.0, 3.0)
"""A unit is set to these and their negatives: far apart for activations that saturate, or near for gates that do."""


class Place(NamedTuple):
    """Where a unit is in a tensor."""

    where: str
    """The activation or the reader that sees it."""
    axis: int
    tiles: int
    repeats: int


def require_units_in_place(module: nn.Module, layer: Layer, run: Callable[..., Any]) -> None:
    """Raises if a change of one unit shows in other places than those declared for the layer and its readers.

    What does not change passes. Norms and gates behind a
    unit may hide where it is, so a layer is refused only if two units, changed a lot and a little, all show elsewhere.
    While its readers give what they gave before the change, no other layer may see it, nor the network's output.

    Args:
      module: the network.
      layer: the layer.
      run: makes a forward pass, removes the hooks that it is given, and returns the output.

    Raises:
      UserError: see above.
    """
    misplaced: list[Place] = []
    others = dict(_others(module, layer))
    for unit, size in itertools.product((layer.width - 1, 0), _SIZES):
        see = functools.partial(_seen, layer, run, unit)
        above = see(size, others)
        below = see(-size, others, above.answers)
        misplaced = _misplaced(layer, unit, above, below)
        if not misplaced:
            functional = [reader for (reader, _), given in zip(layer.readers, above.answers, strict=True) if not given]
            known = _features(above)
            with _silent(functional):
                if functional:
                    above = see(size, others)
                    below = see(-size, others, above.answers)
                ways = _escapes(above, below, others)
                if ways:
                    known += _escapes(above, see(size, others, above.answers), others)
            _require_no_escape(layer, [way for way in ways if way not in known])
            return
    where, axis, tiles, repeats = misplaced[0]
    raise UserError(
        got=f"{where}, where a change of one unit of {layer.name!r} shows in other entries than its own",
        wanted=f"the units along axis {axis}, each {repeats} times in a row, {tiles} times over",
        do="Behind a flatten of (batch, channels, H, W) it is Reader(name, repeats=H * W), with channels last "
        "Reader(name, tiles=H * W). Otherwise leave this hidden layer out.",
    )


def _require_no_escape(layer: Layer, ways: Sequence[str]) -> None:
    """Raises if the unit reaches the output on a path around the readers."""
    if not ways:
        return
    readers = ", ".join(repr(name) for _, (name, _, _) in layer.readers)
    raise UserError(
        got=f"{ways[0]}, where a change of one unit of {layer.name!r} shows although "
        f"what {readers} gives does not change",
        wanted="all layers that multiply the units' outputs as its readers, and no skip connection around them",
        do="Add the others to the readers of this HiddenLayer. If they are no linear layers or convolutions, or none "
        "is there, leave this hidden layer out.",
    )


@contextlib.contextmanager
def _silent(readers: Sequence[Any]) -> Iterator[None]:
    """Sets the weights of readers that are not called as modules to 0, so that their outputs do not change either."""
    weights = [reader.weight.detach() for reader in readers]
    values = [weight.clone() for weight in weights]
    try:
        for weight in weights:
            weight.zero_()
        yield
    finally:
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


class _Seen(NamedTuple):
    """What a forward pass shows."""

    changed: list[Tensor]
    """The feed's output, with the unit set."""
    outputs: list[Tensor]
    """Of the activation."""
    reads: list[list[Tensor]]
    """What each reader is called with."""
    answers: list[list[Tensor]]
    """What each reader makes of it."""
    others: dict[str, list[Tensor]]
    """What the other layers are called with, in the order of their calls."""
    leaves: list[Tensor]
    """The network's output."""


def _seen(
    layer: Layer,
    run: Callable[..., Any],
    unit: int,
    value: float,
    others: Mapping[str, nn.Module],
    answers: Sequence[Sequence[Tensor]] = (),
) -> _Seen:
    """Makes a forward pass in which a unit is set to a value in front of its norm and activation.

    Args:
      layer: the layer.
      run: makes the pass.
      unit: the unit.
      value: its value.
      others: layers that are no readers.
      answers: what the readers are made to give.
    """
    seen = _Seen([], [], [[] for _ in layer.readers], [[] for _ in layer.readers], {}, [])

    def change(module: Any, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        changed = output.clone()
        changed.select(1 - layer.feed.weight.ndim, unit).fill_(value)
        seen.changed.append(changed.clone())
        return changed

    def observe(module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        seen.outputs.append(output.clone())

    def note(read: list[Tensor], module: Any, inputs: Any) -> None:
        del module
        read.extend(each.clone() for each in inputs[:1])

    def answer(given: list[Tensor], wanted: Iterator[Tensor], module: Any, inputs: Any, output: Tensor) -> Any:
        del module, inputs
        given.append(output.clone())
        return next((each.clone() for each in wanted), None)

    def note_other(name: str, module: Any, inputs: Any) -> None:
        note(seen.others.setdefault(name, []), module, inputs)

    hooks = [layer.feed.register_forward_hook(change), layer.activation.register_forward_hook(observe)]
    for i, (reader, _) in enumerate(layer.readers):
        hooks.append(reader.register_forward_pre_hook(functools.partial(note, seen.reads[i])))
        wanted = iter(answers[i] if answers else ())
        hooks.append(reader.register_forward_hook(functools.partial(answer, seen.answers[i], wanted)))
    for name, part in others.items():
        hooks.append(part.register_forward_pre_hook(functools.partial(note_other, name)))
    seen.leaves.extend(leaf for leaf in tree_leaves(run(hooks)) if isinstance(leaf, Tensor))
    return seen


def _misplaced(layer: Layer, unit: int, above: _Seen, below: _Seen) -> list[Place]:
    """The places where a change of a unit changes other entries than its own."""
    (output,), (other,) = above.outputs, below.outputs
    shape = above.changed[0].shape if above.changed else None
    places = [(Place("the activation", *layer.layout(output, shape)), output - other)]
    for (reader, (name, repeats, tiles)), first, second in zip(layer.readers, above.reads, below.reads, strict=True):
        place = Place(repr(name), 1 - reader.weight.ndim, tiles, repeats)
        places += [(place, a - b) for a, b in zip(first, second, strict=False)]
    return [place for place, difference in places if not _is_own(layer, unit, place, difference)]


def _escapes(above: _Seen, below: _Seen, others: Mapping[str, Any]) -> list[str]:
    """The layers, in the order of their calls, and outputs that show a difference."""
    ways = [
        repr(name)
        for name, inputs in above.others.items()
        if any(
            _singles_out(others[name], first, second)
            for first, second in zip(inputs, below.others.get(name, ()), strict=False)
        )
    ]
    for i, (first, second) in enumerate(zip(above.leaves, below.leaves, strict=False)):
        if _differs(first, second):
            ways.append(_leaf(i))
    return ways


def _features(seen: _Seen) -> list[str]:
    """The outputs that are the units' own values, which a network returns next to what it is trained for."""
    features = [*seen.changed, *seen.outputs, *itertools.chain(*seen.reads)]
    return [_leaf(i) for i, leaf in enumerate(seen.leaves) if any(_is_same(leaf, each) for each in features)]


def _leaf(i: int) -> str:
    return f"output {i} of the network"


def _others(module: nn.Module, layer: Layer) -> Iterator[tuple[str, nn.Module]]:
    """The layers that would mix units if they read them: not the layer itself and its readers, nor depthwise ones."""
    own = [layer.feed, *(reader for reader, _ in layer.readers)]
    for name, part in module.named_modules():
        is_mixing = isinstance(part, KERNEL_LAYERS) and getattr(part, "groups", 1) in range(1, part.weight.shape[1] + 1)
        if is_mixing and not any(part is each for each in own):
            yield name, part


def _singles_out(part: Any, first: Tensor, second: Tensor) -> bool:
    """Whether some inputs of a layer differ and others do not: where all differ, they are positions and not units."""
    axis = 1 - part.weight.ndim
    if first.shape != second.shape or not first.numel():
        return False
    change = (first - second).abs().float().movedim(axis, -1).reshape(-1, first.shape[axis]).mean(dim=0)
    return _differs(first, second) and bool(change.min() < 1e-3 * change.max())


def _differs(first: Tensor, second: Tensor) -> bool:
    """Whether values differ by more than numerical noise."""
    if first.shape != second.shape or not first.numel():
        return first.shape != second.shape
    first, second = (torch.nan_to_num(each.double()) for each in (first, second))
    return bool((first - second).abs().max() > 1e-5 * first.abs().max())


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Whether values are the same up to shape."""
    return first.numel() == second.numel() and torch.equal(first.flatten(), second.flatten().to(first.dtype))


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
