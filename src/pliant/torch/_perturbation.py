"""Whether a hidden layer's units are where they are declared to be, found out by changing one of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.errors import UserError
from pliant.torch._hidden_layers import Layer

_VALUES = (100.0, -100.0)
"""What the last unit is set to in two forward passes: far apart, so that every activation tells them apart."""


def require_units_in_place(layer: Layer, run: Callable[[Sequence[Any]], None]) -> None:
    """Raises if a change of one unit shows elsewhere than where the layer is scored and where its readers find it.

    What does not change, or is not seen because a reader is not called as a module, passes.

    Args:
      layer: the layer.
      run: makes a forward pass, and removes the hooks that it is given.

    Raises:
      UserError: see above.
    """
    passes: list[dict[str, list[Tensor]]] = []
    shapes: list[torch.Size] = []
    for value in _VALUES:
        seen: dict[str, list[Tensor]] = {"": [], **{reader.module: [] for _, reader in layer.readers}}
        passes.append(seen)

        def change(module: Any, inputs: Any, output: Tensor, value: float = value) -> Tensor:
            del module, inputs
            shapes.append(output.shape)
            changed = output.clone()
            changed.select(1 - layer.feed.weight.ndim, layer.width - 1).fill_(value)
            return changed

        def observe(module: Any, inputs: Any, output: Tensor, into: list[Tensor] = seen[""]) -> None:
            del module, inputs
            into.append(output.clone())

        def read(module: Any, inputs: Any, into: list[Tensor]) -> None:
            del module
            into.extend(each.clone() for each in inputs[:1])

        hooks = [layer.feed.register_forward_hook(change), layer.activation.register_forward_hook(observe)]
        for reader, (name, _, _) in layer.readers:
            into = seen[name]
            hooks.append(reader.register_forward_pre_hook(lambda module, inputs, into=into: read(module, inputs, into)))
        run(hooks)
    (first,), (second,) = passes[0].pop(""), passes[1].pop("")
    axis, tiles, repeats = layer.layout(first, shapes[0] if shapes else None)
    _require_change(layer, "the activation", first - second, axis, tiles, repeats)
    for reader, (name, repeats, tiles) in layer.readers:
        for first, second in zip(passes[0][name], passes[1][name], strict=False):
            _require_change(layer, repr(name), first - second, 1 - reader.weight.ndim, tiles, repeats)


def _require_change(layer: Layer, where: str, difference: Tensor, axis: int, tiles: int, repeats: int) -> None:
    change = difference.abs().float().movedim(axis, -1).reshape(-1, difference.shape[axis]).mean(dim=0)
    is_last = torch.arange(layer.width, device=change.device) == layer.width - 1
    own = is_last.repeat_interleave(repeats).tile(tiles)
    changed = change > 1e-3 * change.max()
    is_elsewhere = bool((changed & ~own).any()) and not bool(changed[own].all())
    # Norms let a unit change the others a little. Where all change alike, this is the axis of something else.
    is_even = layer.width > 2 and bool(changed.all() and change[own].mean() < 1.2 * change[~own].mean())
    if is_elsewhere or is_even:
        raise UserError(
            got=f"{where}, where a change of one unit of {layer.name!r} shows in other entries than its own",
            wanted=f"the units along axis {axis}, each {repeats} times in a row, {tiles} times over",
            do="Behind a flatten of (batch, channels, H, W) it is Reader(name, repeats=H * W), with channels last "
            "Reader(name, tiles=H * W). Otherwise leave this hidden layer out.",
        )
