"""Published benchmarks by name, each at three scales."""

from collections.abc import Mapping

from pliant.presets import _dohare, _gradual, _isometry, _isometry_agents, _kumar, _lyle, _lyle_agents
from pliant.presets._preset import SCALES, Preset, Scale, with_choices

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for family in (_isometry, _isometry_agents, _gradual, _kumar, _dohare, _lyle, _lyle_agents)
    for preset in family.PRESETS
}

__all__ = ["PRESETS", "SCALES", "Preset", "Scale", "with_choices"]
