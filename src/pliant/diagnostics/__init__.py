"""Diagnostics: pure functions of arrays, and the registry of those that runs sample."""

from pliant.diagnostics._brownian_twin import random_step
from pliant.diagnostics._dormancy import DormantUnits, dormancy_scores, dormant, is_dormant
from pliant.diagnostics._rank import effective_rank
from pliant.diagnostics._registry import DIAGNOSTICS, SETS, choose
from pliant.diagnostics._taps import tapped
from pliant.diagnostics._weights import IsometryDeviation, isometry_deviation, weight_norm

__all__ = [
    "DIAGNOSTICS",
    "SETS",
    "DormantUnits",
    "IsometryDeviation",
    "choose",
    "dormancy_scores",
    "dormant",
    "effective_rank",
    "is_dormant",
    "isometry_deviation",
    "random_step",
    "tapped",
    "weight_norm",
]
