"""Published experiments: their benchmarks at three scales, what they claim, and their figures."""

from pliant.experiments.benchmarks import BENCHMARKS, SCALES, Benchmark, Scale, with_choices

__all__ = ["BENCHMARKS", "SCALES", "Benchmark", "Scale", "with_choices"]
