"""Finds hidden layers: units that one activation makes, and all products that read them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pliant.inference._stages import Stage, Stages
from pliant.tracing import NONE, Beside, Follower, Graph, Labels, Places, Product
from pliant.types import Slot

DECLARE = "state it in wiring=Wiring((HiddenLayer(...),), {}) and return its activations as a feature"
_STACKED = "not followed: {} holds several kernels, or its product does not take all of it; keep one array a kernel"
_SEVERAL = "not followed: units lie along more than two axes of {}; use a kernel for each of them"
_PARTLY = "not followed: {} has other units beside them along axis {}, as behind concatenate; use a kernel for each"
_AGAIN = (
    "not followed: {} is used again elsewhere, as in a recurrence or with tied weights, so its units are not those of "
    "one layer; give each layer its own"
)
_LOOP = "not followed: made in a loop of more than 64 iterations, or of a number that is computed; infer with fewer"
_SKIPPED = "no hidden layer: read behind several activations, as of a skip connection or a recurrence"
_PSEUDO = {"merge": "cond", "slice_of": "scan", "stack_of": "scan"} | dict.fromkeys(("loop", "loop_end"), "a loop")
"""What the graph calls the parts of branches and loops."""


class Layer(NamedTuple):
    """A hidden layer."""

    stage: Stage
    feature: int
    """The value that is its feature: what the activation returns, or what the network returns of it."""
    place: Slot
    """Where in the feature its units are."""
    units: Labels
    """The units in the order of the feature."""
    outputs: int
    """Of each unit."""
    together: int
    """How many neighbours are sorted together, and no output is one unit's: 2 for MaxMin, 1 for others."""
    feeds: tuple[tuple[Slot, Product | Beside], ...]
    readers: tuple[tuple[Slot, Product], ...]
    again: tuple["Layer", ...] = ()
    """The same layer on other inputs, as of two towers that share all parameters: same feeds, same readers."""

    @property
    def uses(self) -> tuple["Layer", ...]:
        """The layer wherever it is used."""
        return (self, *self.again)


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
    used: dict[Any, list[Layer]] = {}
    loops = {node.scope for node in follower.graph.nodes if node.name in ("loop", "slice_of", "stack_of")}
    for group in _groups(follower):
        makers = [product for product in follower.products if _makes(follower, product, group.units)]
        is_in_loop = any(follower.graph.producer[maker.value].scope in loops for maker in makers)
        found = _LOOP if is_in_loop else _layer(follower, stages, named, group, paths, of_outputs)
        if isinstance(found, Layer):
            slots = (frozenset(slot for slot, _ in each) for each in (found.feeds, found.readers))
            used.setdefault((*slots, found.outputs, found.together), []).append(found)
        else:
            notes |= _noted(follower, group.units, paths, found)
    for uses in used.values():
        uses.sort(key=lambda layer: follower.graph.position[layer.stage.value])
        layer = uses[0]._replace(again=tuple(uses[1:]))
        if (again := _used_again(follower, layer)) is not None:
            units = np.concatenate([each.units for each in uses])
            notes = _noted(follower, units, paths, _AGAIN.format(paths[again])) | notes
        else:
            layers.append(layer)
    layers.sort(key=lambda layer: follower.graph.position[layer.stage.value])
    return layers, notes


def _noted(follower: Follower, units: Labels, paths: Sequence[str], note: str) -> dict[str, str]:
    """A note for the kernels that make units."""
    makers = [product for product in follower.products if _makes(follower, product, units)]
    return {paths[maker.leaf]: note for maker in makers if maker.data != NONE}


def why_unread(follower: Follower, leaf: int) -> str:
    """Why the units that a kernel makes are no hidden layer's, if no product is found to read them."""
    own = [product for product in follower.products if product.leaf == leaf]
    if not own:
        name = follower.lost.get(leaf, "no product")
        return f"not followed behind {shown(name)}; {DECLARE}"
    if any(len(product.outputs) > 2 for product in own):
        return f"no hidden layer: its outputs lie along several axes {own[0].outputs}; if they are one, {DECLARE}"
    below = follower.graph.below([product.value for product in own])
    ends = [follower.ends[value] for value in sorted(below) if value in follower.ends]
    if ends:
        return f"no hidden layer: {shown(ends[0])} mixes its units, or is not followed; if it is one, {DECLARE}"
    return "no hidden layer: no product with a kernel of its own reads its units behind an activation"


def shown(name: str) -> str:
    """What an operation of the graph is called in JAX.

    Example:
      >>> shown("merge"), shown("fft")
      ('cond', 'fft')
    """
    return _PSEUDO.get(name, name)


def _used_again(follower: Follower, layer: Layer) -> int | None:
    """A parameter of a layer that also makes, or reads, units of others; changing one would change them as well."""
    of_layer = {use.leaf for _, use in (*layer.feeds, *layer.readers)}
    fed = {use.leaf for _, use in layer.feeds}
    units = np.concatenate([each.units for each in layer.uses])
    for product in follower.products:
        makes, reads = _makes(follower, product, units), False
        if product.data != NONE:
            reads = _contains(follower.of(product.data), units)
        if product.leaf in of_layer and (makes != (product.leaf in fed) or not (makes or reads)):
            return product.leaf
    for use in follower.beside:
        if use.leaf in fed and use.feeds is not None and not _makes(follower, use, units):
            return use.leaf
    return None


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
    if len({stage.value for stage in known}) > 1:
        first = min(known, key=lambda stage: follower.graph.position[stage.value])
        if not all(stages.is_carried(reader.data, first.value, group.units) for reader in group.readers):
            return _SKIPPED
        known = [first._replace(seen=(first.value,))]
    if _contains(of_outputs, group.units):
        return "no hidden layer: its units are outputs"
    stage = known[0]
    feature = _feature(stage, known, named)
    placed = _placed(follower, feature, group.units)
    if isinstance(placed, str):
        return f"{placed}; {DECLARE}"
    place, units = placed
    outputs, together = place.tiles, place.repeats
    readers = _readers(follower, group, units, paths)
    feeds = _feeds(follower, units, paths)
    if isinstance(readers, str) or isinstance(feeds, str):
        return readers if isinstance(readers, str) else str(feeds)
    if together > 1:
        feeds = tuple((slot._replace(repeats=slot.repeats // together), use) for slot, use in feeds)
        readers = tuple((slot._replace(repeats=slot.repeats // together), use) for slot, use in readers)
    return Layer(stage, feature, place, units, outputs, together, feeds, readers)


def _readers(
    follower: Follower, group: Group, units: Labels, paths: Sequence[str]
) -> tuple[tuple[Slot, Product], ...] | str:
    found: dict[Slot, Product] = {}
    for reader in group.readers:
        if not reader.is_whole:
            return _STACKED.format(paths[reader.leaf])
        slot = _slot(follower, reader.reads, units, paths[reader.leaf])
        if isinstance(slot, str):
            return slot
        found.setdefault(slot, reader)
    return tuple(found.items())


def _feeds(follower: Follower, units: Labels, paths: Sequence[str]) -> tuple[tuple[Slot, Product | Beside], ...] | str:
    found: dict[Slot, Product | Beside] = {}
    makers: list[Product | Beside] = [*follower.products, *follower.beside]
    for maker in makers:
        path = paths[maker.leaf]
        if maker.feeds is None:
            if isinstance(maker, Product) and maker.outputs and _contains(follower.of(maker.value), units):
                return _SEVERAL.format(path)
            continue
        if not _makes(follower, maker, units):
            continue
        if isinstance(maker, Product) and not maker.is_whole:
            return _STACKED.format(path)
        slot = _slot(follower, maker.feeds, units, path)
        if isinstance(slot, str):
            return slot
        found.setdefault(slot, maker)
    return tuple(found.items())


def _feature(stage: Stage, known: Iterable[Stage], named: Mapping[int, str]) -> int:
    """What the network returns on the way from the activation to all that reads it, if anything."""
    for value in reversed(stage.seen):
        if value in named and all(value in each.seen for each in known):
            return value
    return stage.value


def _placed(follower: Follower, feature: int, units: Labels) -> tuple[Slot, Labels] | str:
    """Where in a feature its units are, their outputs as tiles, and the units in that order."""
    labels = follower.of(feature)
    own = labels[labels != NONE]
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    shape = follower.graph.shape(feature)
    if not axes:
        axes = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0][-1:]
    if not axes or set(own.tolist()) != set(units.tolist()):
        return f"not followed: beside others in an activation of shape {shape}"
    line = labels.reshape(-1)
    ordered = np.array(list(dict.fromkeys(line.tolist())))
    number = len(line) // len(ordered)
    if len(axes) > 2 or (len(axes) == 2 and number > 1):
        return f"not followed: its units lie along several axes of {shape}"
    is_sorted = bool(follower.sorted & follower.graph.above([feature]))
    is_repeated = is_sorted and number > 1 and np.array_equal(line, np.repeat(ordered, number))
    if not is_repeated and not np.array_equal(line, np.tile(ordered, number)):
        return "not followed: its outputs are not in the order of its units"
    tiles, repeats = (1, number) if is_repeated else (number, 1)
    axis = -1 if axes[-1] == len(shape) - 1 else axes[-1]
    if len(axes) == 1:
        return Slot("", axis, tiles, repeats), ordered
    return Slot("", axis, tiles, repeats, groups=shape[axes[0]], across=axes[0]), ordered


def _slot(follower: Follower, places: Places | None, units: Labels, path: str) -> Slot | str:
    """How units lie along an axis of a parameter, or two; or why that is no slot."""
    if places is None:
        return _SEVERAL.format(path)
    found = follower.units.find(places.units)
    if not np.isin(found, units).all() or found.size % len(units):
        return _PARTLY.format(path, *places.axes[-1:])
    order = {int(unit): place for place, unit in enumerate(units)}
    own = np.array([order[int(unit)] for unit in found.reshape(-1)]).reshape(found.shape)
    if own.ndim == 1:
        slots = [(Slot(path, *places.axes), own)]
    else:
        (first, second), blocks = places.axes, places.blocks
        slots = [(Slot(path, second, groups=blocks if blocks > 1 else len(own), across=first), own)]
        slots += [(Slot(path, first, groups=own.shape[1], across=second), own.T)] if blocks == 1 else []
    for slot, table in slots:
        line, length = table.reshape(-1), len(table) // slot.groups
        if slot.groups > 1:
            line = table[::length].reshape(-1)
            if (np.repeat(table[::length], length, axis=0) != table).any():
                continue
        repeats = int(np.argmax(line != line[0])) if len(units) > 1 else 1
        tiles = line.size // max(repeats * len(units), 1)
        if np.array_equal(np.tile(np.repeat(np.arange(len(units)), repeats), tiles), line):
            return slot._replace(tiles=tiles, repeats=repeats)
    return f"not followed: units are not in one order along axis {', '.join(map(str, places.axes))} of {path}"


def _makes(follower: Follower, maker: Product | Beside, units: Labels) -> bool:
    return maker.feeds is not None and _contains(follower.units.find(maker.feeds.units), units)


def _contains(labels: Labels, units: Labels) -> bool:
    return bool(np.isin(labels[labels != NONE], units).any())


def terminal(graph: Graph, products: Sequence[Product]) -> list[Product]:
    """The products that no other product reads."""
    above = graph.above(product.data for product in products if product.data != NONE)
    return [product for product in products if product.value not in above]
