"""Published benchmarks by name, each at three scales."""

from collections.abc import Mapping

from pliant.experiments.benchmarks import (
    _dohare,
    _gradual,
    _isometry,
    _isometry_agents,
    _kumar,
    _lyle,
    _lyle_agents,
    _predictors,
    _survey,
)
from pliant.experiments.benchmarks._benchmark import SCALES, Benchmark, Scale, with_choices
from pliant.experiments.benchmarks._survey import REMEDIES

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for family in (_isometry, _isometry_agents, _gradual, _kumar, _dohare, _lyle, _lyle_agents, _survey, _predictors)
    for benchmark in family.BENCHMARKS
}

__all__ = ["BENCHMARKS", "REMEDIES", "SCALES", "Benchmark", "Scale", "with_choices"]
