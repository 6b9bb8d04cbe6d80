"""Follows units and parameters through a program: which entries of a parameter feed, and which read, each unit."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from pliant.tracing._graph import Graph, Node
from pliant.tracing._labels import NONE, POINTWISE, PRODUCTS, Labels, along, blank, merged, moved
from pliant.tracing._units import Units

_SCALES = ("mul", "div")
Axes: TypeAlias = tuple[Labels, ...]
"""For each axis of a parameter, the index along it that an entry of a value comes from."""


class Held(NamedTuple):
    """What a value that does not depend on the data holds of a parameter."""

    axes: Axes
    is_direct: bool
    """Whether its entries are entries of the parameter."""


class Places(NamedTuple):
    """The unit that each index along one axis, or two, of a parameter belongs to; −1 for none."""

    axes: tuple[int, ...]
    units: Labels
    blocks: int = 1
    """Above 1, in how many blocks of equal units the first of two axes is divided, as by a convolution in groups."""


class Product(NamedTuple):
    """A product of data with a parameter."""

    leaf: int
    value: int
    """The result."""
    data: int
    """What the parameter is multiplied by; −1 for a lookup."""
    reads: Places | None
    """The units that it reads, None if none are known there, or if they lie along more than two axes."""
    feeds: Places | None
    """The units that it makes; None if they lie along more than two axes."""
    outputs: tuple[int, ...]
    """The axes of the parameter that index outputs."""
    is_direct: bool
    is_whole: bool
    """Whether the parameter holds this kernel only."""
    is_mapped: bool = False
    """Whether it is a product of its own for each index along an axis of the parameter, as of the members of an
    ensemble."""


class Beside(NamedTuple):
    """A parameter that is added to units, or multiplies them."""

    leaf: int
    value: int
    """The result."""
    data: int
    """The units before."""
    name: str
    """Of the operation."""
    feeds: Places | None
    """None if it does not belong to single units."""
    is_table: bool
    """Whether its entries differ along axes along which units do not, as of positions."""
    is_direct: bool = True


class Follower:
    """What is known of a program's values.

    Args:
      graph: of the program.
      parameters: its inputs that are parameters, in the order of the leaves.
      data: its inputs that are examples.
    """

    def __init__(self, graph: Graph, parameters: Sequence[int], data: Iterable[int]):
        self.graph, self.parameters = graph, list(parameters)
        self.data = graph.below(data)
        self.units = Units()
        self.labels: dict[int, Labels] = {}
        """By value that depends on the data, the unit of each entry."""
        self.held: dict[int, dict[int, Held]] = defaultdict(dict)
        """By value that does not, what it holds of parameters."""
        self.carried: dict[int, dict[int, Held]] = defaultdict(dict)
        """By value that depends on the data but has no units, such as 1/σ of a norm, the parameters that scale it."""
        self.products: list[Product] = []
        self.beside: list[Beside] = []
        self.sorted: set[int] = set()
        """What is the largest or the least of neighbouring units, as MaxMin makes; such units are one."""
        self.lost: dict[int, str] = {}
        """By parameter, the operation behind which it is not followed."""
        self.met: dict[int, str] = {}
        """By parameter, an operation with data that is neither a product nor elementwise."""
        self.ends: dict[int, str] = {}
        """By value, the operation behind which its units are not followed."""
        for leaf, value in enumerate(self.parameters):
            shape = graph.shape(value)
            axes = tuple(along(axis, np.arange(size), len(shape)) for axis, size in enumerate(shape))
            self.held[value][leaf] = Held(axes, is_direct=True)
        for node in graph.nodes:
            if any(value in self.data for value in node.inputs):
                self._with_data(node)
            elif any(value in self.held for value in node.inputs):
                self._of_parameters(node)

    def of(self, value: int) -> Labels:
        """The units of a value's entries."""
        found = self.labels.get(value)
        return blank(len(self.graph.shape(value))) if found is None else self.units.find(found)

    def unit_axes(self, value: int) -> tuple[int, ...]:
        """The axes of a value along which different units lie; not those of positions that have units of their own."""
        labels = self.of(value)
        axes = tuple(axis for axis in _varying(labels) if _tells_units(labels, axis))
        if not axes and (labels != NONE).any():
            return tuple(axis for axis, size in enumerate(self.graph.shape(value)) if size == 1)[-1:]
        rows = {axis: np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1) for axis in axes if len(axes) > 1}
        return tuple(axis for axis, own in rows.items() if len(np.unique(own, axis=0)) == len(own)) or axes

    def _with_data(self, node: Node) -> None:
        with_data = [place for place, value in enumerate(node.inputs) if value in self.data]
        held = [place for place, value in enumerate(node.inputs) if self.held.get(value) and value not in self.data]
        if node.name in PRODUCTS and len(with_data) == 1 and held:
            self._product(node, with_data[0], held[0])
        elif node.name == "gather" and held == [0]:
            self._lookup(node)
        else:
            for output, value in enumerate(node.outputs):
                self.labels[value] = self._combined(node, with_data, output)
            if node.name in (*PRODUCTS, "merge") and (self.labels[node.outputs[0]] == NONE).all():
                self._make_units(node, with_data)
            for place in held:
                self._met(node, place, self.held[node.inputs[place]])
            for place in with_data:
                if self.carried.get(node.inputs[place]):
                    self._carry(node, place)

    def _combined(self, node: Node, with_data: Sequence[int], output: int) -> Labels:
        num_axes = len(self.graph.shape(node.outputs[output]))
        found = blank(num_axes)
        is_concatenated = node.name in ("concatenate", "stack")
        for place in with_data:
            value = node.inputs[place]
            labels = self.of(value)
            if (labels == NONE).all():
                continue
            labels = self._with_neighbours(node, labels)
            own = self._summed(node, labels)
            own = moved(self.graph, node, place, labels, output) if own is None else own
            if own is None or ((own == NONE).all() and node.name not in ("reduce_sum", "dot_general")):
                self.ends.setdefault(value, node.name)
            own = blank(num_axes) if own is None else own
            if own.ndim != num_axes:  # a number
                continue
            found = merged(found, own) if is_concatenated else self.units.joined(found, own)
        return found

    def _make_units(self, node: Node, with_data: Sequence[int]) -> None:
        """New units, fed by no parameter: of a constant kernel, heads of attention weights, of one of two branches."""
        told: set[int] = set()
        if node.name == "merge":
            branches = [set(self.unit_axes(value)) for value in node.inputs[1:] if value in self.data]
            told = set.intersection(*branches) if branches else told
        elif len(with_data) == 1:
            self._read_and_made(node, with_data[0], 1 - with_data[0])
        elif node.name == "dot_general":
            for value, batched in zip(node.inputs[:2], node.params["dimension_numbers"][1], strict=True):
                told |= {place for place, axis in enumerate(batched) if axis in self.unit_axes(value)}
        if told:
            size = [n if axis in told else 1 for axis, n in enumerate(self.graph.shape(node.outputs[0]))]
            self.labels[node.outputs[0]] = self.units.new(int(np.prod(size))).reshape(size)

    def _with_neighbours(self, node: Node, labels: Labels) -> Labels:
        """The labels of what is sorted, or compared, in groups; units of a group become the same."""
        axes = tuple(node.params["axes"]) if node.name in ("reduce_max", "reduce_min") else ()
        axes = (node.params["dimension"],) if node.name == "sort" else axes
        if len(axes) != 1 or labels.shape[axes[0]] == 1:
            return labels
        rows = np.unique(np.moveaxis(labels, axes[0], -1).reshape(-1, labels.shape[axes[0]]), axis=0)
        if len(rows) > 1 and (rows != NONE).all():  # one row: not in groups, as of a softmax
            self.units.join_rows(rows)
            self.sorted |= set(node.outputs)
        return self.units.find(labels)

    def _summed(self, node: Node, labels: Labels) -> Labels | None:
        """The units of a sum of arrays that have been stacked: those that are added one to one are the same."""
        stack = self.graph.producer.get(node.inputs[0])
        if node.name != "reduce_sum" or stack is None or stack.name not in ("concatenate", "stack"):
            return None
        axis = stack.params.get("dimension", stack.params.get("axis"))
        if node.params["axes"] != (axis,) or labels.shape[axis] != len(stack.inputs):
            return None
        found = labels.take(0, axis)
        if found.size == 1:
            return None
        for i in range(1, labels.shape[axis]):
            found = self.units.joined(found, labels.take(i, axis))
        return self.units.find(found)

    def _of_parameters(self, node: Node) -> None:
        for output, value in enumerate(node.outputs):
            num_axes = len(self.graph.shape(value))
            sources = [place for place, each in enumerate(node.inputs) if self.held.get(each)]
            found: dict[int, Held] = {}
            for place in sources:
                for leaf, own in self.held[node.inputs[place]].items():
                    axes = [moved(self.graph, node, place, labels, output, is_kernel=True) for labels in own.axes]
                    if any(each is None or each.ndim != num_axes for each in axes):
                        if self.graph.shape(value) != self.graph.shape(node.inputs[place]):
                            self.lost.setdefault(leaf, node.name)
                        same = self.graph.shape(value) == self.graph.shape(node.inputs[place])
                        axes = list(own.axes) if same else [blank(num_axes)] * len(own.axes)
                    is_direct = own.is_direct and _keeps_entries(node)
                    now = Held(tuple(each for each in axes if each is not None), is_direct)
                    found[leaf] = _both(found[leaf], now) if leaf in found else now
            self.held[value] = found

    def _product(self, node: Node, data: int, kernel: int) -> None:
        value, operand = node.outputs[0], node.inputs[kernel]
        units, made, made_along = self._read_and_made(node, data, kernel)
        mapped = node.params["dimension_numbers"][1][kernel] if node.name == "dot_general" else ()
        for leaf, held in self.held[operand].items():
            axes = {axis: labels for axis, labels in enumerate(held.axes) if labels.size > 1}
            if not axes and len(self.held[operand]) > 1:  # a number that scales the kernel
                continue
            of_outputs = tuple(axis for axis, labels in axes.items() if _varies(labels, made_along))
            of_inputs = [axis for axis in axes if axis not in of_outputs]
            shape = self.graph.shape(self.parameters[leaf])
            outputs = of_outputs or tuple(axis for axis, length in enumerate(shape) if length == 1)[-1:]
            feeds = _places(held, outputs, made, shape)
            if not of_inputs and feeds is not None and len(self.held[operand]) > 1:
                self.beside.append(Beside(leaf, value, node.inputs[data], "kernel", feeds, is_table=False))
                continue
            seen = [axis for axis in axes if _varies(held.axes[axis], _varying(units))]
            if units.size == 1:  # a layer of one unit
                seen = [axis for axis, length in enumerate(shape) if length == 1 and axis not in outputs][:1]
            blocks = node.params.get("feature_group_count", 1)
            seen.sort(key=lambda axis: blocks > 1 and axis not in of_outputs)
            reads = _places(held, tuple(seen), units, shape, blocks) if (units != NONE).any() else None
            is_mapped = any(_varies(labels, mapped) for labels in held.axes)
            whole = _is_whole(held, shape)
            self.products.append(
                Product(leaf, value, node.inputs[data], reads, feeds, outputs, held.is_direct, whole, is_mapped)
            )

    def _read_and_made(self, node: Node, data: int, kernel: int) -> tuple[Labels, Labels, tuple[int, ...]]:
        """The unit that each entry of the kernel multiplies, the new unit that it makes, and the axes of these."""
        read, made_along = self._read(node, data, kernel)
        shape = self.graph.shape(node.inputs[kernel])
        size: list[int] = [length if axis in made_along else 1 for axis, length in enumerate(shape)]
        made = self.units.new(int(np.prod(size))).reshape(size)
        self.labels[node.outputs[0]] = self._made(node, kernel, made)
        return read, made, made_along

    def _read(self, node: Node, data: int, kernel: int) -> tuple[Labels, tuple[int, ...]]:
        """The unit that each entry of the kernel multiplies, and the kernel's axes that index outputs."""
        labels, num_axes = self.of(node.inputs[data]), len(self.graph.shape(node.inputs[kernel]))
        if node.name == "dot_general":
            contracted, batched = node.params["dimension_numbers"]
            known = list(zip((*contracted[data], *batched[data]), (*contracted[kernel], *batched[kernel]), strict=True))
            free = [axis for axis in range(num_axes) if axis not in contracted[kernel]]
            rest = [axis for axis in range(labels.ndim) if axis not in [own for own, _ in known]]
            labels = _same_along(labels, rest)
            found = labels.transpose([*(own for own, _ in known), *rest])
            found = found.reshape(found.shape[: len(known)])
            found = found.transpose(np.argsort([at for _, at in known]))
            lengths = dict(zip(sorted(at for _, at in known), found.shape, strict=True))
            return found.reshape([lengths.get(axis, 1) for axis in range(num_axes)]), tuple(free)
        numbers = node.params.get("dimension_numbers")
        if numbers is None:
            channel, kernel_in, kernel_out, groups = labels.ndim - 1, num_axes - 2, num_axes - 1, 1
        else:
            channel, (kernel_out, kernel_in) = numbers.lhs_spec[1], numbers.rhs_spec[:2]
            groups = node.params["feature_group_count"]
        of_channels = _same_along(labels, [axis for axis in range(labels.ndim) if axis != channel]).reshape(-1)
        if of_channels.size == 1 or groups == 1:
            return along(kernel_in, of_channels, num_axes), (kernel_out,)
        num_in, num_out = (self.graph.shape(node.inputs[kernel])[axis] for axis in (kernel_in, kernel_out))
        table = np.repeat(of_channels.reshape(groups, num_in), num_out // groups, axis=0)  # (out, in)
        shape = [1] * num_axes
        shape[kernel_in], shape[kernel_out] = num_in, num_out
        return (table.T if kernel_in < kernel_out else table).reshape(shape), (kernel_out,)

    def _made(self, node: Node, kernel: int, made: Labels) -> Labels:
        """The units of the product's entries."""
        num_axes = len(self.graph.shape(node.outputs[0]))
        if node.name == "dot_general":
            found = moved(self.graph, node, kernel, made)
            return blank(num_axes) if found is None else found
        numbers = node.params.get("dimension_numbers")
        return along(numbers.out_spec[1] if numbers else num_axes - 1, made.reshape(-1), num_axes)

    def _lookup(self, node: Node) -> None:
        """Rows of a table: its other axes make units."""
        value = node.outputs[0]
        for leaf, held in self.held[node.inputs[0]].items():
            shape = self.graph.shape(self.parameters[leaf])
            axes = [moved(self.graph, node, 0, labels) for labels in held.axes]
            kept = [axis for axis, labels in enumerate(axes) if labels is not None and labels.size > 1]
            feeds = None
            self.labels[value] = blank(len(self.graph.shape(value)))
            if len(kept) == 1:
                made = self.units.new(shape[kept[0]])
                found = axes[kept[0]]
                assert found is not None
                self.labels[value] = np.where(found == NONE, NONE, made[np.maximum(found, 0)])
                feeds = Places((kept[0],), made)
            self.products.append(Product(leaf, value, -1, None, feeds, tuple(kept), held.is_direct, is_whole=True))

    def _met(self, node: Node, place: int, holds: dict[int, Held]) -> None:
        """A parameter that meets data in an operation other than a product."""
        value = node.outputs[0]
        with_data = [each for each in node.inputs if each in self.data]
        data = next((each for each in with_data if (self.of(each) != NONE).any()), with_data[0])
        units, num_axes = self.of(value), len(self.graph.shape(value))
        for leaf, held in holds.items():
            if node.name not in POINTWISE and node.name != "concatenate":
                self.lost.setdefault(leaf, node.name)
                self.met.setdefault(leaf, node.name)
                continue
            found = [moved(self.graph, node, place, labels) for labels in held.axes]
            axes = [each if each is not None and each.ndim == num_axes else blank(num_axes) for each in found]
            along_units = _varying(units)
            seen = [axis for axis, labels in enumerate(axes) if _varies(labels, along_units)]
            now, shape = Held(tuple(axes), held.is_direct), self.graph.shape(self.parameters[leaf])
            if node.name in _SCALES and (units == NONE).all():
                self.carried[value][leaf] = now
            if node.name == "mul" and len(shape) == len(seen) == 1 and self._is_summed(value, along_units):
                line = _places(now, tuple(seen), units, shape)
                self.products.append(Product(leaf, value, data, line, None, (), held.is_direct, _is_whole(now, shape)))
                continue
            beyond = [axis for axis in along_units if not _tells_units(units, axis)]
            beyond += [axis for axis in range(num_axes) if axis not in along_units]
            is_table = any(_varies(labels, beyond) or (labels == NONE).all() for labels in axes)
            if units.size == 1 and shape and set(shape) == {1}:
                seen = [len(shape) - 1]
            feeds = _places(now, tuple(seen), units, shape) if _is_whole(now, shape) else None
            self.beside.append(Beside(leaf, value, data, node.name, feeds, is_table, held.is_direct))

    def _is_summed(self, value: int, axes: Sequence[int]) -> bool:
        """Whether all that reads a value sums it over the axes of its units."""
        readers = self.graph.readers[value]
        return bool(readers) and all(
            each.name == "reduce_sum" and tuple(each.params["axes"]) == tuple(axes) for each in readers
        )

    def _carry(self, node: Node, place: int) -> None:
        """Parameters in a value without units: on to the next one, or to the units that it scales."""
        holds, value = self.carried[node.inputs[place]], node.outputs[0]
        if node.name in _SCALES and (self.of(value) != NONE).any():
            self._met(node, place, holds)
        elif node.name in _SCALES or node.name not in POINTWISE or _keeps_entries(node):
            for leaf, held in holds.items():
                axes = [moved(self.graph, node, place, labels) for labels in held.axes]
                if all(each is not None for each in axes):
                    self.carried[value][leaf] = Held(tuple(each for each in axes if each is not None), held.is_direct)


def _is_whole(held: Held, shape: Sequence[int]) -> bool:
    """Whether all of a parameter is held, not one of several that are stacked in it."""
    return all(shape[axis] == len(np.unique(labels[labels != NONE])) for axis, labels in enumerate(held.axes))


def _keeps_entries(node: Node) -> bool:
    return node.name not in POINTWISE or node.name in ("convert_element_type", "copy", "copy_p", "stop_gradient")


def _both(first: Held, second: Held) -> Held:
    """Of two operands that hold one parameter: what either knows, unless they differ."""
    axes = []
    for a, b in zip(first.axes, second.axes, strict=True):
        a, b = np.broadcast_arrays(a, b)
        axes.append(np.where((a != NONE) & (b != NONE) & (a != b), NONE, merged(a, b)))
    return Held(tuple(axes), is_direct=False)


def _varying(labels: Labels) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def _varies(labels: Labels, over: Sequence[int]) -> bool:
    return any(labels.shape[axis] > 1 for axis in over)


def _tells_units(units: Labels, axis: int) -> bool:
    """Whether different units lie along an axis, not units beside entries that have none."""
    least = np.where(units == NONE, np.iinfo(units.dtype).max, units).min(axis)
    return bool(((units.max(axis) != NONE) & (least != units.max(axis))).any())


def _same_along(labels: Labels, axes: Sequence[int]) -> Labels:
    for axis in axes:
        first = labels.take([0], axis)
        labels = np.where((labels == first).all(axis, keepdims=True), first, NONE)
    return labels


def _places(held: Held, axes: tuple[int, ...], units: Labels, shape: Sequence[int], blocks: int = 1) -> Places | None:
    """The unit of each index along an axis of the parameter, or two, if each index has one unit."""
    if len(axes) not in (1, 2):
        return None
    *indices, labels = np.broadcast_arrays(*(held.axes[axis] for axis in axes), units)
    known = np.all([each != NONE for each in (*indices, labels)], axis=0)
    at, found = tuple(each[known] for each in indices), np.full([shape[axis] for axis in axes], NONE)
    found[at] = labels[known]
    return Places(axes, found, blocks) if (found[at] == labels[known]).all() else None
