import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl.environments import ENVIRONMENTS
from pliant.types import World

pytest.importorskip("gymnax")

NOTHING = World((), ())
SIZES = {"cartpole": (4, 2, 500), "acrobot": (6, 3, 500), "mountain-car": (2, 3, 200)}


@pytest.mark.parametrize("name", SIZES)
def test_one_environment_in_all_tasks(name):
    size, num_actions, limit = SIZES[name]
    stream = ENVIRONMENTS[name](num_tasks=3)
    (environment,) = stream.environments
    assert (stream.name, environment.name, stream.num_tasks) == (name, name, 3)
    assert [stream.which(index) for index in range(3)] == [0, 0, 0]
    assert (stream.observation.shape, stream.num_actions) == ((size,), num_actions)
    assert (environment.max_episode_steps, environment.dead_below) == (limit, None)
    assert ENVIRONMENTS[name]().num_tasks == 1
    assert ENVIRONMENTS[name](max_episode_steps=9).environments[0].max_episode_steps == 9


def first_episodes(name, policy, steps, copies=64):
    """Returns of the first episodes, and at which steps they ended."""
    (environment,) = ENVIRONMENTS[name](max_episode_steps=steps).environments

    def step(carried, key):
        state, seen = carried
        state, outcome = environment.step(key, state, policy(key, seen), NOTHING)
        return (state, outcome.observation), (outcome.reward, outcome.terminated, outcome.truncated)

    def episode(key):
        return jax.lax.scan(step, environment.reset(key, NOTHING), jax.random.split(key, steps))[1]

    rewards, ends, cuts = map(np.asarray, jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), copies)))
    last = np.argmax(ends | cuts, axis=1)
    assert (ends | cuts).any(axis=1).all()
    return np.array([row[: to + 1].sum() for row, to in zip(rewards, last, strict=True)]), last + 1, ends


def test_cartpole_falls_by_itself_and_is_held_by_a_simple_rule():
    returns, lengths, ends = first_episodes("cartpole", lambda key, seen: jax.random.randint(key, (), 0, 2), 100)
    assert 18 < returns.mean() < 28
    np.testing.assert_array_equal(returns, lengths)
    assert ends.any(axis=1).all()
    returns, lengths, ends = first_episodes("cartpole", lambda key, seen: jnp.int32(seen[2] + seen[3] > 0), 100)
    assert (returns == 100).all()
    assert not ends.any()


@pytest.mark.whole
def test_mountain_car_is_left_with_momentum():
    """Pushing where it already goes; at random it stays in the valley."""
    returns, _, ends = first_episodes("mountain-car", lambda key, seen: jnp.int32(2 * (seen[1] >= 0)), 200, copies=16)
    assert ends.any(axis=1).all()
    assert (returns > -180).all()
    returns, _, ends = first_episodes(
        "mountain-car", lambda key, seen: jax.random.randint(key, (), 0, 3), 200, copies=16
    )
    assert (returns == -200).all()


@pytest.mark.whole
def test_acrobot_swings_up_with_momentum():
    """The motor pushes the lower link where it already goes. The last step costs nothing."""
    returns, lengths, _ = first_episodes("acrobot", lambda key, seen: jnp.int32(2 * (seen[5] > 0)), 500, copies=16)
    assert (returns > -200).all()
    np.testing.assert_array_equal(returns, 1 - lengths)


@pytest.mark.parametrize("name", SIZES)
def test_refuses(name, monkeypatch):
    limit = SIZES[name][2]
    with pytest.raises(UserError, match="got tasks=0; wanted a finite number ≥ 1"):
        ENVIRONMENTS[name](num_tasks=0)
    for steps in (0, limit + 1):
        with pytest.raises(UserError, match=rf"got max_episode_steps={steps}; wanted a number in \[1, {limit}\]"):
            ENVIRONMENTS[name](max_episode_steps=steps)
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(UserError, match=r"got a Python without gymnax; .*pip install 'pliant\[rl\]'"):
        ENVIRONMENTS[name]()
