import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl.environments import ENVIRONMENTS, probe
from pliant.types import World
from strict_types import unchecked

KINDS = ("constant", "observation", "delayed", "action", "both")
NOTHING = World((), ())


def _episode(kind, key, actions):
    """What is seen, the rewards, and whether each step ended the episode."""
    environment = probe(kind=kind).environments[0]
    state, seen = environment.reset(key, NOTHING)
    found = []
    for action in actions:
        state, outcome = environment.step(key, state, jnp.int32(action), NOTHING)
        assert not outcome.truncated
        found.append((float(seen[0]), float(outcome.reward), bool(outcome.terminated)))
        seen = outcome.observation
    return found


@pytest.mark.parametrize("action", [0, 1])
def test_rewards_are_as_stated(key, action):
    sign = 2 * action - 1
    assert _episode("constant", key, [action]) == [(0.0, 1.0, True)]
    assert _episode("action", key, [action]) == [(0.0, sign, True)]
    assert _episode("delayed", key, [action, 1 - action]) == [(0.0, 0.0, False), (1.0, 1.0, True)]
    for seed in range(8):
        (seen, reward, ended), *_ = _episode("observation", jax.random.key(seed), [action])
        assert (abs(seen), reward, ended) == (1.0, seen, True)
        assert _episode("both", jax.random.key(seed), [action]) == [(seen, sign * seen, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_fit_one_agent(kind):
    """One compiled program, over copies; specifications are what `reset` and `step` return."""
    stream = probe(kind=kind, num_tasks=3)
    environment = stream.environments[stream.which(2)]

    def copies(keys, actions):
        state, seen = jax.vmap(environment.reset, (0, None))(keys, NOTHING)
        return seen, jax.vmap(environment.step, (0, 0, 0, None))(keys, state, actions, NOTHING)[1]

    seen, outcome = jax.jit(copies)(jax.random.split(jax.random.key(0), 64), jnp.arange(64) % 2)
    assert seen.shape == outcome.observation.shape == (64, *stream.observation.shape)
    assert seen.dtype == outcome.observation.dtype == stream.observation.dtype
    assert outcome.reward.dtype == jnp.float32
    assert (stream.inputs, stream.num_actions) == (stream.observation, 2)
    assert set(np.unique(seen)) == ({-1.0, 1.0} if kind in ("observation", "both") else {0.0})


@pytest.mark.parametrize("kind", KINDS)
def test_ignoring_the_observation_is_dead_where_that_is_known(kind, key):
    dead_below = probe(kind=kind).environments[0].dead_below
    assert dead_below is None or kind == "both"
    if dead_below is not None:
        held = np.mean([_episode(kind, each, [1])[0][1] for each in jax.random.split(key, 64)])
        assert held < dead_below < 1.0


def test_errors():
    with pytest.raises(UserError, match="kind='late'; wanted 'both', 'constant', 'observation', 'delayed' or 'ac"):
        unchecked(probe)(kind="late")
    with pytest.raises(UserError, match="tasks=0"):
        probe(num_tasks=0)


def test_is_registered():
    assert ENVIRONMENTS["probe"] is probe
