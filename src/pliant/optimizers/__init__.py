"""Optimizers that preserve plasticity, as optax transformations."""

from pliant.optimizers._adamo import IsometryStepState, adamo, add_isometry_step, require_adam

__all__ = ["IsometryStepState", "adamo", "add_isometry_step", "require_adam"]
