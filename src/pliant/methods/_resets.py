"""Methods that begin again, in part or in whole."""

import inspect
from collections.abc import Callable
from typing import Any

from pliant.interventions import (
    full_reset,
    hare_tortoise,
    layer_reset,
    optimizer_reset,
    plasticity_injection,
    shrink_perturb,
    with_injection,
)
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.optimizers import soft_reset
from pliant.penalties import distillation
from pliant.types import Intervention, Method, Number, Role, Wiring

_ALL_BUT_NORMS: tuple[Role, ...] = ("matrix", "head", "bias", "embed", "other")


def _anywhere(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a recipe's builder of a function that asks nothing of the network."""

    def builder(wiring: Wiring, **hyperparameters: Any) -> Any:
        del wiring
        return factory(**hyperparameters)

    first = inspect.Parameter("wiring", inspect.Parameter.POSITIONAL_ONLY)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(factory).parameters.values()]
    builder.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    builder.__doc__ = factory.__doc__
    return builder


def _head_reset(wiring: Wiring, *, every_tasks: Number = 1) -> Intervention:
    return layer_reset(wiring, num_layers=1, every_tasks=every_tasks)


FULL_RESET = Method(
    name="full-reset",
    summary="a new network and a new Adam for every task: what a fresh network learns",
    reference="Nikishin et al. 2022, resets of SAC",
    optimizer=adam_optimizer,
    intervention=_anywhere(full_reset),
    off={"every_tasks": 0},
    boundary_aware=True,
    redraws=True,
)
RESET_DISTILL = Method(
    name="reset-distill",
    summary="a new network for every task, taught by the old one while it starts",
    reference="Schmitt et al. 2018, the student's auxiliary loss; Igl et al. 2021",
    optimizer=adam_optimizer,
    penalty=_anywhere(distillation),
    intervention=_anywhere(full_reset),
    off={"every_tasks": 0, "strength": 0.0},
    boundary_aware=True,
    redraws=True,
)
HEAD_RESET = Method(
    name="head-reset",
    summary="Adam with a new output layer for every task",
    reference="Nikishin et al. 2022, resets of SPR; Lyle et al. 2023",
    optimizer=adam_optimizer,
    intervention=_head_reset,
    off={"every_tasks": 0},
    boundary_aware=True,
)
LAST_K_RESET = Method(
    name="last-k-reset",
    summary="Adam with a new head and new last hidden layers for every task",
    reference="Nikishin et al. 2022, resets of DrQ",
    optimizer=adam_optimizer,
    intervention=layer_reset,
    off={"every_tasks": 0},
    boundary_aware=True,
)
OPTIMIZER_RESET = Method(
    name="optimizer-reset",
    summary="Adam that forgets its moments when the task changes, or only its count (Adam-Rel)",
    reference="Asadi et al. 2023; Ellis et al. 2024",
    optimizer=adam_optimizer,
    intervention=_anywhere(optimizer_reset),
    off={"every_tasks": 0},
    boundary_aware=True,
)
SHRINK_PERTURB = Method(
    name="shrink-perturb",
    summary="Adam; when the task changes, weights are shrunk and fresh ones added",
    reference="Ash and Adams 2020, Shrink, Perturb, Repeat",
    optimizer=adam_optimizer,
    intervention=on_roles(shrink_perturb, *_ALL_BUT_NORMS),
    off={"shrink": 1.0, "perturb": 0.0},
    boundary_aware=True,
)
HARE_TORTOISE = Method(
    name="hare-tortoise",
    summary="Adam set back to its slow average at intervals; the average is evaluated",
    reference="Lee et al. 2024, Hare & Tortoise",
    optimizer=adam_optimizer,
    intervention=_anywhere(hare_tortoise),
    off={"momentum": 0.0},
    remembers="a slow average of the weights",
)
PLASTICITY_INJECTION = Method(
    name="plasticity-injection",
    summary="Adam; once, the head is frozen and a fresh one learns what it does not",
    reference="Nikishin et al. 2023, the definition of the intervention",
    optimizer=adam_optimizer,
    wrap=with_injection,
    intervention=plasticity_injection,
    off={"at_task": 0},
    boundary_aware=True,
    remembers="the head that it froze",
    alone="has frozen heads beside the one in the parameters",
)
SOFT_RESET = Method(
    name="soft-reset",
    summary="SGD whose weights drift back to the start; experimental, the drift is fixed",
    reference="Galashov et al. 2024, the drift model",
    optimizer=on_roles(soft_reset, *_ALL_BUT_NORMS),
    off={"gamma": 1.0},
    base="sgd",
)

METHODS = (
    FULL_RESET,
    RESET_DISTILL,
    HEAD_RESET,
    LAST_K_RESET,
    OPTIMIZER_RESET,
    SHRINK_PERTURB,
    HARE_TORTOISE,
    PLASTICITY_INJECTION,
    SOFT_RESET,
)
