"""Diagnostics: pure functions of arrays, and the registry of those that runs sample."""

from collections.abc import Mapping

from pliant.diagnostics._dormancy import DORMANT, DormantUnits, dormancy_scores, dormant, is_dormant
from pliant.diagnostics._rank import EFFECTIVE_RANK, effective_rank
from pliant.diagnostics._weights import (
    ISOMETRY_DEVIATION,
    WEIGHT_NORM,
    IsometryDeviation,
    isometry_deviation,
    weight_norm,
)
from pliant.types import Diagnostic

DIAGNOSTICS: Mapping[str, Diagnostic] = {
    diagnostic.name: diagnostic for diagnostic in (DORMANT, EFFECTIVE_RANK, ISOMETRY_DEVIATION, WEIGHT_NORM)
}

__all__ = [
    "DIAGNOSTICS",
    "DormantUnits",
    "IsometryDeviation",
    "dormancy_scores",
    "dormant",
    "effective_rank",
    "is_dormant",
    "isometry_deviation",
    "weight_norm",
]
