"""What is known of the units of tensors and activations."""

from typing import NamedTuple

from torch import Tensor

from pliant.torch._slots import Slot


class Owned(NamedTuple):
    """What is known of a tensor's units."""

    feeds: tuple[Slot, ...] = ()
    """The parameters since the last product, by the labels of the tensor's units."""
    units: Tensor | None = None
    """The units of earlier activations that the entries are, see `Ownership.numbers`; −1 for none."""
    why: str = ""
    """Why the units are fed by more than `feeds`."""
    mixes: bool = False
    """Whether a norm over units lies between them and the product."""
    product: str = ""
    """The kernel of the last product, if nothing but arithmetic came since."""


class Read(NamedTuple):
    """A product of the units of an activation with weights."""

    slot: Slot
    operation: int
    """The number of the operation."""


class Known(NamedTuple):
    """An activation."""

    offset: int
    """The number of its first unit."""
    width: int
    labels: Tensor
    """The unit of each entry, from 0 on."""
    feeds: tuple[Slot, ...]
    """Units in them are those of `labels`."""
    why: str
    mixes: bool
