"""Finds hidden layers: units that one activation makes, and all products that read them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pliant.diagnostics.tracing import Graph
from pliant.inference._follow import Beside, Follower, Line, Product
from pliant.inference._labels import NONE, Labels
from pliant.inference._stages import Stage, Stages
from pliant.types import Slot

_STACKED = "not followed: {} holds several kernels, or its product does not take all of it: keep one array a kernel"


class Layer(NamedTuple):
    """A hidden layer."""

    stage: Stage
    feature: int
    """The value that is its feature: what the activation returns, or what the network returns of it."""
    axis: int
    """The feature's axis that its units index."""
    units: Labels
    """The units in the order of the feature."""
    outputs: int
    """Of each unit."""
    feeds: tuple[tuple[Slot, Product | Beside], ...]
    readers: tuple[tuple[Slot, Product], ...]


class Group(NamedTuple):
    """Units that the same products make, and what reads them."""

    units: Labels
    readers: tuple[Product, ...]


def find_layers(
    follower: Follower, stages: Stages, named: Mapping[int, str], outputs: Sequence[int], paths: Sequence[str]
) -> tuple[list[Layer], dict[str, str]]:
    """The hidden layers in the order of computation, and by kernel why others are none.

    Args:
      follower: what is known of the program.
      stages: its activations.
      named: the features that the network returns, by value.
      outputs: the network's outputs.
      paths: of the parameters.
    """
    layers: list[Layer] = []
    notes: dict[str, str] = {}
    of_outputs = np.concatenate([follower.of(value).reshape(-1) for value in outputs] or [np.zeros(0, int)])
    for group in _groups(follower):
        makers = [product for product in follower.products if _makes(follower, product, group.units)]
        found = _layer(follower, stages, named, group, paths, of_outputs)
        if isinstance(found, Layer):
            layers.append(found)
        else:
            notes |= {paths[maker.leaf]: found for maker in makers if maker.data != NONE}
    notes |= _unread(follower, paths, set(notes))
    layers.sort(key=lambda layer: follower.graph.position[layer.stage.value])
    return layers, notes


def _unread(follower: Follower, paths: Sequence[str], known: set[str]) -> dict[str, str]:
    """By kernel, behind which operation its units are not followed, if no product reads them."""
    notes = {}
    for product in follower.products:
        path, own = paths[product.leaf], follower.of(product.value)
        is_read = any(
            _contains(follower.of(other.data), own[own != NONE]) for other in follower.products if other.data != NONE
        )
        below = follower.graph.below([product.value])
        ends = [follower.ends[value] for value in sorted(below) if value in follower.ends]
        if product.data != NONE and not is_read and ends and path not in known:
            notes[path] = f"no hidden layer: {ends[0]} mixes its units, or is not followed"
    return notes


def _groups(follower: Follower) -> list[Group]:
    """Units that are made and read, put together where a product makes both or an activation's result has both."""
    find = follower.units.find
    made = [np.unique(find(p.feeds.units)) for p in follower.products if p.feeds is not None]
    groups: list[set[int]] = []
    for units in made:
        own = {int(unit) for unit in units} - {NONE}
        touching = [group for group in groups if group & own]
        groups = [group for group in groups if not group & own] + [own.union(*touching)]
    found = []
    for group in groups:
        units = np.array(sorted(group))
        readers = tuple(
            product
            for product in follower.products
            if product.data != NONE and _contains(follower.of(product.data), units)
        )
        if readers:
            found.append(Group(units, readers))
    return found


def _layer(
    follower: Follower,
    stages: Stages,
    named: Mapping[int, str],
    group: Group,
    paths: Sequence[str],
    of_outputs: Labels,
) -> Layer | str:
    found = [stages.before(reader.data, group.units) for reader in group.readers]
    reasons = [each for each in found if isinstance(each, str)]
    known = [each for each in found if isinstance(each, Stage)]
    if reasons:
        return f"no hidden layer: {reasons[0]}"
    values = {stage.value for stage in known}
    if len(values) > 1:
        return "no hidden layer: read behind several activations, as of a skip connection"
    if _contains(of_outputs, group.units):
        return "no hidden layer: its units are outputs"
    stage = known[0]
    feature = _feature(stage, known, named)
    placed = _placed(follower, feature, group.units)
    if isinstance(placed, str):
        return placed
    axis, units, outputs = placed
    readers: dict[Slot, Product] = {}
    for reader in group.readers:
        if not reader.is_whole:
            return _STACKED.format(paths[reader.leaf])
        slot = _slot(follower, reader.reads, units, paths[reader.leaf])
        if slot is None:
            return f"not followed: which entries of {paths[reader.leaf]} read its units is not along one axis"
        readers.setdefault(slot, reader)
    feeds: list[tuple[Slot, Product | Beside]] = []
    seen = set()
    makers: list[Product | Beside] = [*follower.products, *follower.beside]
    for maker in makers:
        if isinstance(maker, Product) and maker.feeds is None and _contains(follower.of(maker.value), units):
            return f"not followed: the outputs of {paths[maker.leaf]} lie along several axes {maker.outputs}"
        if maker.feeds is None or not _makes(follower, maker, units):
            continue
        if isinstance(maker, Product) and not maker.is_whole:
            return _STACKED.format(paths[maker.leaf])
        slot = _slot(follower, maker.feeds, units, paths[maker.leaf])
        if slot is None:
            return f"not followed: {paths[maker.leaf]} makes a part of its units"
        if slot not in seen:
            feeds.append((slot, maker))
            seen.add(slot)
    return Layer(stage, feature, axis, units, outputs, tuple(feeds), tuple(readers.items()))


def _feature(stage: Stage, known: Iterable[Stage], named: Mapping[int, str]) -> int:
    """What the network returns on the way from the activation to all that reads it, if anything."""
    for value in reversed(stage.seen):
        if value in named and all(value in each.seen for each in known):
            return value
    return stage.value


def _placed(follower: Follower, feature: int, units: Labels) -> tuple[int, Labels, int] | str:
    labels = follower.of(feature)
    own = labels[labels != NONE]
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    shape = follower.graph.shape(feature)
    if len(axes) > 1:
        return f"not followed: its units lie along several axes of {shape}"
    if not axes:
        axes = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0][-1:]
    if not axes or set(own.tolist()) != set(units.tolist()):
        return f"not followed: beside others in an activation of shape {shape}"
    line = labels.reshape(-1)
    ordered = np.array(list(dict.fromkeys(line.tolist())))
    if len(line) % len(ordered) or (line != np.tile(ordered, len(line) // len(ordered))).any():
        return "not followed: its outputs are not in the order of its units"
    axis = -1 if axes[0] == len(shape) - 1 else axes[0]
    return axis, ordered, len(line) // len(ordered)


def _slot(follower: Follower, line: Line | None, units: Labels, path: str) -> Slot | None:
    """How units lie along an axis of a parameter; None if not in tiles."""
    if line is None:
        return None
    found = follower.units.find(line.units)
    if not np.isin(found, units).all() or len(found) % len(units):
        return None
    order = {int(unit): place for place, unit in enumerate(units)}
    places = np.array([order[int(unit)] for unit in found])
    repeats = int(np.argmax(places != places[0])) if len(units) > 1 else 1
    if repeats == 0 or len(found) % (repeats * len(units)):
        return None
    tiles = len(found) // (repeats * len(units))
    if (places != np.tile(np.repeat(np.arange(len(units)), repeats), tiles)).any():
        return None
    return Slot(path, line.axis, tiles, repeats)


def _makes(follower: Follower, maker: Product | Beside, units: Labels) -> bool:
    return maker.feeds is not None and _contains(follower.units.find(maker.feeds.units), units)


def _contains(labels: Labels, units: Labels) -> bool:
    return bool(np.isin(labels[labels != NONE], units).any())


def terminal(graph: Graph, products: Sequence[Product]) -> list[Product]:
    """The products that no other product reads."""
    above = graph.above(product.data for product in products if product.data != NONE)
    return [product for product in products if product.value not in above]
