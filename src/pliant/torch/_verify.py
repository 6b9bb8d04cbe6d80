"""Checks by perturbation that a layer of the wiring is what it is said to be."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.errors import UserError
from pliant.torch._replay import Again

_NOISE = 0.5
_TOLERANCE = 1e-4


def why_not(
    again: Again,
    params: Mapping[str, Tensor],
    operations: Sequence[int],
    layer: Any,
    readers: Sequence[int],
    *,
    may_return: bool = False,
) -> str:
    """Why the units of a layer cannot be reset; empty if they can.

    Args:
      again: repeats the forward pass.
      params: the network's parameters.
      operations: the numbers of those that make the activation, one for each use of the layer.
      layer: a `WiredLayer`.
      readers: the numbers of the products that read it.
      may_return: whether the network may return the activation itself.
    """
    try:
        return _why_not(again, params, operations, layer, readers, may_return=may_return)
    except UserError as error:
        return str(error)
    except (IndexError, RuntimeError) as error:
        return f"its check failed: {type(error).__name__}"


def _why_not(
    again: Again,
    params: Mapping[str, Tensor],
    operations: Sequence[int],
    layer: Any,
    readers: Sequence[int],
    *,
    may_return: bool,
) -> str:
    generator = torch.Generator().manual_seed(0)
    before, outputs = again({}, [*readers, *operations])
    own = [may_return and any(_is_same(each, before[number]) for number in operations) for each in outputs]
    answers = {number: _setter(before[number]) for number in readers}
    for chosen in _halves(layer.width, generator):
        fed = {
            slot.parameter: _noisy(params[slot.parameter], slot.chosen(chosen, params[slot.parameter]), generator)
            for slot in layer.feeds
            if slot.role != "statistic"
        }
        after, others = again(fed, operations, answers)
        pairs = [pair for pair, is_own in zip(zip(outputs, others, strict=True), own, strict=True) if not is_own]
        if not all(_is_close(*pair) for pair in pairs):
            return "it reaches the output on a way around what reads it"
        added = {}
        for use, number in zip(layer.uses, operations, strict=True):
            moved = (after[number] - before[number]).abs()
            flags = torch.cat([chosen, torch.tensor([False])])[use.labels].to(moved.device).expand(moved.shape)
            if not layer.is_mixed and bool((moved[~flags] > _TOLERANCE * before[number].abs().max()).any()):
                return "what feeds a unit changes other units too"
            added[number] = _adder(flags, generator)
        if layer.is_normed:
            continue
        cut = {
            slot.parameter: params[slot.parameter]
            .detach()
            .masked_fill(slot.chosen(chosen, params[slot.parameter]), 0.0)
            for slot in layer.readers
        }
        quiet, _ = again(cut, readers)
        loud, _ = again(cut, readers, added)
        if not all(_is_close(quiet[number], loud[number]) for number in readers):
            return "what reads it multiplies other entries than those found"
    return ""


def _halves(width: int, generator: torch.Generator) -> list[Tensor]:
    """Some of the units, and the others; of few units so that any two are told apart."""
    if width == 1:
        return [torch.tensor([True])]
    numbers = torch.randperm(width, generator=generator)
    halves = [numbers % 2 == 0, *([numbers // 2 == 0] if width in (3, 4) else [])]
    return [each for half in halves for each in (half, ~half)]


def _setter(value: Tensor) -> Any:
    return lambda result: result.copy_(value)


def _adder(flags: Tensor, generator: torch.Generator) -> Any:
    def add(result: Tensor) -> None:
        noise = torch.rand(result.shape, generator=generator).to(result)
        result.add_((noise + _NOISE) * flags)

    return add


def _noisy(parameter: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """A parameter with other values where `chosen` is True."""
    value = parameter.detach()
    noise = torch.randn(value.shape, generator=generator).to(value)
    size = value.abs().mean() + 0.1
    return torch.where(chosen, value + noise * size, value)


def _is_close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return True
    first, second = one.double().nan_to_num(), other.double().nan_to_num()
    size = float(first.abs().max()) if first.numel() else 0.0
    return bool(((first - second).abs() <= _TOLERANCE * size + 1e-30).all())


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.numel() == other.numel() and torch.equal(one.flatten(), other.flatten().to(one))
