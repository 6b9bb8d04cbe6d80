"""Environments of the user's own, given as objects, classes and functions of three libraries."""

import numpy as np
import pytest

import pliant
from pliant.errors import UserError
from pliant.rl import environment_factory
from pliant.rl.environments import own_environments
from rl.counting import counting, stream

gymnasium = pytest.importorskip("gymnasium")
gymnax = pytest.importorskip("gymnax")


class Corridor(gymnasium.Env):
    """Three cells; action 1 walks right, the end pays 1."""

    spec = gymnasium.envs.registration.EnvSpec("Corridor-v0", max_episode_steps=9)
    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(0.0, 2.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.cell += int(action)
        return np.array([self.cell], np.float32), float(self.cell == 2), self.cell == 2, False, {}


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (lambda: counting(3), "counting"),
        (lambda: stream(counting(3), num_tasks=9), "counting"),
        (lambda: counting, "counting"),
        (lambda: gymnax.make("CartPole-v1"), "CartPole-v1"),
        (lambda: gymnax.make("CartPole-v1")[0], "CartPole-v1"),
        (lambda: gymnasium.make("CartPole-v1"), "CartPole-v1"),
        (lambda: Corridor, "Corridor-v0"),
        (lambda: lambda: gymnasium.make("CartPole-v1"), "CartPole-v1"),
    ],
)
def test_environments_are_made_of_it(found, name):
    made = own_environments(found(), num_tasks=3)
    assert made.name == name
    assert made.num_tasks == 3
    assert made.num_actions == 2
    assert environment_factory(found())(num_tasks=2).num_tasks == 2


@pytest.mark.parametrize("found", [3, lambda length: counting(length), lambda: 3])
def test_anything_else_is_refused(found):
    with pytest.raises(UserError, match=r"wanted a function .*, or an environment of pliant, gymnax or"):
        environment_factory(found)(num_tasks=1)


@pytest.mark.whole
@pytest.mark.parametrize("environment", [gymnax.make("CartPole-v1"), Corridor], ids=["gymnax", "gymnasium"])
def test_an_agent_acts_in_it(environment, tmp_path):
    folder = pliant.run(
        environment,
        agent="ppo",
        methods="adam",
        seeds=2,
        env_steps=64,
        batch_size=16,
        widths=(8,),
        eval_episodes=1,
        settings=("ppo.num_envs=4", "ppo.rollout_length=8"),
        out=tmp_path / "run",
    )
    values = folder.metrics.pivot_table(index="seed", columns="metric", values="value")
    assert (values["episode_length"] > 1).all()
    assert np.isfinite(values).all(axis=None)
