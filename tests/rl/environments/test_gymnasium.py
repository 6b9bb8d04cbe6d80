import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pliant
from pliant.errors import UserError
from pliant.rl.environments import from_gymnasium, host_environments, num_host_environments
from pliant.types import World

gymnasium = pytest.importorskip("gymnasium")
NOWHERE = World((), ())
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _nothing_open():
    with host_environments():
        yield


class Toy(gymnasium.Env):
    """Shows how many steps there were; ends where it is told to, or raises."""

    def __init__(self, observations=None, actions=None, shown=lambda steps: np.full(2, steps)):
        self.observation_space = observations or gymnasium.spaces.Box(0, 255, (2,), np.uint8)
        self.action_space = actions or gymnasium.spaces.Discrete(3, start=5)
        self.shown = shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.shown(self.steps), {}

    def step(self, action):
        assert self.action_space.contains(action)
        if action == 7:
            raise RuntimeError("the battery is empty")
        self.steps += 1
        return self.shown(self.steps), float(action), action == 6, False, {}


def test_cart_pole_in_a_compiled_loop_is_that_of_gymnasium():
    num, num_steps = 3, 60
    environment = from_gymnasium("CartPole-v1")
    carts = environment.together(num)
    assert (environment.name, environment.num_actions, environment.max_episode_steps) == ("CartPole-v1", 2, 500)
    assert (environment.observation.shape, environment.observation.dtype) == ((4,), np.float32)

    @jax.jit
    def run(key):
        def step(state, keys):
            actions = jax.random.randint(keys[0], (num,), 0, 2)
            state, outcome = carts.step(keys[1], state, actions, NOWHERE)
            done = outcome.terminated | outcome.truncated
            state, observation = carts.restart(keys[2], state, done, NOWHERE)
            seeds = jax.random.randint(keys[2], (num,), 0, 2**31 - 1, jnp.int32)
            return state, (actions, outcome, observation, seeds)

        state, first = carts.reset(key, NOWHERE)
        state, told = jax.lax.scan(step, state, jax.random.split(key, (num_steps, 3)))
        carts.release(state)
        return first, told

    first, (actions, outcome, after, seeds) = jax.device_get(run(KEY))
    assert outcome.terminated.sum() >= num
    begun = np.asarray(jax.random.randint(KEY, (num,), 0, 2**31 - 1, jnp.int32))
    for copy in range(num):
        cart = gymnasium.make("CartPole-v1")
        np.testing.assert_array_equal(first[copy], cart.reset(seed=int(begun[copy]))[0])
        for time in range(num_steps):
            observation, reward, terminated, truncated, _ = cart.step(int(actions[time, copy]))
            np.testing.assert_array_equal(outcome.observation[time, copy], observation)
            assert outcome.reward[time, copy] == reward
            assert (outcome.terminated[time, copy], outcome.truncated[time, copy]) == (terminated, truncated)
            if terminated:
                observation, _ = cart.reset(seed=int(seeds[time, copy]))
            np.testing.assert_array_equal(after[time, copy], observation)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, jax.device_get(run(KEY)), (first, (actions, outcome, after, seeds)))
    )
    assert num_host_environments() == 0


def test_actions_count_from_the_first_and_limits_truncate():
    toys = from_gymnasium(Toy, max_episode_steps=2).together(2)
    assert toys.name == "Toy"
    state, observation = toys.reset(KEY, NOWHERE)
    assert (observation.dtype, observation.tolist()) == (np.uint8, [[0, 0], [0, 0]])
    state, outcome = toys.step(KEY, state, jnp.array([0, 1]), NOWHERE)
    assert outcome.reward.tolist() == [5.0, 6.0]
    assert outcome.terminated.tolist() == [False, True]
    state, observation = toys.restart(KEY, state, outcome.terminated, NOWHERE)
    assert observation.tolist() == [[1, 1], [0, 0]]
    state, outcome = toys.step(KEY, state, jnp.array([0, 0]), NOWHERE)
    assert outcome.observation.tolist() == [[2, 2], [1, 1]]
    assert outcome.truncated.tolist() == outcome.game_over.tolist() == [True, False]


def test_an_end_at_the_limit_is_an_end_and_not_a_cut():
    toys = from_gymnasium(Toy, max_episode_steps=1).together(1)
    state, _ = toys.reset(KEY, NOWHERE)
    _, outcome = toys.step(KEY, state, jnp.array([1]), NOWHERE)
    assert (outcome.terminated.tolist(), outcome.truncated.tolist()) == ([True], [False])


@pytest.mark.parametrize(
    ("observations", "shown", "wanted"),
    [
        (gymnasium.spaces.Discrete(3, start=1), lambda steps: np.int64(steps + 1), np.array([True, False, False])),
        (gymnasium.spaces.Box(-1, 1, (), np.float64), lambda steps: 0.5, np.float32(0.5)),
        (gymnasium.spaces.Box(-9, 9, (1,), np.int64), lambda steps: np.array([-7]), np.float32([-7])),
        (gymnasium.spaces.Box(0, 1, (1,), np.bool_), lambda steps: np.array([True]), np.array([True])),
    ],
)
def test_observations_become_arrays_that_agents_store(observations, shown, wanted):
    toy = from_gymnasium(lambda: Toy(observations, shown=shown), name="mine", max_episode_steps=5)
    assert toy.name == "mine"
    _, observation = toy.together(1).reset(KEY, NOWHERE)
    assert observation.dtype == toy.observation.dtype == wanted.dtype
    np.testing.assert_array_equal(observation[0], wanted)


def test_what_the_environment_raises_arrives():
    toys = from_gymnasium(Toy, max_episode_steps=9).together(2)

    @jax.jit
    def run(key):
        state, _ = toys.reset(key, NOWHERE)
        step = lambda time, state: toys.step(key, state, jnp.array([0, 0]) + 2 * (time == 3), NOWHERE)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 5, step, state)

    with pytest.raises(
        jax.errors.JaxRuntimeError,
        match="RuntimeError: the battery is empty, from `step` of the environment Toy; wanted an answer",
    ):
        jax.block_until_ready(run(KEY))


def test_an_observation_that_contradicts_its_space_is_refused():
    toys = from_gymnasium(lambda: Toy(shown=lambda steps: np.zeros(3)), max_episode_steps=9).together(1)
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"of shape \(3,\); wanted the shape \(2,\) of the environment's"
    ):
        jax.block_until_ready(toys.reset(KEY, NOWHERE))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Toy, {}, "Toy without a limit of steps.*Pass max_episode_steps=1000"),
        (Toy, {"max_episode_steps": 0}, "max_episode_steps=0; wanted a finite number ≥ 1"),
        (
            lambda: Toy(actions=gymnasium.spaces.Box(-1, 1, (1,))),
            {"max_episode_steps": 5},
            "wanted Discrete actions.*ActionWrapper",
        ),
        (
            lambda: Toy(gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})),
            {"max_episode_steps": 5},
            "wanted Box or Discrete observations.*FlattenObservation",
        ),
    ],
)
def test_environments_that_agents_cannot_use_are_refused(make, options, message):
    with pytest.raises(UserError, match=message):
        from_gymnasium(make, **options)


def test_without_gymnasium_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'pliant\[atari\]'"):
        from_gymnasium("CartPole-v1")


SMALL = {
    "agent": "ppo",
    "methods": ("adam",),
    "seeds": 2,
    "tasks": 2,
    "env_steps": 128,
    "batch_size": 32,
    "widths": (4,),
    "eval_episodes": 2,
    "probe_size": 8,
    "settings": ("ppo.num_envs=4", "ppo.rollout_length=16", "ppo.epochs=1"),
}


@pytest.mark.whole
@pytest.mark.exact
def test_a_run_that_is_killed_ends_with_the_same_numbers(tmp_path):
    def kill(now):
        if now.task == 2 and now.task_done >= 0.5:
            raise KeyboardInterrupt

    cart = from_gymnasium("CartPole-v1")
    whole = pliant.run(environment=cart, out=tmp_path / "whole", curve_points=2, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        pliant.run(environment=cart, out=tmp_path / "killed", curve_points=2, report=kill, **SMALL)
    assert num_host_environments() == 0
    again = pliant.run(environment=cart, out=tmp_path / "killed", curve_points=2, **SMALL)
    pd.testing.assert_frame_equal(again.metrics, whole.metrics)
    pd.testing.assert_frame_equal(again.curves, whole.curves)


@pytest.mark.whole
def test_what_the_environment_raises_ends_a_run(tmp_path):
    class Breaks(Toy):
        def step(self, action):
            return super().step(7 if self.steps == 5 else 5)

    with pytest.raises(UserError, match="got RuntimeError: the battery is empty, from `step`") as error:
        pliant.run(environment=from_gymnasium(Breaks, max_episode_steps=9), out=tmp_path / "run", **SMALL)
    assert str(error.value.__cause__) == "the battery is empty"
