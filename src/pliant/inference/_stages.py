"""Finds the activation that a product reads: the last nonlinear operation on a unit's way to it."""

from typing import NamedTuple

import numpy as np

from pliant.tracing import NONE, POINTWISE, Follower, Labels, Node

_LINEAR = frozenset(
    "add add_any sub neg convert_element_type copy copy_p stop_gradient reduce_precision reduce_sum "
    "reduce_window_sum cumsum dot_general conv_general_dilated pliant_convolution real".split()
)
_LARGEST = frozenset("max min reduce_max reduce_min reduce_window_max reduce_window_min reduce_window".split())
_WINDOWED = frozenset("slice pad concatenate rev dynamic_slice gather split".split())


class Stage(NamedTuple):
    """An activation."""

    value: int
    """Its result, the feature."""
    sources: tuple[int, ...]
    """What it is a function of: one value, or several, such as both paths of a gate."""
    nodes: tuple[Node, ...]
    """Its operations, in their order."""
    seen: tuple[int, ...]
    """The values from what reads it down to its result."""


class Stages:
    """Looks for the activations in front of values.

    Args:
      follower: what is known of the program.
    """

    def __init__(self, follower: Follower):
        self.follower, self.graph = follower, follower.graph
        self.made = {product.value for product in follower.products}

    def before(self, value: int, units: Labels) -> Stage | str:
        """The activation of some units that a value is a linear function of; or why there is none."""
        seen = [value]
        while True:
            node = self.graph.producer.get(value)
            if node is None:
                return "the inputs"
            if value in self.made:
                return "no activation between two products"
            live = self._live(node, units)
            if not live:
                return "no activation"
            if len(live) == 1 and self._is_linear(node, units):
                value = live[0]
                seen.append(value)
                continue
            region, sources = self._region(node, live, units)
            if self._is_activation(region, units):
                return Stage(value, tuple(sources), tuple(region), tuple(seen))
            if len(sources) > 1:
                return f"{node.name} of several paths without an activation behind it, as of a skip connection"
            (value,) = sources
            seen.append(value)

    def is_carried(self, value: int, start: int, units: Labels) -> bool:
        """Whether a value is a linear function of another, or is multiplied by such a one, as by a gate.

        Args:
          value: what some products read.
          start: an activation of the units.
          units: in question.
        """
        node = self.graph.producer.get(value)
        if value == start or node is None or value in self.made:
            return value == start
        live = self._live(node, units)
        if node.name == "mul":
            return any(self.is_carried(each, start, units) for each in live)
        is_sum = node.name in _LINEAR or len(live) == 1
        return (
            bool(live)
            and is_sum
            and self._is_linear(node, units)
            and all(self.is_carried(each, start, units) for each in live)
        )

    def _region(self, node: Node, live: list[int], units: Labels) -> tuple[list[Node], list[int]]:
        """The operations back to where there is one path only, if there is such a place."""
        region, waiting = [node], dict.fromkeys(live)
        while len(waiting) > 1:
            open_ones = [
                value
                for value in waiting
                if value not in self.made
                and value in self.graph.producer
                and self._live(self.graph.producer[value], units)
            ]
            if not open_ones:
                break
            last = max(open_ones, key=lambda value: self.graph.position[value])
            del waiting[last]
            producer = self.graph.producer[last]
            region.append(producer)
            waiting |= dict.fromkeys(self._live(producer, units))
        if len(waiting) > 1:  # not further back than the last activation of each path
            return self._of_gate(node, live, units)
        return region[::-1], list(waiting)

    def _of_gate(self, node: Node, live: list[int], units: Labels) -> tuple[list[Node], list[int]]:
        """The operations of several paths back to products and sums, where these do not meet."""
        region, sources, waiting = [node], [], list(live)
        while waiting:
            value = waiting.pop()
            producer = self.graph.producer.get(value)
            inner = [] if producer is None or value in self.made else self._live(producer, units)
            if (
                producer is None
                or not inner
                or (producer.name not in POINTWISE and not self._is_linear(producer, units))
                or (producer.name in ("add", "add_any") and len(inner) > 1)
            ):
                sources.append(value)
            elif producer not in region:
                region.append(producer)
                waiting += inner
        order = {id(each): each for each in region}
        return sorted(order.values(), key=lambda each: self.graph.position[each.outputs[0]]), sources

    def _live(self, node: Node, units: Labels) -> list[int]:
        """The operands in which some of the units are."""
        found = []
        for value in dict.fromkeys(node.inputs):
            if value in self.follower.labels:
                labels = self.follower.of(value)
                if np.isin(labels[labels != NONE], units).any():
                    found.append(value)
        return found

    def _is_linear(self, node: Node, units: Labels) -> bool:
        live = self._live(node, units)
        if self.follower.sorted & set(node.outputs):
            return False
        if node.name in ("mul", "select_n", "div"):
            return len(live) == 1 and node.inputs.count(live[0]) == 1 and (node.name == "mul" or _is_scaled(node, live))
        if node.name in _LINEAR or node.name not in POINTWISE | _LARGEST:
            return True
        return node.name in _LARGEST - POINTWISE

    def _is_activation(self, region: list[Node], units: Labels) -> bool:
        nonlinear = [node for node in region if not self._is_linear(node, units)]
        moves = any(node.name in _WINDOWED for node in region)
        is_sorted = any(self.follower.sorted & set(node.outputs) for node in nonlinear)
        pools = [node for node in nonlinear if node.name in _LARGEST and len(self._live(node, units)) > 1]
        return is_sorted or len(pools) < len(nonlinear) or (bool(nonlinear) and not moves)


def _is_scaled(node: Node, live: list[int]) -> bool:
    """Whether the operand is what is divided or selected, not what it is divided or selected by."""
    return (node.inputs[0] == live[0]) == (node.name == "div")
