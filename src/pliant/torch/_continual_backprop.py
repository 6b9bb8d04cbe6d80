"""Continual backprop for attached networks: replaces the least useful units, a few at a time."""

import math
from typing import Literal

import torch
from torch import Tensor

from pliant.errors import require_choice
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Info, Mechanism, State
from pliant.torch._numbers import Number, number
from pliant.torch._slots import Slot
from pliant.torch._surgery import lowest, mean_by_unit, require_layers, reset_units
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
    outputs: dict[str, Tensor] = {}

    def init(learner: Learner) -> State:
        require_layers(learner, "continual backprop")
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

    def before(learner: Learner, state: State, batch: Batch) -> None:
        del state
        outputs.update(learner.outputs(batch, is_training=True))

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del step, batch
        layers = {layer.name: layer for layer in learner.layers()}
        due = {}
        means = {}
        ranked = {}
        for name, layer in layers.items():
            ranked[name], means[name] = observe(learner, state, layer, outputs.pop(name))
            due[name] = _due(state, name, state[f"{name}/age"] > least_age, rate)
        ages = torch.cat([state[f"{name}/age"] for name in layers])
        info = {"units_reset": 0, "mature_fraction": float((ages > least_age).float().mean())}
        if any(due.values()):
            units = {name: lowest(ranked[name], due[name]) & (state[f"{name}/age"] > least_age) for name in layers}
            if transfer_mean:
                for name, layer in layers.items():
                    _move_mean(learner, layer, torch.where(units[name], means[name], 0.0))
            for name, layer in layers.items():
                _restart(learner, state, layer, units[name])
            info["units_reset"] = reset_units(learner, units)
        return {**info, "mean_age": float(torch.cat([state[f"{name}/age"] for name in layers]).float().mean())}

    def observe(learner: Learner, state: State, layer: WiredLayer, h: Tensor) -> tuple[Tensor, Tensor]:
        """Updates the running means; returns û, infinite where a unit is not mature, and f̂."""
        h = h.cpu().float()
        age = state[f"{layer.name}/age"] + 1
        correction = 1.0 - eta ** age.float()
        output = eta * state[f"{layer.name}/output"] + (1.0 - eta) * h.mean(dim=0)
        spread = (h if utility == "contribution" else h - output / correction).abs().mean(dim=0)
        magnitudes = {name: learner.params[name].abs() for name in layer.parameters}
        y = (spread * _outgoing(magnitudes, layer)).mean(dim=0)
        if utility == "adaptable":
            kernels = [slot for slot in layer.feeds if slot.role == "kernel"]
            y = y / mean_by_unit(magnitudes, kernels, layer.width).float().clamp(min=1e-12)
        is_seen = h.mean(dim=0).isfinite().all(dim=0) & y.isfinite()
        running = eta * state[f"{layer.name}/utility"] + (1.0 - eta) * y
        age = state[f"{layer.name}/age"] = torch.where(is_seen, age, state[f"{layer.name}/age"])
        state[f"{layer.name}/utility"] = torch.where(is_seen, running, state[f"{layer.name}/utility"])
        state[f"{layer.name}/output"] = torch.where(is_seen, output, state[f"{layer.name}/output"])
        correction = torch.where(age > 0, 1.0 - eta ** age.float(), 1.0)
        scores = torch.where(age > least_age, state[f"{layer.name}/utility"] / correction, math.inf)
        return scores, state[f"{layer.name}/output"] / correction

    return Mechanism(init, before=before, after=after, needs_batch=lambda _: True)


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
