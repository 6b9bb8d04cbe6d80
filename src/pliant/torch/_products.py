"""The entries of a weight that units multiply, and those that make units, in products with data."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
"""The arguments of a convolution below autograd."""


def read_by_matrix(units: Tensor, *, is_left: bool) -> Tensor | None:
    """The units that a matrix' entries multiply; None if an entry multiplies several."""
    if units.ndim < 2 or (units.shape[-2] if is_left else units.shape[-1]) > 1:
        return None
    return units.transpose(-1, -2)


def read_by_convolution(units: Tensor, weight: Tensor, named: Mapping[str, Any]) -> Tensor | None:
    if any(size > 1 for axis, size in enumerate(units.shape) if axis != 1):
        return None
    row, groups = units.flatten(), int(named.get("groups", 1))
    tail = [1] * (weight.ndim - 2)
    if named.get("transposed"):
        return row.reshape(-1, 1, *tail) if len(row) > 1 else row.reshape(1, 1, *tail)
    if groups == 1 or len(row) == 1:
        return row.reshape(1, -1, *tail)
    of_group = row.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return of_group.reshape(weight.shape[0], -1, *tail)


def fed_by_convolution(labels: Tensor, weight: Tensor, named: Mapping[str, Any]) -> Tensor:
    row, groups = labels.flatten(), int(named.get("groups", 1))
    tail = [1] * (weight.ndim - 2)
    if not named.get("transposed"):
        return row.reshape(-1, 1, *tail)
    of_group = row.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return of_group.reshape(weight.shape[0], -1, *tail)
