"""Both agents learn the known values of the probe environments, and of one whose episodes are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.rl import AgentConfig, make_plan
from pliant.rl.environments import probe
from pliant.specs import Objects
from pliant.training import train
from pliant.types import EnvironmentStream, Outcome

DISCOUNT = 0.5
SEEN = (-1.0, 0.0, 1.0)
KINDS = ("constant", "observation", "delayed", "action", "both", "cut")
VALUES = {
    "constant": {0: 1},
    "observation": {-1: -1, 1: 1},
    "delayed": {0: DISCOUNT, 1: 1},
    "action": {0: 1},
    "both": {-1: 1, 1: 1},
    "cut": {0: DISCOUNT, 1: 1},
}
"""Of observations, under the best policy."""
ACTIONS = {"action": {(0, 0): -1}, "both": {(1, 0): -1, (-1, 1): -1}}
"""Values of worse actions."""
BEST = {"action": {0: 1}, "both": {-1: 0, 1: 1}}


def _cut(environment):
    """Sees 0 or 1; 1 is rewarded and ends, behind 0 a time limit hides 1."""

    def reset(key, world):
        seen = jax.random.bernoulli(key, shape=(1,)).astype(jnp.float32)
        return seen, seen

    def step(key, state, action, world):
        is_one = state[0] == 1
        return state, Outcome(jnp.ones(1), state[0], is_one, ~is_one)

    return environment._replace(name="cut", reset=reset, step=step)


def _stream():
    """One after the other, so that an agent's program is compiled once."""
    environments = [probe(kind=kind).environments[0] for kind in KINDS[:-1]]
    environments.append(_cut(environments[0]))
    return EnvironmentStream("probes", len(KINDS), tuple(environments), lambda index: index)


def _learned(agent, methods, settings, tmp_path, **choices):
    """By task: what the network puts out for what can be seen, and returns."""
    config = AgentConfig(
        environment="probes",
        agent=agent,
        methods=methods,
        tasks=len(KINDS),
        seeds=2,
        widths=(16,),
        learning_rate=1e-2,
        settings=(f"{agent}.discount={DISCOUNT}", *settings),
        headline="eval_return",
        **choices,
    )
    plan = make_plan(config, objects=Objects(environment={"probes": _stream()}))

    def looking(source):
        def evaluate(network, weights, scene, state):
            output = network.apply(*weights, jnp.array(SEEN)[:, None], train=False, key=None)[0]
            return {"output": output, "found": source.evaluate(network, weights, scene, state)}

        def summarize(found):
            leaves = jax.tree_util.tree_flatten_with_path(found["output"])[0]
            named = {
                f"output{jax.tree_util.keystr(path)}{place}": float(value)
                for path, leaf in leaves
                for place, value in np.ndenumerate(leaf)
            }
            return source.summarize(found["found"]) | named

        return source._replace(evaluate=evaluate, summarize=summarize)

    methods = [method._replace(source=looking(method.source)) for method in plan.methods]
    folder = train(plan._replace(methods=tuple(methods)), tmp_path / "run")
    return folder.metrics.pivot_table(index=["method", "task", "seed"], columns="metric", values="value")


@pytest.mark.parametrize("name", KINDS)
def test_dqn_learns_known_values(name, of_dqn):
    for _, row in of_dqn.loc["full-reset", 1 + KINDS.index(name)].iterrows():
        for seen, best in VALUES[name].items():
            for action in (0, 1):
                expected = ACTIONS.get(name, {}).get((seen, action), best)
                found = row[f"output({SEEN.index(seen)}, {action})"]
                assert found == pytest.approx(expected, abs=0.1), (seen, action)
        if name in BEST:
            assert row["eval_return"] == 1.0


@pytest.fixture(scope="module")
def of_dqn(tmp_path_factory):
    settings = ["target_every=25", "min_replay=64", "replay_size=256", "epsilon_final=0.5", "eval_epsilon=0"]
    options = [f"dqn.{each}" for each in (*settings, "epsilon_steps=1", "replay_at_switch=clear")]
    return _learned("dqn", ("full-reset",), options, tmp_path_factory.mktemp("dqn"), env_steps=400, batch_size=32)


@pytest.fixture(scope="module")
def of_ppo(tmp_path_factory):
    settings = ["ppo.num_envs=16", "ppo.rollout_length=8", "ppo.entropy_strength=0", "ppo.gae_decay=0.5"]
    return _learned(
        "ppo", ("full-reset",), settings, tmp_path_factory.mktemp("ppo"), env_steps=128 * 60, batch_size=128
    )


@pytest.mark.parametrize("name", KINDS)
def test_ppo_learns_known_values(name, of_ppo):
    for _, row in of_ppo.loc["full-reset", 1 + KINDS.index(name)].iterrows():
        for seen, expected in VALUES[name].items():
            place = SEEN.index(seen)
            assert row[f"output['value']({place}, 0)"] == pytest.approx(expected, abs=0.1), seen
            if name in BEST:
                logits = [row[f"output['policy']({place}, {action})"] for action in (0, 1)]
                assert np.argmax(logits) == BEST[name][seen]
                assert abs(logits[1] - logits[0]) > 2
