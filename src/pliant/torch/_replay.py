"""Runs a forward pass again with some parameters or results changed, operation by operation."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError

Changes = Mapping[int, Callable[[Tensor], None]]
"""By the number of an operation: what changes its result in place."""


class Replay(TorchDispatchMode):
    """Notes the results of chosen operations, and changes those of others.

    Example:
      >>> import torch
      >>> with Replay([1], {0: lambda result: result.mul_(2.0)}) as seen:
      ...     y = torch.ones(2).add(1.0).add(1.0)
      >>> seen.results[1].tolist()
      [3.0, 3.0]
    """

    def __init__(self, noted: Collection[int], changes: Changes):
        super().__init__()
        self.noted, self.changes = set(noted), changes
        self.number = 0
        self.results: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        number, self.number = self.number, self.number + 1
        if number in self.changes:
            self.changes[number](next(each for each in tree_leaves(result) if isinstance(each, Tensor)))
        if number in self.noted:
            self.results[number] = next(each for each in tree_leaves(result) if isinstance(each, Tensor)).clone()
        return result


class Again:
    """A forward pass that can be repeated with other parameters."""

    def __init__(self, module: nn.Module, args: Any, kwargs: Any):
        self.module, self.args, self.kwargs = module, args, kwargs

    def __call__(
        self, params: Mapping[str, Tensor], noted: Collection[int] = (), changes: Changes | None = None
    ) -> tuple[dict[int, Tensor], list[Tensor]]:
        """Returns the results of the noted operations, and the network's outputs."""
        for name, value in params.items():  # PyTorch chooses operations by it
            value.requires_grad_(self.module.get_parameter(name).requires_grad)
        torch.manual_seed(0)  # whatever the network draws, it draws again
        with Replay(noted, changes or {}) as seen:
            output = functional_call(self.module, dict(params), self.args, self.kwargs)
        if set(seen.results) != set(noted):
            raise UserError(
                got="a network whose passes differ in their operations",
                wanted="the same operations for the same inputs",
                do="Pass a network that is deterministic in evaluation mode.",
            )
        return seen.results, [each for each in tree_leaves(output) if isinstance(each, Tensor)]
