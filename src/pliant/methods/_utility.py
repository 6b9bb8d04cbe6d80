"""Methods that spare the weights that are of use, and perturb or shrink the others."""

from typing import Literal

import optax

from pliant.interventions import dash
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.optimizers import upgd
from pliant.types import Method, Number, Wiring


def _upgd_optimizer(
    wiring: Wiring,
    *,
    learning_rate: Number,
    beta: Number = 0.999,
    sigma: Number = 1e-3,
    weight_decay: Number = 1e-3,
    utility: Literal["weight", "feature"] = "weight",
    scope: Literal["global", "local"] = "global",
    protecting: bool = True,
    base: Literal["sgd", "adam"] = "sgd",
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    return upgd(
        learning_rate,
        beta=beta,
        sigma=sigma,
        weight_decay=weight_decay,
        utility=utility,
        scope=scope,
        protecting=protecting,
        base=base,
        b1=b1,
        b2=b2,
        eps=eps,
        wiring=wiring,
    )


UPGD = Method(
    name="upgd",
    summary="SGD that spares useful weights and perturbs useless ones",
    reference="Elsayed and Mahmood 2024, algorithm 1",
    optimizer=_upgd_optimizer,
    off={"protecting": False, "sigma": 0.0, "weight_decay": 0.0},
    base="sgd",
)
DASH = Method(
    name="dash",
    summary="Adam that shrinks weights which do not point where a new task wants them",
    reference="Shin et al. 2024, algorithm 1",
    optimizer=adam_optimizer,
    intervention=on_roles(dash, "matrix", "head", "bias"),
    off={"min_scale": 1.0},
    boundary_aware=True,
)

METHODS = (UPGD, DASH)
