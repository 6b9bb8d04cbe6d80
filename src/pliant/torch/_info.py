"""What is known of the tensors and operations of a forward pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Core:
    """A tensor that may be a hidden layer; copied before something overwrites it."""

    def __init__(self, tensor: Tensor, info: "Info", activation: str, name: str, number: int):
        self.tensor = tensor
        self.labels = info.labels
        self.above = info.above
        self.from_head = info.from_head
        self.activation = activation
        self.name = name
        self.number = number
        self.is_module = False
        self.is_weak = False
        """Arithmetic alone: an activation only where it is all that a module does, or where weights read it at once."""
        self.under: Core | None = None
        """The activation that the arithmetic is done on."""
        self.why = ""
        """Why its units cannot be measured."""
        self.call: Any = None
        self.kept: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """As it was computed."""
        return self.tensor if self.kept is None else self.kept


class Info(NamedTuple):
    """What is known of a tensor."""

    is_data: bool = False
    """Whether it depends on the inputs."""
    params: frozenset[str] = frozenset()
    """Of what does not: the parameters that it was computed from."""
    is_learned: bool = False
    """Of data: whether parameters have had a part in it."""
    base: int = 0
    """Which tensor it is a function of, entry by entry."""
    has_zeros: bool = False
    """Whether that function is 0 for many inputs."""
    word: str = ""
    """The operation that makes it an activation."""
    core: Core | None = None
    """The tensor that completed the function; what came later is a multiple of it, or moved."""
    labels: Tensor | None = None
    """The unit of each entry, see `pliant.torch._units`."""
    above: frozenset[Core] = frozenset()
    """The activations that it depends on through anything else."""
    frontier: frozenset[int] = frozenset()
    """The last products with weights on the ways to it."""
    from_head: bool = False
    """Whether it depends on the output layer."""


class Product(NamedTuple):
    """A product of data with weights."""

    name: str
    """The module that it belongs to."""
    above: frozenset[Core]
    """The activations that it depends on."""
    is_read: bool = False
    """Whether another product depends on it."""


class Operation(NamedTuple):
    """One operation, as PyTorch dispatches it below autograd."""

    function: Any
    name: str
    """Without its namespace, and without the underscore of what works in place."""
    args: Any
    kwargs: Any
    operands: Sequence[tuple[Tensor, Info]]
    """Every tensor among the arguments, with what was known of it before."""
    outputs: Sequence[Tensor]
    number: int
    """How many operations came before."""


def activation_in(info: Info, by_weights: bool) -> Core | None:
    """The activation that a tensor is, for what reads it; arithmetic alone is one for weights only."""
    core = info.core if info.is_learned else None
    while core is not None and core.is_weak and not (core.is_module or by_weights):
        core = core.under
    return core


def is_doubling(infos: Sequence[Info]) -> bool:
    """Whether tensors are activations, all of one tensor."""
    is_one = len({info.base for info in infos}) == 1
    return is_one and all(info.core is not None and not info.core.is_weak for info in infos)
