"""Follows which axes of values index units, and which axes of parameters index outputs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from pliant.diagnostics.tracing._graph import Graph, Node

Axes: TypeAlias = frozenset[int]
_REDUCTIONS = ("reduce_", "argm")
_SAME_AXES = ("slice", "dynamic_", "pad", "rev", "sort", "cum", "reduce_window", "select_and", "concatenate", "split")
_PRODUCTS = ("dot_general", "conv_general_dilated", "pliant_convolution")
_NO_PRODUCTS = ("loop", "loop_end", "merge", "slice_of", "stack", "concatenate", "select", "dynamic_update", "scatter")


class Use(NamedTuple):
    """A product that reads a parameter."""

    leaf: int
    """Which parameter."""
    product: int
    """The value of the product."""
    outputs: tuple[int, ...] | None
    """The axes of the leaf that index the product's outputs; None if that cannot be followed."""
    is_stack: bool = False
    """Whether the leaf holds several kernels."""


class Followed(NamedTuple):
    """What `follow` finds."""

    units: dict[int, Axes]
    """By value, the axes that index units; those of a value that is not there are not known."""
    layers: dict[int, Axes]
    """The axes along which a loop over layers has put their values together."""
    uses: list[Use]
    products: list[Node]
    """Products of what is computed from the inputs with what is not."""
    embeddings: set[int]
    """Parameters from which rows are read."""
    unfollowed: dict[int, str]
    """Parameters that something reads which is not known here, and what that is."""


def follow(graph: Graph, parameters: Sequence[int], data: Iterable[int]) -> Followed:
    """Follows units from the products that compute them, and parameters to the products that read them.

    Args:
      graph: of a program.
      parameters: its inputs that are parameters, in the order of the leaves.
      data: its inputs that are examples.
    """
    return _Follower(graph, parameters, data).run()


class _Follower:
    def __init__(self, graph: Graph, parameters: Sequence[int], data: Iterable[int]):
        self.graph, self.parameters = graph, parameters
        self.data = graph.below(data)
        self.found = Followed({}, {}, [], [], set(), {})
        self.leaves: dict[int, dict[int, tuple[Axes, ...] | None]] = defaultdict(dict)
        """By value that does not depend on the data: the parameters in it, and of which of their axes each of its axes
        consists."""
        for leaf, value in enumerate(parameters):
            self.leaves[value][leaf] = tuple(frozenset({axis}) for axis in range(len(graph.shape(value))))

    def run(self) -> Followed:
        for node in self.graph.nodes:
            if any(value in self.data for value in node.inputs):
                self._with_data(node)
            else:
                self._of_parameters(node)
        return self.found

    def _with_data(self, node: Node) -> None:
        operand = next(value for value in node.inputs if value in self.data)
        if node.name in _PRODUCTS:
            self._product(node)
        elif node.name == "gather" and node.inputs[0] not in self.data:
            self.found.embeddings.update(self.leaves.get(node.inputs[0], {}))
            self._know(node, node.params["dimension_numbers"].offset_dims)
        else:
            self._parameters_beside_data(node)
            for value in node.outputs:
                origins = origins_of(self.graph, node, operand, value)
                for facts in (self.found.units, self.found.layers):
                    axes = self._through(facts, node, operand, value, origins)
                    if axes is not None:
                        facts[value] = axes
            if node.name == "stack_of" and not any(each in self.data for each in node.inputs[1:]):
                self.found.layers[node.outputs[0]] = self.found.layers.get(node.outputs[0], frozenset()) | {0}

    def _through(
        self, facts: dict[int, Axes], node: Node, operand: int, value: int, origins: tuple[Axes, ...] | None
    ) -> Axes | None:
        """The axes of an output that consist of axes of that kind only."""
        if origins is not None:
            if operand not in facts:
                return None
            return frozenset(axis for axis, from_ in enumerate(origins) if from_ and from_ <= facts[operand])
        shape = self.graph.shape(value)
        known = [
            facts[each] for each in node.inputs if each in facts and facts[each] and fits(self.graph.shape(each), shape)
        ]
        return frozenset.intersection(*known) or None if known else None

    def _product(self, node: Node) -> None:
        left, right = node.inputs[:2]
        if left in self.data and right in self.data:
            self._know(node, self._kept_units(node))
            return
        units, roles = self._dot(node) if node.name == "dot_general" else self._convolution(node)
        self._know(node, units)
        self.found.products.append(node)
        kernel = 1 if left in self.data else 0
        self._use(node.inputs[kernel], roles[kernel], node.outputs[0])

    def _convolution(self, node: Node) -> tuple[Axes, tuple[list[str], list[str]]]:
        """Channels of the result, and what each axis of the kernel is; ours have the last axis for both."""
        shapes = [self.graph.shape(value) for value in (*node.inputs[:2], *node.outputs)]
        numbers = node.params.get("dimension_numbers")
        kernel, channels = (
            (numbers.rhs_spec[0], numbers.out_spec[1]) if numbers else (len(shapes[1]) - 1, len(shapes[2]) - 1)
        )
        of_kernel = ["out" if axis == kernel else "in" for axis in range(len(shapes[1]))]
        return frozenset({channels}), (["in"] * len(shapes[0]), of_kernel)

    def _dot(self, node: Node) -> tuple[Axes, tuple[list[str], list[str]]]:
        """Axes of the result that come from the operand without data, and what each axis of both operands is."""
        (contracted, batched) = node.params["dimension_numbers"]
        roles, free = [], []
        for place, value in enumerate(node.inputs[:2]):
            own = dict.fromkeys(contracted[place], "in") | dict.fromkeys(batched[place], "stack")
            roles.append([own.get(axis, "out") for axis in range(len(self.graph.shape(value)))])
            free.append(roles[-1].count("out"))
        num_batched = len(batched[0])
        first = num_batched if node.inputs[0] not in self.data else num_batched + free[0]
        width = free[0] if node.inputs[0] not in self.data else free[1]
        return frozenset({*range(num_batched), *range(first, first + width)}), (roles[0], roles[1])

    def _kept_units(self, node: Node) -> Axes:
        """Of a product of two values that depend on the data, such as attention's."""
        if node.name != "dot_general":
            return frozenset()
        (contracted, batched) = node.params["dimension_numbers"]
        kept, place = set(), len(batched[0])
        for side, value in enumerate(node.inputs[:2]):
            units = self.found.units.get(value, frozenset())
            kept |= {axis for axis, own in enumerate(batched[side]) if own in units}
            for own in range(len(self.graph.shape(value))):
                if own not in contracted[side] and own not in batched[side]:
                    kept |= {place} if own in units else set()
                    place += 1
        return frozenset(kept)

    def _parameters_beside_data(self, node: Node) -> None:
        """What is added to, or scales, every example is no kernel; what else reads a parameter is not known here."""
        shape = self.graph.shape(node.outputs[0])
        is_summed = node.name == "mul" and any(
            each.name == "reduce_sum" for each in self.graph.readers[node.outputs[0]]
        )
        for operand in node.inputs:
            is_elementwise = fits(self.graph.shape(operand), shape) or node.name.startswith(_NO_PRODUCTS)
            is_product = is_summed and sum(size > 1 for size in self.graph.shape(operand)) > 1
            for leaf, axes in self.leaves.get(operand, {}).items():
                if axes is not None and (is_product or not is_elementwise):
                    self.found.unfollowed.setdefault(leaf, node.name)

    def _of_parameters(self, node: Node) -> None:
        if node.name == "dot_general" and any(self.leaves.get(value) for value in node.inputs[:2]):
            _, roles = self._dot(node)
            for value, own in zip(node.inputs[:2], roles, strict=True):
                self._use(value, own, node.outputs[0])
            together = {leaf for value in node.inputs for leaf in self.leaves.get(value, {})}
            self.leaves[node.outputs[0]] |= dict.fromkeys(together)
            return
        for value in node.outputs:
            for operand in node.inputs:
                for leaf, axes in self.leaves.get(operand, {}).items():
                    moved = self._moved(node, operand, value, axes)
                    if moved is not None or leaf not in self.leaves[value]:
                        self.leaves[value][leaf] = moved

    def _moved(self, node: Node, operand: int, value: int, axes: tuple[Axes, ...] | None) -> tuple[Axes, ...] | None:
        if axes is None:
            return None
        origins = origins_of(self.graph, node, operand, value)
        if origins is None and self.graph.shape(operand) == self.graph.shape(value):
            return axes
        if origins is None or node.name.startswith(_REDUCTIONS):
            return None
        return tuple(frozenset().union(*(axes[axis] for axis in from_)) for from_ in origins)

    def _use(self, kernel: int, roles: Sequence[str], product: int) -> None:
        for leaf, axes in self.leaves.get(kernel, {}).items():
            if axes is None:
                continue
            shape = self.graph.shape(self.parameters[leaf])
            found: dict[int, set[str]] = {axis: set() for axis in range(len(shape))}
            for own, role in zip(axes, roles, strict=True):
                for axis in own:
                    found[axis].add(role)
            long = {axis: own or {"stack"} for axis, own in found.items() if shape[axis] != 1}
            outputs = tuple(axis for axis, own in long.items() if own == {"out"})
            outputs = outputs or tuple(axis for axis in found if axis not in long)[-1:]
            is_known = bool(outputs) and all(len(own) == 1 for own in long.values())
            is_stack = any("stack" in own for own in long.values())
            self.found.uses.append(Use(leaf, product, outputs if is_known and not is_stack else None, is_stack))

    def _know(self, node: Node, axes: Iterable[int]) -> None:
        self.found.units[node.outputs[0]] = frozenset(axes)


def origins_of(graph: Graph, node: Node, operand: int, value: int) -> tuple[Axes, ...] | None:
    """The axes of its operand that make up each axis of an output; None if unknown for this kind of node."""
    old, new, params = graph.shape(operand), graph.shape(value), node.params
    same = tuple(frozenset({axis}) for axis in range(len(old)))
    if node.name == "transpose":
        return tuple(same[axis] for axis in params["permutation"])
    if node.name == "reshape":
        return regrouped(old, new)
    if node.name == "squeeze":
        return tuple(each for axis, each in enumerate(same) if axis not in params["dimensions"])
    if node.name == "expand_dims":
        rest = iter(same)
        return tuple(frozenset() if axis in params["dimensions"] else next(rest) for axis in range(len(new)))
    if node.name == "broadcast_in_dim":
        to = {int(at): axis for axis, at in enumerate(params["broadcast_dimensions"])}
        return tuple(same[to[axis]] if axis in to else frozenset() for axis in range(len(new)))
    if node.name == "slice_of":
        return same[1:] if len(new) < len(old) else same
    if node.name in ("stack", "stack_of"):
        at = params.get("axis", 0)
        return (*same[:at], frozenset(), *same[at:]) if len(new) > len(old) else None
    if node.name.startswith(_REDUCTIONS) and "axes" in params:
        return tuple(each for axis, each in enumerate(same) if axis not in params["axes"])
    if node.name == "gather" and operand == node.inputs[0]:
        numbers = params["dimension_numbers"]
        gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
        kept = iter(each for axis, each in enumerate(same) if axis not in gone)
        return tuple(next(kept) if axis in numbers.offset_dims else frozenset() for axis in range(len(new)))
    if node.name.startswith(_SAME_AXES) and len(old) == len(new):
        return same
    return None


def regrouped(old: Sequence[int], new: Sequence[int]) -> tuple[Axes, ...]:
    """The old axes that make up each new axis of a reshape, ignoring axes of length 1.

    Example:
      >>> [sorted(axes) for axes in regrouped((2, 1, 3, 4), (2, 12))]
      [[0], [2, 3]]
    """
    found: list[Axes] = [frozenset()] * len(new)
    mine = [axis for axis, size in enumerate(old) if size != 1]
    theirs = [axis for axis, size in enumerate(new) if size != 1]
    while mine and theirs:
        left, right = [mine.pop(0)], [theirs.pop(0)]
        while (a := math.prod(old[axis] for axis in left)) != (b := math.prod(new[axis] for axis in right)):
            (left if a < b else right).append((mine if a < b else theirs).pop(0))
        for axis in right:
            found[axis] = frozenset(left)
    return tuple(found)


def fits(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether an array is as large as another, or is broadcast to it axis by axis.

    Example:
      >>> fits((1, 8), (4, 8)), fits((8,), (4, 8))
      (True, False)
    """
    return len(shape) == len(whole) and all(size in (1, other) for size, other in zip(shape, whole, strict=True))
