"""Optimizers that preserve plasticity, as optax transformations."""

from pliant.optimizers._adamo import IsometryStepState, adamo, add_isometry_step
from pliant.optimizers._frozen import hold_frozen
from pliant.optimizers._info import optimizer_info
from pliant.optimizers._per_weight_adam import ScaleByAdamPerWeightState, scale_by_adam_per_weight
from pliant.optimizers._soft_reset import SoftResetState, soft_reset
from pliant.optimizers._task_schedule import task_schedule
from pliant.optimizers._upgd import UPGDState, upgd

__all__ = [
    "IsometryStepState",
    "ScaleByAdamPerWeightState",
    "SoftResetState",
    "UPGDState",
    "adamo",
    "add_isometry_step",
    "hold_frozen",
    "optimizer_info",
    "scale_by_adam_per_weight",
    "soft_reset",
    "task_schedule",
    "upgd",
]
