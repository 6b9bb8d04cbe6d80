"""Operations that make one unit of several outputs of a product: GLU, and the largest of some, as in maxout."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST = ("amax", "amin", "max", "min")


class Fold(NamedTuple):
    """Which labels become one."""

    labels: Tensor
    """Of what the operation returns: that of the first of each unit's pieces."""
    number: Mapping[int, int]
    """By the label of a piece, that of its unit."""


def fold(name: str, args: Any, kwargs: Any, tensor: Tensor, labels: Tensor | None) -> Fold | None:
    """What an operation makes of the units of its operand; None if it does something else, or mixes all units.

    Args:
      name: of the operation.
      args: of the operation.
      kwargs: of the operation.
      tensor: the operand.
      labels: the unit of each entry, see `pliant.torch._units`.

    Example:
      >>> found = fold("glu", (torch.zeros(1, 4),), {}, torch.zeros(1, 4), torch.tensor([[0, 1, 2, 3]]))
      >>> found.labels.tolist(), found.number
      ([[0, 1]], {0: 0, 2: 0, 1: 1, 3: 1})
    """
    axis = args[1] if len(args) > 1 else kwargs.get("dim", -1 if name == "glu" else None)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if name not in ("glu", *LARGEST) or labels is None or not isinstance(axis, int):
        return None
    if labels.shape[axis] != tensor.shape[axis] or labels.shape[axis] < 2:
        return None
    if name == "glu":
        pieces = torch.stack(labels.chunk(2, axis), -1)
        first = pieces[..., 0]
    else:
        pieces = labels.movedim(axis, -1)
        first = labels.narrow(axis, 0, 1)
        first = first if kwargs.get("keepdim", args[2] if len(args) > 2 else False) else first.squeeze(axis)
    rows = torch.unique(pieces.reshape(-1, pieces.shape[-1]), dim=0)
    if len(rows) < 2 or len(torch.unique(rows)) < rows.numel():
        return None
    return Fold(first, {piece: row[0] for row in rows.tolist() for piece in row})
