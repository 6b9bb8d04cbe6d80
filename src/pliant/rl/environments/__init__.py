"""Environments: sequences of tasks for agents."""

from collections.abc import Callable, Mapping

from pliant.rl.environments._classification_mdp import classification_mdp
from pliant.rl.environments._octax import octax
from pliant.rl.environments._probe import probe
from pliant.types import EnvironmentStream

ENVIRONMENTS: Mapping[str, Callable[..., EnvironmentStream]] = {
    "classification-mdp": classification_mdp,
    "octax": octax,
    "probe": probe,
}
"""By name: factories `([dataset,] *, num_tasks, **options) -> EnvironmentStream`."""

__all__ = ["ENVIRONMENTS", "classification_mdp", "octax", "probe"]
