"""Plasticity of agents, as Lyle et al. probe it: at the end of each task, on observations of their own."""

import jax
import numpy as np
import pytest

from pliant.rl import AgentConfig, Budget, dqn, make_plan
from pliant.rl.environments import classification_mdp, probe
from pliant.streams import load_dataset
from pliant.targets import two_hot
from pliant.training import run_folder, train

SMALL = AgentConfig(
    environment="classification-mdp",
    methods=("adam",),
    seeds=2,
    tasks=2,
    widths=(8,),
    batch_size=16,
    eval_episodes=0,
    diagnostics=("probe-plasticity:num_targets=2:num_steps=8:initial=true",),
    diagnose_after=(1, 2),
)
SETTINGS = {
    "dqn": (64, ("dqn.num_envs=4", "dqn.steps_per_update=4", "dqn.min_replay=32", "dqn.replay_size=200")),
    "ppo": (64, ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=1")),
}


@pytest.mark.whole
@pytest.mark.parametrize("agent", SETTINGS)
def test_the_probe_of_an_agent_by_its_age(agent, tmp_path):
    """Each seed has its own number after each task: of the action values, or of the policy."""
    env_steps, settings = SETTINGS[agent]
    config = AgentConfig(**vars(SMALL) | {"agent": agent, "env_steps": env_steps, "settings": settings})
    plan = make_plan(config)
    folder = train(plan, run_folder(plan, tmp_path))
    table = folder.metrics.pivot_table(index="metric", columns=["seed", "task"], values="value")
    final, began = table.loc["probe_final_loss"], table.loc["probe_initial_loss"]
    assert len(set(final)) == final.size == 4
    np.testing.assert_allclose(table.loc["probe_loss_increase"], final - began)
    assert (table.loc["probe_final_loss/2"] != final).all()
    assert folder.arrays("adam")[2]["probe-plasticity/curves"].shape == (2, 2, 9)


def test_how_outputs_stand_for_action_values_is_stated(key):
    """Bins of action 1, then of action 2, …, as the agent itself reads them."""
    stream = classification_mdp(load_dataset("digits"))
    bins = two_hot(num_bins=3, low=-1.0, high=1.0)
    source = dqn(stream, Budget(10, 5), bins, min_replay=5, replay_size=10)
    assert source.num_outputs == 30
    output = jax.random.normal(key, (4, 30))
    found = source.objective.coded.values(output)
    np.testing.assert_allclose(found, jax.nn.softmax(output.reshape(4, 10, 3)) @ bins.centres, rtol=1e-5)
    assert dqn(probe(), Budget(10, 5), min_replay=5, replay_size=10).objective.coded is None
