"""Labels of the entries of an array, and how operations move them.

A label says which unit an entry belongs to, or which index of a parameter's axis it has; −1 is none. Arrays of labels
are compact: an axis along which they do not change has length 1, so that they stay small whatever the batch.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from pliant.tracing._graph import Graph, Node

Labels: TypeAlias = np.ndarray
NONE = -1

POINTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp cos cosh digamma div eq erf erf_inv "
    "erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg "
    "nextafter not or pow rem round rsqrt select_n sign sin sinh sqrt square sub tan tanh xor "
    "convert_element_type copy copy_p stop_gradient reduce_precision real imag "
    "shift_left shift_right_logical shift_right_arithmetic population_count bitcast_convert_type".split()
)
_REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
_WINDOWS = ("reduce_window", "cum", "sort", "fft", "top_k", "rev")
PRODUCTS = ("dot_general", "conv_general_dilated", "pliant_convolution")


def compact(labels: Labels) -> Labels:
    """The same with length 1 along axes where nothing changes."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels.take([0], axis)
            if (labels == first).all():
                labels = first
    return labels


def blank(num_axes: int) -> Labels:
    """No label anywhere."""
    return np.full((1,) * num_axes, NONE)


def along(axis: int, labels: Sequence[int] | Labels, num_axes: int) -> Labels:
    """Labels that change along one axis."""
    shape = [1] * num_axes
    shape[axis] = -1
    return np.asarray(labels).reshape(shape)


def moved(
    graph: Graph, node: Node, place: int, labels: Labels, output: int = 0, *, is_kernel: bool = False
) -> Labels | None:
    """The labels of a node's output that come from those of one of its inputs; None if that is not known.

    Entries that are made of several labels have none.

    Args:
      graph: the program.
      node: an operation.
      place: which of its inputs.
      labels: of that input.
      output: which of its outputs.
      is_kernel: whether entries without a label are left out of what sums are made of. So W Wᵀ W has the labels of W,
        since those of W Wᵀ are on its diagonal alone.
    """
    old, new = graph.shape(node.inputs[place]), graph.shape(node.outputs[output])
    name = node.name
    if name == "select_n" and place == 0 and len(old) < len(new):
        return blank(len(new))
    if name in POINTWISE:
        return labels if labels.ndim == len(new) else blank(len(new))
    if name == "optimization_barrier":
        return labels if output == place else blank(len(new))
    if name in _REDUCTIONS:
        return _reduced(labels, tuple(map(int, node.params["axes"])), is_kernel=is_kernel)
    if name == "pliant_total":
        return _reduced(labels, (labels.ndim - 2,), is_kernel=is_kernel)
    if name == "dot_general":
        return _of_product(graph, node, place, labels, is_kernel=is_kernel)
    if name in ("pad", "concatenate", "stack"):
        return _put(graph, node, place, labels)
    if name in ("dynamic_slice", "gather", "dynamic_update_slice") and place == 0:
        return _read(node, labels, old, new)
    if name.startswith(_WINDOWS) and len(old) == len(new):
        return _windowed(labels, node.params, len(new))
    return _rearranged(node, labels, old, new, output)


def merged(first: Labels, second: Labels) -> Labels:
    """Where both have labels those of the first; for parts that do not overlap."""
    return np.where(first != NONE, first, second)


def _rearranged(node: Node, labels: Labels, old: Sequence[int], new: Sequence[int], output: int) -> Labels | None:
    """Of operations whose entries are entries of one input."""
    name, params = node.name, node.params
    if name == "reshape":
        return _reshaped(labels, old, new) if params.get("dimensions") is None else None
    if name == "transpose":
        return labels.transpose(params["permutation"])
    if name == "squeeze":
        return labels.reshape([size for axis, size in enumerate(labels.shape) if axis not in params["dimensions"]])
    if name == "expand_dims":
        return np.expand_dims(labels, tuple(params["dimensions"]))
    if name == "broadcast_in_dim":
        shape = [1] * len(new)
        for axis, at in enumerate(params["broadcast_dimensions"]):
            shape[at] = labels.shape[axis]
        return labels.reshape(shape)
    if name == "pliant_spread":
        return np.expand_dims(labels, -2)
    if name in ("loop", "loop_end"):
        return labels
    if name == "slice_of":
        return labels if len(old) == len(new) else labels[0] if labels.shape[0] == 1 else blank(len(new))
    if name == "stack_of":
        return labels[None] if len(old) < len(new) else None
    if name == "rev":
        return np.flip(labels, tuple(params["dimensions"]))
    if name == "slice":
        steps = params["strides"] or (1,) * len(old)
        bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
        parts = [slice(*each) if size > 1 else slice(None) for size, each in zip(labels.shape, bounds, strict=True)]
        return labels[tuple(parts)]
    if name == "split":
        axis, sizes = params["axis"], params["sizes"]
        start = sum(sizes[:output])
        return labels if labels.shape[axis] == 1 else labels.take(range(start, start + sizes[output]), axis)
    return None


def _reduced(labels: Labels, axes: Sequence[int], *, is_kernel: bool = False) -> Labels:
    for axis in axes:
        least = np.where(labels == NONE, np.iinfo(labels.dtype).max, labels) if is_kernel else labels
        first, last = least.min(axis, keepdims=True), labels.max(axis, keepdims=True)
        labels = np.where(first == last, last, NONE)
    return labels.reshape([size for axis, size in enumerate(labels.shape) if axis not in axes])


def _reshaped(labels: Labels, old: Sequence[int], new: Sequence[int]) -> Labels:
    """Expands only what is regrouped."""
    if math.prod(old) == 0:
        return blank(len(new))
    groups = regrouped(old, new)
    expand = [False] * len(old)
    for axes in groups:
        if any(labels.shape[axis] > 1 for axis in axes):
            for axis in axes:
                expand[axis] = True
    shape = [size if wide else labels.shape[axis] for axis, (size, wide) in enumerate(zip(old, expand, strict=True))]
    target = [size if any(expand[old_axis] for old_axis in groups[axis]) else 1 for axis, size in enumerate(new)]
    wide = np.broadcast_to(labels, shape)
    return compact(wide.reshape(target)) if math.prod(shape) == math.prod(target) else blank(len(new))


def _padded(labels: Labels, old: Sequence[int], config: Any) -> Labels:
    for axis, (low, high, inner) in enumerate(config):
        if inner or low < 0 or high < 0:
            return blank(len(old)) if labels.shape[axis] > 1 else labels
        if labels.shape[axis] > 1 and (low or high):
            widths = [(low, high) if each == axis else (0, 0) for each in range(labels.ndim)]
            labels = np.pad(labels, widths, constant_values=NONE)
    return labels


def _put(graph: Graph, node: Node, place: int, labels: Labels) -> Labels:
    """Of operations that put arrays beside each other."""
    if node.name == "pad":
        old = graph.shape(node.inputs[0])
        return _padded(labels, old, node.params["padding_config"]) if place == 0 else blank(len(old))
    if node.name == "stack":
        axis, labels = node.params["axis"], np.expand_dims(labels, node.params["axis"])
        sizes = [1] * len(node.inputs)
    else:
        axis = node.params["dimension"]
        sizes = [graph.shape(value)[axis] for value in node.inputs]
    start = sum(sizes[:place])
    wide = np.repeat(labels, sizes[place], axis) if labels.shape[axis] == 1 else labels
    widths = [(start, sum(sizes) - start - sizes[place]) if each == axis else (0, 0) for each in range(labels.ndim)]
    return np.pad(wide, widths, constant_values=NONE)


def _of_product(graph: Graph, node: Node, place: int, labels: Labels, *, is_kernel: bool) -> Labels:
    contracted, batched = node.params["dimension_numbers"]
    shapes = [graph.shape(value) for value in node.inputs[:2]]
    free = [
        [axis for axis in range(len(shape)) if axis not in contracted[i] and axis not in batched[i]]
        for i, shape in enumerate(shapes)
    ]
    kept = _reduced(labels, tuple(contracted[place]), is_kernel=is_kernel)
    names = [axis for axis in range(len(shapes[place])) if axis not in contracted[place]]
    order = [names.index(axis) for axis in (*batched[place], *free[place])]
    kept = kept.transpose(order)
    ones = (1,) * len(free[1 - place])
    num_batched = len(batched[place])
    if place == 0:
        return kept.reshape((*kept.shape, *ones))
    return kept.reshape((*kept.shape[:num_batched], *ones, *kept.shape[num_batched:]))


def _read(node: Node, labels: Labels, old: Sequence[int], new: Sequence[int]) -> Labels | None:
    """Slices at computed places: known along axes that are kept whole."""
    if node.name in ("dynamic_slice", "dynamic_update_slice"):
        if all(size == 1 or a == b for size, a, b in zip(labels.shape, old, new, strict=True)):
            return labels
        return None
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    if any(labels.shape[axis] > 1 and (axis in gone or sizes[axis] != old[axis]) for axis in range(len(old))):
        return None
    shape = [1] * len(new)
    for axis, at in zip((axis for axis in range(len(old)) if axis not in gone), numbers.offset_dims, strict=True):
        shape[at] = labels.shape[axis]
    return labels.reshape(shape)


def _windowed(labels: Labels, params: Any, num_axes: int) -> Labels:
    """Windows leave the labels along axes that they do not move over."""
    if "window_dimensions" in params:
        over = [axis for axis, size in enumerate(params["window_dimensions"]) if size > 1]
    elif "axis" in params:
        over = [params["axis"]]
    else:
        over = [params["dimension"]] if "dimension" in params else list(range(num_axes))
    return labels if all(labels.shape[axis] == 1 for axis in over) else blank(num_axes)


def regrouped(old: Sequence[int], new: Sequence[int]) -> tuple[frozenset[int], ...]:
    """The old axes that make up each new axis of a reshape, ignoring axes of length 1.

    Example:
      >>> [sorted(axes) for axes in regrouped((2, 1, 3, 4), (2, 12))]
      [[0], [2, 3]]
    """
    found: list[frozenset[int]] = [frozenset()] * len(new)
    mine = [axis for axis, size in enumerate(old) if size != 1]
    theirs = [axis for axis, size in enumerate(new) if size != 1]
    while mine and theirs:
        left, right = [mine.pop(0)], [theirs.pop(0)]
        while (a := math.prod(old[axis] for axis in left)) != (b := math.prod(new[axis] for axis in right)):
            (left if a < b else right).append((mine if a < b else theirs).pop(0))
        for axis in right:
            found[axis] = frozenset(left)
    return tuple(found)
