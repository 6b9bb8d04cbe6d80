"""Labels that say which unit each entry of a tensor belongs to; axes that do not matter have size 1."""

from typing import Any

import torch
from torch import Tensor, nn


def along(tensor: Tensor, axis: int) -> Tensor | None:
    """Labels of a tensor whose units lie along one axis; None if it has no axis of examples beside it.

    Example:
      >>> along(torch.zeros(2, 3), 1).tolist()
      [[0, 1, 2]]
    """
    if tensor.ndim < 2:
        return None
    shape = [1] * tensor.ndim
    shape[axis] = tensor.shape[axis]
    return torch.arange(tensor.shape[axis], device=tensor.device).reshape(shape)


def fits(labels: Tensor | None, tensor: Tensor) -> bool:
    """Whether labels are those of a tensor of this shape.

    Example:
      >>> fits(torch.tensor([[0, 1, 2]]), torch.zeros(5, 3))
      True
    """
    return (
        labels is not None
        and labels.ndim == tensor.ndim
        and all(own in (1, size) for own, size in zip(labels.shape, tensor.shape, strict=True))
    )


def compact(labels: Tensor) -> Tensor:
    """The same with size 1 along all axes that do not matter.

    Example:
      >>> compact(torch.tensor([[0, 1], [0, 1]])).tolist()
      [[0, 1]]
    """
    for axis, size in enumerate(labels.shape):
        first = labels.narrow(axis, 0, min(size, 1))
        if size > 1 and (labels.stride(axis) == 0 or bool((labels == first).all())):
            labels = first
    return labels


def merged(found: list[Tensor | None], tensor: Tensor) -> Tensor | None:
    """Labels of what was computed from tensors with these, entry by entry: those that all agree on, if known at all.

    Example:
      >>> merged([None, torch.tensor([[0, 1]])], torch.zeros(3, 2)).tolist()
      [[0, 1]]
    """
    known = [each for each in found if fits(each, tensor)]
    is_one = all(each.shape == known[0].shape and bool((each == known[0]).all()) for each in known)  # type: ignore
    return known[0] if known and is_one else None


def reduced(labels: Tensor, axes: Any, *, keepdim: bool) -> Tensor | None:
    """Labels behind a mean or a sum over axes; None if units are among them.

    Example:
      >>> reduced(torch.arange(3).reshape(1, 3, 1), [2], keepdim=False).tolist()
      [[0, 1, 2]]
    """
    gone = [axis % labels.ndim for axis in ([axes] if isinstance(axes, int) else axes or range(labels.ndim))]
    if any(labels.shape[axis] > 1 for axis in gone):
        return None
    return labels if keepdim else labels.reshape([n for axis, n in enumerate(labels.shape) if axis not in gone])


def declared(module: nn.Module, output: Tensor) -> Tensor | None:
    """The labels that follow from a module's declared width, if its operations cannot be followed.

    Example:
      >>> declared(nn.Linear(2, 3), torch.zeros(5, 4, 3)).shape
      torch.Size([1, 1, 3])
    """
    for name, axis in (("out_features", -1), ("out_channels", 1)):
        width = getattr(module, name, None)
        if isinstance(width, int) and output.ndim > 1 and output.shape[axis] == width:
            return along(output, axis)
    return None


def units_last(tensor: Tensor, labels: Tensor | None) -> Tensor | None:
    """A tensor with its units on the last axis and the examples on the first; None where the labels do not say.

    Positions of a unit, such as those of a channel behind a flatten, become an axis before the last.

    Example:
      >>> units_last(torch.zeros(2, 6), torch.tensor([[0, 0, 1, 1, 2, 2]])).shape
      torch.Size([2, 2, 3])
    """
    if labels is None or not fits(labels, tensor):
        return None
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if not axes:
        return tensor.reshape(len(tensor), -1, 1) if tensor.ndim > 1 else None
    last = list(range(-len(axes), 0))
    flat = tensor.movedim(axes, last).flatten(-len(axes))
    order = labels.movedim(axes, last).flatten()
    _, places, counts = torch.unique(order, return_inverse=True, return_counts=True)
    repeats = int(counts[0])
    if bool((counts != repeats).any()):
        return None
    if repeats == 1 and bool((places.diff() > 0).all()):
        return flat
    sorted_units = flat.index_select(-1, places.argsort(stable=True))
    return sorted_units.unflatten(-1, (len(counts), repeats)).movedim(-1, -2).squeeze(-2)


def num_outputs(labels: Tensor) -> int:
    """How many outputs each unit has: 2 where all units come twice, one round after the other, as behind CReLU.

    Example:
      >>> num_outputs(torch.tensor([[0, 1, 0, 1]])), num_outputs(torch.tensor([[0, 0, 1, 1]]))
      (2, 1)
    """
    flat = labels.flatten()
    is_repeated = sum(size > 1 for size in labels.shape) == 1 and bool((flat.diff() < 0).any())
    return len(flat) // len(torch.unique(flat)) if is_repeated else 1
