"""Environments: sequences of tasks for agents."""

from collections.abc import Callable, Mapping

from pliant.types import EnvironmentStream

ENVIRONMENTS: Mapping[str, Callable[..., EnvironmentStream]] = {}
"""By name: factories `([dataset,] *, num_tasks, **options) -> EnvironmentStream`."""

__all__ = ["ENVIRONMENTS"]
