"""Checks for parameters between the layer that feeds hidden units and the activation that is scored."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from pliant.errors import UserError
from pliant.torch._hidden_layers import Layer

_MIXING = ("mm", "conv", "linear", "embedding", "index", "gather")
"""Parts of the names of operations behind which a weight is a layer's, not a scale or an offset of units."""


def require_nothing_between(module: nn.Module, layers: Sequence[Layer], run: Callable[..., Any]) -> None:
    """Raises if a parameter of the units between a layer and its activation is not declared: no reset would reach it.

    What is frozen passes, and so do parameters of the activation itself that are no norm's, such as PReLU's slopes.
    One forward pass records gradients; paths without them are not seen.

    Args:
      module: the network.
      layers: its hidden layers.
      run: makes a forward pass, and removes the hooks that it is given.

    Raises:
      UserError: see above.
    """
    found: list[tuple[Layer, Tensor]] = []
    hooks: list[Any] = []
    for layer in layers:
        hooks += _hooks(layer, found)
    run(hooks, has_gradients=True)
    for layer, parameter in found:
        owner, kind = _owner(module, parameter)
        inside = any(part is owner for part in layer.activation.modules())
        is_unit = layer.width in parameter.shape and not any(parameter is each for each in layer.parameters)
        if owner is None or not is_unit or (inside and "norm" not in type(owner).__name__.lower()):
            continue
        name = next(path for path, part in module.named_modules() if part is owner)
        named = f"{name}.{kind}".lstrip(".")
        own = f"norm={name!r}" if name and kind in ("weight", "bias") else "norm= the name of a module that has it"
        raise UserError(
            got=f"{named!r} of {type(owner).__name__} between {layer.name!r} and its activation, which is not declared",
            wanted="no parameters of the units there but the norm's: a reset would leave them as they are",
            do=f"Pass {own} as weight or bias in its HiddenLayer, or leave this hidden layer out.",
        )


def _hooks(layer: Layer, found: list[tuple[Layer, Tensor]]) -> Iterator[Any]:
    """Hooks that find the parameters used between the feed's output and the activation's."""
    starts: list[Tensor] = []

    def start(module: Any, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        starts.append(output.detach().requires_grad_())
        return starts[-1].clone()

    def end(module: Any, inputs: Any, output: Any) -> None:
        del module, inputs
        if isinstance(output, Tensor) and output.grad_fn is not None:
            found.extend((layer, parameter) for parameter in _operands(output.grad_fn, starts))

    yield layer.feed.register_forward_hook(start)
    yield layer.activation.register_forward_hook(end)


def _operands(last: Any, starts: Sequence[Tensor]) -> list[Tensor]:
    """The leaves that operations between `starts` and `last` use, at most reshaped or transformed."""
    order: list[Any] = [last]
    seen = {last}
    for node in order:
        for each in _sources(node):
            if each not in seen:
                seen.add(each)
                order.append(each)
    on_way: set[Any] = {node for node in order if any(_leaf(node) is start for start in starts)}
    depth = math.inf
    while len(on_way) != depth:
        depth = len(on_way)
        on_way |= {node for node in reversed(order) if any(each in on_way for each in _sources(node))}
    found: list[Tensor] = []
    for node in order:
        for each in _sources(node) if node in on_way else ():
            while each not in on_way and len(_sources(each)) == 1 and not _mixes(each):
                (each,) = _sources(each)
            leaf = _leaf(each)
            if leaf is not None and each not in on_way:
                found.append(leaf)
    return found


def _sources(node: Any) -> list[Any]:
    return [each for each, _ in node.next_functions if each is not None]


def _leaf(node: Any) -> Tensor | None:
    return getattr(node, "variable", None) if not node.next_functions else None


def _mixes(node: Any) -> bool:
    return any(part in node.name().lower() for part in _MIXING)


def _owner(module: nn.Module, parameter: Tensor) -> tuple[nn.Module | None, str]:
    """The module that a parameter belongs to, and its name there."""
    for part in module.modules():
        for kind, other in part._parameters.items():
            if other is parameter:
                return part, kind
    return None, ""
