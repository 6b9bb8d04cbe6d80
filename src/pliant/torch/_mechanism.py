"""The contract of the parts of an attached method."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from pliant.torch._learner import Batch, Learner

State: TypeAlias = dict[str, Any]
"""Tensors and numbers by name, as `state_dict` holds them; changed in place."""
Info: TypeAlias = dict[str, float]


def _never(step: int) -> bool:
    del step
    return False


class Mechanism(NamedTuple):
    """A part of a method: what it does at which moment of an update."""

    init: Callable[[Learner], State]
    """Checks that the network is suited, and makes the state."""
    penalty: Callable[[Learner, State], Tensor] | None = None
    """A term of the loss."""
    before: Callable[[Learner, State, Batch], None] | None = None
    """Called before the optimizer's update, at steps that need a batch."""
    after: Callable[[Learner, State, int, Batch | None], Info] | None = None
    """Called after the optimizer's update number `step`, from 1."""
    switch: Callable[[Learner, State, int], Info] | None = None
    """Called when the task changes for the n-th time, from 1."""
    needs_batch: Callable[[int], bool] = _never
    """Whether update number `step` looks at a batch."""
