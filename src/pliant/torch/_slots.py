"""Which entries of a parameter belong to which units."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pliant.torch._units import compact

Role: TypeAlias = Literal["kernel", "bias", "norm", "statistic", "embedding"]


class Slot(NamedTuple):
    """The entries of a parameter, or of a running statistic, that belong to the units of a layer."""

    parameter: str
    """Its name in the network (`named_parameters`, `named_buffers`)."""
    units: Tensor
    """The unit that each entry belongs to, −1 for none; broadcast against the parameter."""
    role: Role

    def chosen(self, units: Tensor, parameter: Tensor) -> Tensor:
        """True at the entries that belong to `units`, a vector of booleans; of the parameter's shape.

        Example:
          >>> slot = Slot("head.weight", torch.tensor([[0, 0, 1, 1]]), "kernel")
          >>> slot.chosen(torch.tensor([False, True]), torch.zeros(1, 4)).tolist()
          [[False, False, True, True]]
        """
        flags = torch.cat([units.to("cpu"), torch.tensor([False])])
        return flags[self.units].to(parameter.device).expand(parameter.shape)


class Root(NamedTuple):
    """The memory of a parameter, or of a copy of a whole one."""

    parameter: str
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def in_root(root: Root, view: Tensor, labels: Tensor) -> Tensor:
    """Moves labels of a view's entries to the places that they have in the parameter; −1 elsewhere."""
    strides, offset = tuple(view.stride()), view.storage_offset()
    order = permutation(root, view)
    if order is not None:
        return labels.permute(order)
    place = torch.full((max(1, int(torch.Size(root.shape).numel())),), -1)
    spread = torch.zeros((), dtype=torch.long)
    for size, stride in zip(view.shape, strides, strict=True):
        spread = spread[..., None] + torch.arange(size) * stride
    flat = _ordered(spread + (int(offset) - root.offset), root)
    place[flat.flatten()] = labels.expand(view.shape).flatten()
    return compact(place.reshape(root.shape))


def permutation(root: Root, view: Tensor) -> list[int] | None:
    """The axes of a view in the order of the parameter's, if it is no more than a transposition."""
    own = list(zip(view.shape, view.stride(), strict=True))
    wanted = list(zip(root.shape, root.stride, strict=True))
    if len(set(own)) != len(own) or sorted(own) != sorted(wanted) or view.storage_offset() != root.offset:
        return None
    return [own.index(each) for each in wanted]


def _ordered(places: Tensor, root: Root) -> Tensor:
    """From places in memory to places in the parameter as if it were contiguous."""
    axes = sorted(range(len(root.shape)), key=lambda axis: -root.stride[axis])
    numbers, rest = torch.zeros_like(places), places
    contiguous = torch.empty(root.shape, device="meta").stride()
    for axis in axes:
        step = max(1, root.stride[axis])
        index = rest // step if root.shape[axis] > 1 else torch.zeros_like(rest)
        numbers, rest = numbers + index * contiguous[axis], rest - index * step
    return numbers


def renamed(units: Tensor, values: Tensor) -> Tensor:
    """The places of labels among sorted values; −1 for those that are missing."""
    places = torch.searchsorted(values, units.contiguous()).clamp(max=len(values) - 1)
    return torch.where(values[places] == units, places, -1)


def mapped(units: Tensor, number: Mapping[int, int]) -> Tensor:
    values, places = torch.unique(units, return_inverse=True)
    return torch.tensor([number.get(each, -1) for each in values.tolist()])[places]


def aligned(labels: Tensor, tensor: Tensor) -> Tensor | None:
    """The labels that the entries of a tensor meet when it is broadcast; None where an entry meets several units."""
    extra = labels.ndim - tensor.ndim
    if extra < 0 or any(size > 1 for size in labels.shape[:extra]):
        return None
    found = labels.reshape(labels.shape[extra:])
    if any(size == 1 and own > 1 for size, own in zip(tensor.shape, found.shape, strict=True)):
        return None
    return found


def joined(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """One slot for each parameter."""
    found: dict[str, Slot] = {}
    for slot in slots:
        if slot.parameter in found:
            before = found[slot.parameter].units
            one, other = torch.broadcast_tensors(before, slot.units)
            slot = slot._replace(units=torch.where(other >= 0, other, one))
        found[slot.parameter] = slot
    return tuple(found.values())
