"""Optimizers that preserve plasticity, as optax transformations."""

from pliant.optimizers._adam import ADAM, adam
from pliant.optimizers._adam_per_weight import (
    ADAM_PER_WEIGHT,
    ScaleByAdamPerWeightState,
    adam_per_weight,
    scale_by_adam_per_weight,
)
from pliant.optimizers._adam_tuned import ADAM_TUNED, adam_tuned
from pliant.optimizers._adamo import ADAMO, ADAMO_MAXMIN, IsometryStepState, adamo, add_isometry_step
from pliant.optimizers._adamw import ADAMW, LAYERNORM_WEIGHT_DECAY, WEIGHT_DECAY, adamw
from pliant.optimizers._frozen import hold_frozen
from pliant.optimizers._info import optimizer_info
from pliant.optimizers._muon import MUON, muon
from pliant.optimizers._rmsprop import RMSPROP, rmsprop
from pliant.optimizers._sgd import SGD, sgd
from pliant.optimizers._soft_reset import SOFT_RESET, SoftResetState, soft_reset
from pliant.optimizers._task_schedule import CYCLIC_LR, REWARMED_LR, task_schedule
from pliant.optimizers._upgd import UPGD, UPGDState, upgd

__all__ = [
    "ADAM",
    "ADAMO",
    "ADAMO_MAXMIN",
    "ADAMW",
    "ADAM_PER_WEIGHT",
    "ADAM_TUNED",
    "CYCLIC_LR",
    "LAYERNORM_WEIGHT_DECAY",
    "MUON",
    "REWARMED_LR",
    "RMSPROP",
    "SGD",
    "SOFT_RESET",
    "UPGD",
    "WEIGHT_DECAY",
    "IsometryStepState",
    "ScaleByAdamPerWeightState",
    "SoftResetState",
    "UPGDState",
    "adam",
    "adam_per_weight",
    "adam_tuned",
    "adamo",
    "adamw",
    "add_isometry_step",
    "hold_frozen",
    "muon",
    "optimizer_info",
    "rmsprop",
    "scale_by_adam_per_weight",
    "sgd",
    "soft_reset",
    "task_schedule",
    "upgd",
]
