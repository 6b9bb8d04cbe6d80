"""A seed that diverges is recorded as such, and leaves the others alone to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.results import summarize_run
from pliant.types import Outcome
from rl.counting import counting, stream

SETTINGS = {
    "ppo": ("ppo.num_envs=4", "ppo.rollout_length=8", "ppo.epochs=2"),
    "dqn": ("dqn.min_replay=8", "dqn.replay_size=32", "dqn.steps_per_update=8", "dqn.num_envs=4"),
}


def unlucky(reward):
    """Environments that pay `reward` in half of the seeds."""
    honest = counting(3)

    def step(key, state, action, world):
        state, outcome = honest.step(key, state, action, world)
        return state, Outcome(*outcome)._replace(reward=jnp.where(world.task, world.data, outcome.reward))

    return stream(honest._replace(step=step), num_tasks=2)._replace(
        data=np.float32(reward), task=lambda key, index: jax.random.bernoulli(key)
    )


@pytest.mark.parametrize("agent", ["ppo", pytest.param("dqn", marks=pytest.mark.whole)])
def test_a_seed_that_diverges_leaves_the_others_alone(agent, tmp_path):
    def values(name, reward, rates):
        folder = pliant.run(
            environment=unlucky(reward),
            agent=agent,
            methods="adam",
            seeds=3,
            tasks=2,
            env_steps=64,
            batch_size=16,
            widths=(4,),
            eval_episodes=2,
            probe_size=8,
            settings=SETTINGS[agent],
            grid=(f"adam.learning_rate={rates}",),
            out=tmp_path / name,
        )
        found = folder.metrics.pivot_table(index=["method", "seed", "task"], columns="metric", values="value")
        return found, summarize_run(folder.metrics, folder.headline)

    (calm, _), (found, summary) = values("calm", 0.5, "0.01,0.02"), values("wild", np.nan, "0.01,3e38")
    label, wild = "adam[learning_rate=0.01]", "adam[learning_rate=3e+38]"
    is_bad = found.loc[label]["diverged"].groupby("seed").max() == 1
    assert 0 < is_bad.sum() < 3, "choose other seeds"
    assert (found.loc[wild]["diverged"] == 1).all()
    assert (calm["diverged"] == 0).all()
    good = [seed for seed, bad in is_bad.items() if not bad]
    np.testing.assert_array_equal(found.loc[label].loc[good], calm.loc[label].loc[good])
    assert np.isfinite(found.loc[label].loc[good]).all(axis=None)
    assert summary.set_index("method")["num_diverged"].to_dict() == {label: int(is_bad.sum()), wild: 3}
    assert np.isfinite(found.loc[wild].loc[good][["episode_return", "eval_return", "episode_length"]]).all(axis=None)
