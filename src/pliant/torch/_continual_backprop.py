"""Continual backprop for attached networks: replaces the least useful units, a few at a time."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pliant.errors import require_choice
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Info, Mechanism, State
from pliant.torch._numbers import Number, number
from pliant.torch._slots import Slot
from pliant.torch._surgery import lowest, mean_by_unit, require_layers, require_seen, reset_units
from pliant.torch._wiring import WiredLayer


def continual_backprop(
    *,
    replacement_rate: Number = 1e-4,
    maturity: Number = 100,
    decay: Number = 0.99,
    utility: Literal["adaptable", "zero-contribution", "contribution"] = "adaptable",
    transfer_mean: bool = True,
) -> Mechanism:
    """Replaces the least useful mature units, as `pliant.interventions.continual_backprop` does."""
    rate = number("replacement_rate", replacement_rate, 0, 1, do="1e-4 is usual; 0 replaces no unit.")
    least_age = number("maturity", maturity, 0, do="Use 100 updates, or 1000 for long tasks.")
    eta = number("decay", decay, 0, 0.999999, do="Use 0.99, as published.")
    require_choice("utility", utility, "adaptable", "zero-contribution", "contribution")
    rule = _Rule(eta, least_age, utility)
    outputs: dict[str, Tensor] = {}

    def before(learner: Learner, state: State, batch: Batch) -> None:
        del state
        outputs.update(learner.outputs(batch, is_training=True))

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del step, batch
        layers = learner.layers()
        seen = {layer.name: _observe(learner, state, layer, outputs.pop(layer.name), rule) for layer in layers}
        mature = {layer.name: state[f"{layer.name}/age"] > least_age for layer in layers}
        due = {name: _due(state, name, each, rate) for name, each in mature.items()}
        info = {"units_reset": 0, "mature_fraction": float(torch.cat([*mature.values()]).float().mean())}
        if any(due.values()):
            units = {name: lowest(seen[name].scores, due[name]) & mature[name] for name in due}
            for layer in layers:
                if transfer_mean:
                    _move_mean(learner, layer, torch.where(units[layer.name], seen[layer.name].means, 0.0))
            for layer in layers:
                _restart(learner, state, layer, units[layer.name])
            info["units_reset"] = reset_units(learner, units)
        ages = torch.cat([state[f"{layer.name}/age"] for layer in layers])
        return {**info, "mean_age": float(ages.float().mean())}

    return Mechanism(_start, before=before, after=after, needs_batch=lambda _: True)


class _Rule(NamedTuple):
    """How units are scored."""

    decay: float
    maturity: float
    utility: str


class _Seen(NamedTuple):
    """What an update shows of a layer."""

    scores: Tensor
    """û of each unit, infinite where it is not mature."""
    means: Tensor
    """f̂ of each output, (outputs, width)."""


def _start(learner: Learner) -> State:
    require_layers(learner, "continual backprop")
    require_seen(learner, "continual backprop")
    state: State = {}
    for layer in learner.wiring.layers:
        state[f"{layer.name}/age"] = torch.zeros(layer.width, dtype=torch.int64)
        state[f"{layer.name}/utility"] = torch.zeros(layer.width)
        state[f"{layer.name}/output"] = torch.zeros(layer.outputs, layer.width)
        state[f"{layer.name}/waiting"], state[f"{layer.name}/credit"] = 0, 0.0
        for slot in layer.feeds:
            if slot.role == "statistic":
                state[f"{slot.parameter}/start"] = learner.module.get_buffer(slot.parameter).clone()
    return state


def _observe(learner: Learner, state: State, layer: WiredLayer, outputs: Tensor, rule: _Rule) -> _Seen:
    """Updates the running means of a layer with its outputs, (…, outputs, width)."""
    eta, key = rule.decay, layer.name
    h = outputs.cpu().float()
    age = state[f"{key}/age"] + 1
    output = eta * state[f"{key}/output"] + (1.0 - eta) * h.mean(dim=0)
    centre = 0.0 if rule.utility == "contribution" else output / (1.0 - eta ** age.float())
    magnitudes = {name: learner.params[name].abs() for name in layer.parameters}
    y = ((h - centre).abs().mean(dim=0) * _outgoing(magnitudes, layer)).mean(dim=0)
    if rule.utility == "adaptable":
        kernels = [slot for slot in layer.feeds if slot.role == "kernel"]
        y = y / mean_by_unit(magnitudes, kernels, layer.width).float().clamp(min=1e-12)
    is_seen = h.mean(dim=0).isfinite().all(dim=0) & y.isfinite()
    found = {"age": age, "utility": eta * state[f"{key}/utility"] + (1.0 - eta) * y, "output": output}
    for part, value in found.items():
        state[f"{key}/{part}"] = torch.where(is_seen, value, state[f"{key}/{part}"])
    age = state[f"{key}/age"]
    correction = torch.where(age > 0, 1.0 - eta ** age.float(), 1.0)
    scores = torch.where(age > rule.maturity, state[f"{key}/utility"] / correction, math.inf)
    return _Seen(scores, state[f"{key}/output"] / correction)


def _outgoing(magnitudes: dict[str, Tensor], layer: WiredLayer) -> Tensor:
    """The mean absolute weight that reads each output of a unit, (outputs, width)."""
    if layer.outputs == 1:
        return mean_by_unit(magnitudes, layer.readers, layer.width).float()[None]
    slots = [_by_output(slot, layer) for slot in layer.readers]
    found = mean_by_unit(magnitudes, slots, layer.outputs * layer.width).float()
    return found.reshape(layer.outputs, layer.width)


def _by_output(slot: Slot, layer: WiredLayer) -> Slot:
    """The slot with a number for each output of a unit: those of the first outputs, then of the second."""
    units = slot.units.clone()
    flat = units.flatten()
    for unit in range(layer.width):
        places = (flat == unit).nonzero().flatten()
        flat[places] += layer.width * (torch.arange(len(places)) * layer.outputs // max(1, len(places)))
    return slot._replace(units=flat.reshape(units.shape))


def _due(state: State, name: str, mature: Tensor, rate: float) -> int:
    """Adds the mature units to those waiting, and takes out what makes whole units."""
    state[f"{name}/waiting"] += int(mature.sum())
    credit = state[f"{name}/credit"] + rate * state[f"{name}/waiting"]
    due = math.floor(credit + 1e-6)
    if due > 0:
        state[f"{name}/waiting"], state[f"{name}/credit"] = 0, credit - due
    return due


def _move_mean(learner: Learner, layer: WiredLayer, outputs: Tensor) -> None:
    """Adds what is read of the units' outputs, constants, to the biases behind them."""
    for slot in layer.readers:
        bias = learner.wiring.biases.get(slot.parameter)
        if bias is None or not learner.params[bias].requires_grad:
            continue
        numbered = _by_output(slot, layer) if layer.outputs > 1 else slot
        weight = learner.params[slot.parameter].detach()
        values = torch.cat([outputs.flatten(), torch.zeros(1)])[numbered.units].to(weight.device)
        terms = torch.where(values == 0, 0.0, values * weight.float())
        axis = learner.wiring.output_axes[slot.parameter]
        read = terms.expand(weight.shape).movedim(axis, 0).flatten(1).sum(dim=1)
        parameter = learner.params[bias]
        with torch.no_grad():
            parameter.add_(read.to(parameter).reshape(parameter.shape))


def _restart(learner: Learner, state: State, layer: WiredLayer, units: Tensor) -> None:
    """Lets replaced units begin anew: their age, utility and mean, and their running statistics."""
    state[f"{layer.name}/age"] = torch.where(units, 0, state[f"{layer.name}/age"])
    for key in ("utility", "output"):
        state[f"{layer.name}/{key}"] = torch.where(units, 0.0, state[f"{layer.name}/{key}"])
    for slot in layer.feeds:
        if slot.role == "statistic":
            buffer = learner.module.get_buffer(slot.parameter)
            mask = slot.chosen(units, buffer)
            with torch.no_grad():
                buffer.copy_(torch.where(mask, state[f"{slot.parameter}/start"].to(buffer), buffer))
