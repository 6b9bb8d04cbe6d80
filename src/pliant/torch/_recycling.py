"""ReDo and ReGraMa for attached networks: recycling units at regular intervals."""

import math
from typing import Literal

import torch
from torch import Tensor

from pliant.errors import require_choice
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Info, Mechanism, State
from pliant.torch._numbers import Number, number, whole_number
from pliant.torch._surgery import lowest, mean_by_unit, require_layers, require_seen, reset_units


def redo(
    *,
    threshold: Number = 0.025,
    every: Number = 1000,
    source: Literal["fresh", "initial"] = "fresh",
    relative: bool = True,
    start_after: Number = 0,
    max_fraction: Number = 1.0,
) -> Mechanism:
    """Resets dormant units at regular intervals, as `pliant.interventions.redo` does."""
    least = number("threshold", threshold, do="Use 0.025, the default; a negative one resets no unit.")
    most = number("max_fraction", max_fraction, 0, 1, do="1 resets all that are dormant; 0 resets none.")
    first = number("start_after", start_after, 0, do="Use the number of updates before the first reset, or 0.")
    period = whole_number("every", every, 1, do="Use the period in updates, 1000 by default.")
    require_choice("source", source, "fresh", "initial")

    def init(learner: Learner) -> State:
        require_layers(learner, "ReDo")
        require_seen(learner, "ReDo")
        if source == "fresh":
            return {}
        slots = [slot for layer in learner.wiring.layers for slot in layer.feeds if slot.role != "statistic"]
        return {slot.parameter: learner.params[slot.parameter].detach().clone() for slot in slots}

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        if batch is None or step % period:
            return {"units_reset": 0}

        def dormant(outputs: Tensor) -> Tensor:
            scores = dormancy_scores(outputs, relative=relative)
            among = lowest(scores, math.floor(most * len(scores) + 1e-5))
            return (scores <= least) & among & (step > first) & bool(scores.isfinite().all())

        found = learner.outputs(batch, is_training=False)
        units = {name: dormant(outputs) for name, outputs in found.items()}
        return {"units_reset": reset_units(learner, units, start=state if source == "initial" else None)}

    return Mechanism(init, after=after, needs_batch=lambda step: step % period == 0 and step > first)


def regrama(*, threshold: Number = 0.01, every: Number = 1000) -> Mechanism:
    """Resets units that get hardly any gradient at regular intervals, as `pliant.interventions.regrama` does."""
    least = number("threshold", threshold, do="0.01 is usual; 0 resets what gets no gradient, -1 nothing.")
    period = whole_number("every", every, 1, do="Use the period in updates, 1000 by default.")

    def init(learner: Learner) -> State:
        require_layers(learner, "ReGraMa")
        return {}

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del state, batch
        if step % period:
            return {"units_reset": 0}
        units = {}
        for layer in learner.layers():
            slots = [slot for slot in layer.feeds if slot.role == "kernel"]
            gradients = {slot.parameter: _gradient(learner.params[slot.parameter]) for slot in slots}
            sizes = mean_by_unit(gradients, slots, layer.width)
            scores = sizes / (sizes.mean() or 1.0)
            units[layer.name] = (scores <= least) & bool((scores > 0).any()) & bool(scores.isfinite().all())
        return {"units_reset": reset_units(learner, units)}

    return Mechanism(init, after=after)


def dormancy_scores(outputs: Tensor, *, relative: bool = True) -> Tensor:
    """The mean absolute output of each unit, on the CPU; relative to that of the layer.

    Example:
      >>> dormancy_scores(torch.tensor([[[0.0, 3.0]], [[0.0, 1.0]]])).tolist()
      [0.0, 2.0]
    """
    means = outputs.abs().mean(dim=(0, 1)).cpu()
    return means / (means.mean() + 1e-9) if relative else means


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.abs()
