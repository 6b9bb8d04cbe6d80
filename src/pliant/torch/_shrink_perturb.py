"""Shrink and perturb for attached networks: old weights are made smaller, and new ones added."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pliant.errors import UserError, require_choice
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Info, Mechanism, State
from pliant.torch._numbers import Number, number, whole_number
from pliant.torch._pulls import ALL_BUT_NORMS

_AT_SWITCH = ("fresh-init", "to-init")


def shrink_perturb(
    *,
    mode: Literal["fresh-init", "to-init", "per-step-fresh", "gaussian"] = "fresh-init",
    shrink: Number = 0.4,
    perturb: Number = 0.1,
    every_tasks: Number = 1,
) -> Mechanism:
    """Shrinks weights but norms and adds new ones, as `pliant.interventions.shrink_perturb` does."""
    require_choice("mode", mode, "fresh-init", "to-init", "per-step-fresh", "gaussian")
    is_gentle = mode not in _AT_SWITCH
    do = f"{mode!r} acts after every update: shrink=0.9999 with perturb=1e-5 is gentle."
    a = number("shrink", shrink, 0.9 if is_gentle else 0, 1, do=do if is_gentle else "0.4 is usual; 1 does not shrink.")
    p = number("perturb", perturb, 0, 0.05 if is_gentle else 1, do=do if is_gentle else "0.1 is usual; 0 for none.")
    period = whole_number("every_tasks", every_tasks, 0, do="Use 1 for every switch, 0 for none.")
    if mode == "to-init" and abs(a + p - 1) > 1e-6:
        raise UserError(
            got=f"shrink={a} and perturb={p} with mode='to-init'",
            wanted="the shares of a mean, such as 1 − c and c",
            do="Use shrink=0.2 and perturb=0.8, as published.",
        )

    def init(learner: Learner) -> State:
        if mode != "to-init":
            return {}
        return {name: learner.params[name].detach().clone() for name in learner.trained(*ALL_BUT_NORMS)}

    def change(learner: Learner, others: Mapping[str, Tensor]) -> Info:
        moved = 0.0
        with torch.no_grad():
            for name, other in others.items():
                parameter = learner.params[name]
                wide = torch.promote_types(parameter.dtype, torch.float32)
                after = (a * parameter.to(wide) + p * other.to(parameter.device, wide)).to(parameter.dtype)
                moved += float((after.float() - parameter.float()).square().sum())
                parameter.copy_(after)
        return {"norm_moved": moved**0.5}

    def switch(learner: Learner, state: State, index: int) -> Info:
        if not period or index % period or (a == 1 and p == 0):
            return {"norm_moved": 0.0}
        return change(learner, state if mode == "to-init" else learner.fresh(learner.trained(*ALL_BUT_NORMS)))

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del state, step, batch
        names = learner.trained(*ALL_BUT_NORMS)
        if mode == "per-step-fresh":
            return change(learner, learner.fresh(names))
        draws = {name: torch.randn(learner.params[name].shape, generator=learner.generator) for name in names}
        return change(learner, draws)

    return Mechanism(init, after=after) if is_gentle else Mechanism(init, switch=switch)
