"""Rewrites of weights and optimizer statistics, and the surgery that they share."""

from pliant.interventions._redo import redo
from pliant.interventions._surgery import MOMENTS, clear_moments, reset_units, slot_mask

__all__ = ["MOMENTS", "clear_moments", "redo", "reset_units", "slot_mask"]
