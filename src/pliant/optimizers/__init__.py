"""Optimizers that preserve plasticity, as optax transformations."""

from pliant.optimizers._adamo import IsometryStepState, adamo, add_isometry_step

__all__ = ["IsometryStepState", "adamo", "add_isometry_step"]
