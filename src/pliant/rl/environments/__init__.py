"""Environments: sequences of tasks for agents."""

from collections.abc import Callable, Mapping

from pliant.rl.environments._atari import atari
from pliant.rl.environments._classic_control import acrobot, cartpole, mountain_car
from pliant.rl.environments._classification_mdp import classification_mdp
from pliant.rl.environments._gymnasium import from_gymnasium
from pliant.rl.environments._gymnax import from_gymnax
from pliant.rl.environments._host import host_environments, num_host_environments
from pliant.rl.environments._minatar import minatar
from pliant.rl.environments._octax import octax
from pliant.rl.environments._own import is_environment, own_environments
from pliant.rl.environments._probe import probe
from pliant.types import EnvironmentStream

ENVIRONMENTS: Mapping[str, Callable[..., EnvironmentStream]] = {
    "acrobot": acrobot,
    "atari": atari,
    "cartpole": cartpole,
    "classification-mdp": classification_mdp,
    "minatar": minatar,
    "mountain-car": mountain_car,
    "octax": octax,
    "probe": probe,
}
"""By name: factories `([dataset,] *, num_tasks, **options) -> EnvironmentStream`."""

__all__ = [
    "ENVIRONMENTS",
    "acrobot",
    "atari",
    "cartpole",
    "classification_mdp",
    "from_gymnasium",
    "from_gymnax",
    "host_environments",
    "is_environment",
    "minatar",
    "mountain_car",
    "num_host_environments",
    "octax",
    "own_environments",
    "probe",
]
