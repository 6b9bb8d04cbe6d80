"""Normalize-and-Project and weight clipping for attached networks: projections after updates."""

from typing import Literal

import torch
from torch import Tensor

from pliant.errors import UserError, require_choice
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Info, Mechanism, State
from pliant.torch._numbers import Number, number, whole_number

_NONE = 1e30
"""The κ from which on nothing is clipped."""


def nap(*, every: Number = 1000, strength: Number = 1.0, norms: Literal["fixed", "learned"] = "fixed") -> Mechanism:
    """Projects weights to their initial norms, as `pliant.interventions.nap` does.

    The kernels are those with a norm right behind them. Kernels without one, whose scale a norm does not undo, stay.
    """
    period = whole_number("every", every, 1, do="Use the period in updates, 1000 by default.")
    share = number("strength", strength, 0, 1, do="Use 1 for the projection, 0 for none.")
    require_choice("norms", norms, "fixed", "learned")

    def groups(learner: Learner) -> list[tuple[str, ...]]:
        trained = set(learner.trained("matrix", "norm"))
        kernels = [kernel for kernel in learner.wiring.norms if kernel in trained]
        found = [(kernel,) for kernel in kernels]
        if norms == "learned":
            found += [tuple(name for name in learner.wiring.norms[kernel] if name in trained) for kernel in kernels]
        return [names for names in found if names]

    def init(learner: Learner) -> State:
        _check(learner)
        state: State = {"/".join(names): _length(learner, names) for names in groups(learner)}
        if norms == "fixed":
            fixed = {name for kernel in learner.wiring.norms for name in learner.wiring.norms[kernel]}
            state |= {
                f"{name}/start": learner.params[name].detach().clone()
                for name in learner.trained("norm")
                if name in fixed
            }
        return state

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del batch
        moved = 0.0
        with torch.no_grad():
            for names in groups(learner) if step % period == 0 else ():
                length, radius = _length(learner, names), state["/".join(names)]
                for name in names:
                    parameter = learner.params[name]
                    goal = parameter.float() * (radius / length if length > 0 else 1.0)
                    moved += float(_move(parameter, goal, share))
            for key in [key for key in state if key.endswith("/start")]:
                _move(learner.params[key.removesuffix("/start")], state[key], share)
        return {"norm_moved": moved**0.5}

    return Mechanism(init, after=after)


def weight_clipping(*, kappa: Number = 2.0, include_head: bool = True) -> Mechanism:
    """Clips weights and biases to a multiple of their initial bound, as `pliant.interventions.weight_clipping` does."""
    multiple = number("kappa", kappa, 1e-12, do="1 to 5 are usual; a large number such as 1e30 clips nothing.")

    def bounds(learner: Learner) -> dict[str, float]:
        wiring = learner.wiring
        kernels = learner.trained("matrix", *(("head",) if include_head else ()))
        found = {name: wiring.fans_in[name] ** -0.5 for name in kernels if wiring.fans_in[name]}
        fans: dict[str, int] = {}
        for kernel, bias in wiring.biases.items():
            if learner.params[bias].requires_grad and (include_head or wiring.roles[kernel] != "head"):
                fans[bias] = fans.get(bias, 0) + wiring.fans_in.get(kernel, 0)
        return found | {bias: fan**-0.5 for bias, fan in fans.items() if fan}

    def init(learner: Learner) -> State:
        if not bounds(learner):
            raise UserError(
                got="weight clipping on a network without a kernel that is trained",
                wanted="a linear layer or a convolution",
                do="Train one: requires_grad_().",
            )
        return {}

    def after(learner: Learner, state: State, step: int, batch: Batch | None) -> Info:
        del state, step, batch
        num_clipped, total, moved = 0, 0, 0.0
        with torch.no_grad():
            for name, bound in bounds(learner).items() if multiple < _NONE else ():
                parameter = learner.params[name]
                clipped = parameter.clamp(-multiple * bound, multiple * bound)
                num_clipped += int((clipped != parameter).sum())
                total += parameter.numel()
                moved += float((clipped.float() - parameter.float()).square().sum())
                parameter.copy_(clipped)
        return {"clipped_fraction": num_clipped / max(total, 1), "norm_moved": moved**0.5}

    return Mechanism(init, after=after)


def _length(learner: Learner, names: tuple[str, ...]) -> Tensor:
    squares = [learner.params[name].detach().float().square().sum() for name in names]
    return torch.stack([each.to(squares[0].device) for each in squares]).sum().sqrt()


def _move(parameter: Tensor, goal: Tensor, share: float) -> Tensor:
    """Moves a parameter towards a goal by a share; returns the square of the distance."""
    if share == 0:
        return torch.zeros(())
    before = parameter.float().clone()
    after = goal.to(before) if share == 1 else (1 - share) * before + share * goal.to(before)
    parameter.copy_(after)
    return (after - before).square().sum()


def _check(learner: Learner) -> None:
    wiring = learner.wiring
    kernels = {layer.name: [slot.parameter for slot in layer.feeds if slot.role == "kernel"] for layer in wiring.layers}
    without = [name for name, own in kernels.items() if any(not wiring.norms.get(each) for each in own)]
    biased = [kernel for kernel in wiring.norms if kernel in wiring.biases]
    if without or not wiring.norms:
        raise UserError(
            got=f"Normalize-and-Project on {', '.join(without)} without a norm of its own"
            if without
            else "Normalize-and-Project on a network without a norm behind a kernel",
            wanted="hidden layers with a norm in front of every activation: it makes up for the projection",
            do="Put a LayerNorm or a BatchNorm behind every hidden layer, and give the layer bias=False.",
        )
    if biased:
        raise UserError(
            got=f"Normalize-and-Project on {', '.join(biased)} with a bias in front of the norm",
            wanted="no biases there: the norm makes up for weights that are projected, not for biases that are not",
            do="Make the layers with bias=False.",
        )
