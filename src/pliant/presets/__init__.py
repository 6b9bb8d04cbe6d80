"""Published benchmarks by name, each at three scales."""

from collections.abc import Mapping

from pliant.presets import _dohare, _gradual, _isometry, _kumar, _lyle
from pliant.presets._preset import SCALES, Preset, Scale, with_choices

PRESETS: Mapping[str, Preset] = {
    preset.name: preset for family in (_isometry, _gradual, _kumar, _dohare, _lyle) for preset in family.PRESETS
}

__all__ = ["PRESETS", "SCALES", "Preset", "Scale", "with_choices"]
