"""Checks by perturbation that a layer of the wiring is what it is said to be."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.errors import UserError
from pliant.torch._replay import Again

_NOISE = 0.5
_TOLERANCE = 1e-4


def why_not(again: Again, params: Mapping[str, Tensor], operation: int, layer: Any, readers: Sequence[int]) -> str:
    """Why the units of a layer cannot be reset; empty if they can.

    Args:
      again: repeats the forward pass.
      params: the network's parameters.
      operation: the number of the one that makes the activation.
      layer: a `WiredLayer`.
      readers: the numbers of the products that read it.
    """
    try:
        return _why_not(again, params, operation, layer, readers)
    except UserError as error:
        return str(error)
    except (IndexError, RuntimeError) as error:
        return f"its check failed: {type(error).__name__}"


def _why_not(again: Again, params: Mapping[str, Tensor], operation: int, layer: Any, readers: Sequence[int]) -> str:
    generator = torch.Generator().manual_seed(0)
    half = torch.randperm(layer.width, generator=generator) < (layer.width + 1) // 2
    before, outputs = again({}, [*readers, operation])
    answers = {number: _setter(before[number]) for number in readers}
    for chosen in (half, ~half) if layer.width > 1 else (half,):
        fed = {
            slot.parameter: _noisy(params[slot.parameter], slot.chosen(chosen, params[slot.parameter]), generator)
            for slot in layer.feeds
            if slot.role != "statistic"
        }
        after, others = again(fed, [operation], answers)
        if not all(_is_close(*pair) for pair in zip(outputs, others, strict=True)):
            return "it reaches the output on a way around what reads it"
        moved = (after[operation] - before[operation]).abs()
        flags = torch.cat([chosen, torch.tensor([False])])[layer.labels].to(moved.device).expand(moved.shape)
        if not layer.is_mixed and bool((moved[~flags] > _TOLERANCE * before[operation].abs().max()).any()):
            return "what feeds a unit changes other units too"
        if layer.is_normed:
            continue
        cut = {
            slot.parameter: params[slot.parameter]
            .detach()
            .masked_fill(slot.chosen(chosen, params[slot.parameter]), 0.0)
            for slot in layer.readers
        }
        quiet, _ = again(cut, readers)
        loud, _ = again(cut, readers, {operation: _adder(flags, generator)})
        if not all(_is_close(quiet[number], loud[number]) for number in readers):
            return "what reads it multiplies other entries than those found"
    return ""


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
