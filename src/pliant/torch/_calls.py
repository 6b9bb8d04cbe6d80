"""Calls of PyTorch's Python interface, numbered so that another forward pass finds the same ones."""

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """A call that returned a tensor, or several of which the first counts."""

    module: str
    """The module that was running."""
    function: Any
    number: int
    """How many the function had returned in this module before."""


class Calls(TorchFunctionMode):
    """Tells of every call.

    Example:
      >>> found = []
      >>> with Calls(lambda call, result: found.append((call.function.__name__, call.number)), lambda: ""):
      ...     y = torch.ones(2).relu().relu()
      >>> found
      [('ones', 0), ('relu', 0), ('relu', 1)]
    """

    def __init__(self, see: Callable[[Call, Tensor], None], scope: Callable[[], str]):
        super().__init__()
        self.see, self.scope = see, scope
        self.count: collections.Counter[tuple[str, Any]] = collections.Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple) and result else result
        if isinstance(first, Tensor):
            key = self.scope(), func
            self.see(Call(*key, self.count[key]), first)
            self.count[key] += 1
        return result


@contextlib.contextmanager
def running(module: nn.Module) -> Iterator[Callable[[], str]]:
    """Follows which module is running, while the whole is called; yields a function that names it.

    Example:
      >>> with running(nn.Linear(2, 3)) as scope:
      ...     scope()
      ''
    """
    stack = [""]

    def leave(*_: Any) -> None:
        stack.pop()

    handles = []
    for name, part in module.named_modules():
        if not isinstance(part, torch.jit.ScriptModule):  # has no hooks
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
            handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        yield lambda: stack[-1]
    finally:
        for handle in handles:
            handle.remove()
