import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.rl.environments import from_gymnax
from pliant.types import World

NOTHING = World((), ())


class Space(NamedTuple):
    n: int


class Params(NamedTuple):
    goal: float = 3.0
    max_steps_in_episode: int = 5


class Goal(NamedTuple):
    """Parameters without a time limit."""

    goal: float = 9.0


class Corridor:
    """A user's environment without gymnax: walk to the goal; a state of Python numbers that become floats."""

    name = "corridor"
    default_params = Params()

    def action_space(self, params):
        return Space(2)

    def reset_env(self, key, params):
        return jnp.zeros(2), {"place": 0, "time": 0, "key": key}

    def step_env(self, key, state, action, params):
        place = state["place"] + 1.0 * action
        state = {"place": place, "time": state["time"] + 1, "key": jax.random.fold_in(state["key"], 1)}
        return jnp.array([place, 1.0]), state, -1, place >= params.goal, {}

    def is_truncated(self, state, params):
        return state["time"] >= params.max_steps_in_episode


def changed(**functions):
    """A corridor with other functions."""
    return type("Changed", (Corridor,), {name: staticmethod(function) for name, function in functions.items()})()


def walk(environment, actions, world=NOTHING):
    """Observations, rewards, ends and cuts of an episode; `scan` refuses states whose types change."""

    def step(state, action):
        state, outcome = environment.step(jax.random.key(1), state, action, world)
        return state, outcome

    state, _ = environment.reset(jax.random.key(0), world)
    return jax.lax.scan(step, state, jnp.array(actions))[1]


def test_an_environment_of_a_users():
    environment = from_gymnax(Corridor())
    assert (environment.name, environment.num_actions, environment.max_episode_steps) == ("corridor", 2, 5)
    assert environment.observation == jax.ShapeDtypeStruct((2,), jnp.float32)
    found = walk(environment, [1, 0, 1, 1])
    np.testing.assert_array_equal(found.observation[:, 0], [1, 1, 2, 3])
    assert found.reward.tolist() == [-1.0] * 4
    assert found.reward.dtype == jnp.float32
    assert found.terminated.tolist() == [False, False, False, True]
    assert not found.truncated.any()


def test_an_end_is_no_cut():
    """Also where both happen in one step; the observation is the last one of the episode."""
    environment = from_gymnax(Corridor())
    slow, late = walk(environment, [0] * 5), walk(environment, [0, 0, 1, 1, 1])
    assert slow.truncated.tolist() == [False] * 4 + [True]
    assert not slow.terminated.any()
    assert (late.terminated.tolist(), late.truncated.any()) == ([False] * 4 + [True], False)
    np.testing.assert_array_equal(late.observation[-1], [3, 1])


def test_a_time_limit_of_ones_own():
    found = walk(from_gymnax(Corridor(), max_episode_steps=3), [0] * 3)
    assert found.truncated.tolist() == [False, False, True]
    assert from_gymnax(Corridor(), max_episode_steps=3).max_episode_steps == 3
    longer = from_gymnax(Corridor(), max_episode_steps=9)
    assert longer.max_episode_steps == 5
    assert walk(longer, [0] * 5).truncated.tolist() == [False] * 4 + [True]
    found = walk(from_gymnax(changed(is_truncated=lambda *_: False), Goal(), max_episode_steps=2), [1, 1])
    assert found.truncated.tolist() == [False, True]


def test_tasks_may_set_the_parameters():
    """One program for all tasks."""
    environment = from_gymnax(Corridor(), lambda task: Params(goal=task))

    def ends(goal):
        return walk(environment, [1] * 4, World((), goal)).terminated

    found = jax.jit(jax.vmap(ends))(jnp.array([1.0, 2.0, 4.0]))
    assert np.argmax(found, axis=1).tolist() == [0, 1, 3]
    assert environment.max_episode_steps == 5
    assert from_gymnax(Corridor(), Params(goal=1.0, max_steps_in_episode=7)).max_episode_steps == 7


@pytest.mark.parametrize(
    ("own", "wanted", "stored"),
    [
        (jnp.bool_, None, "bool"),
        (jnp.uint8, None, "uint8"),
        (jnp.int32, None, "float32"),
        (jnp.float16, None, "float32"),
        (jnp.float32, "bool", "bool"),
        (jnp.int32, "uint8", "uint8"),
    ],
)
def test_observations_are_stored_compactly(own, wanted, stored):
    def reset_env(key, params):
        return jnp.array([0, 1], own), {"time": 0}

    def step_env(key, state, action, params):
        return jnp.array([1, 0], own), {"time": state["time"] + 1}, 1.0, False, {}

    environment = from_gymnax(changed(reset_env=reset_env, step_env=step_env), observation_dtype=wanted)
    assert environment.observation == jax.ShapeDtypeStruct((2,), jnp.dtype(stored))
    state, observation = environment.reset(jax.random.key(0), NOTHING)
    _, outcome = environment.step(jax.random.key(0), state, jnp.int32(0), NOTHING)
    assert observation.dtype == outcome.observation.dtype == environment.observation.dtype
    assert (observation.tolist(), outcome.observation.tolist()) == ([0, 1], [1, 0])


def test_states_keep_their_types():
    environment = from_gymnax(Corridor())
    key = jax.random.key(0)
    first = jax.eval_shape(environment.reset, key, NOTHING)[0]
    second = jax.eval_shape(environment.step, key, first, jnp.int32(0), NOTHING)[0]
    assert first == second
    assert (first["place"].dtype, first["time"].dtype) == (jnp.float32, jnp.int32)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(first))


def test_steps_are_those_of_gymnax():
    gymnax = pytest.importorskip("gymnax")
    theirs, params = gymnax.make("CartPole-v1")
    ours = from_gymnax(theirs, params)
    assert (ours.name, ours.num_actions, ours.max_episode_steps) == ("CartPole-v1", 2, 500)

    @jax.jit
    def both(key):
        """They reset within a step, we do not."""
        (_, state), keys = theirs.reset_env(key, params), jax.random.split(key, 60)
        one, _ = ours.reset(key, NOTHING)

        def step(carried, key):
            state, one = carried
            action = jax.random.randint(key, (), 0, 2)
            _, state, reward, terminated, truncated, info = theirs.step(key, state, action, params)
            one, outcome = ours.step(jax.random.split(key)[0], one, action, NOTHING)
            return (state, one), ((info["final_observation"], reward, terminated, truncated), outcome[:4])

        return jax.lax.scan(step, (state, one), keys)[1]

    found = both(jax.random.key(0))
    last = int(np.argmax(found[0][2]))
    assert last > 5
    for wanted, ours_found in zip(*found, strict=True):
        np.testing.assert_allclose(wanted[: last + 1], ours_found[: last + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.whole
def test_all_of_gymnax_with_discrete_actions():
    gymnax = pytest.importorskip("gymnax")
    continuous = {"Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"}
    for name in set(gymnax.registered_envs) - {"MNISTBandit-bsuite"}:  # which downloads images
        theirs = gymnax.make(name)
        if name in continuous:
            with pytest.raises(UserError, match="wanted discrete actions"):
                from_gymnax(*theirs)
            continue
        environment = from_gymnax(*theirs)
        state, observation = jax.eval_shape(environment.reset, jax.random.key(0), NOTHING)
        after, outcome = jax.eval_shape(environment.step, jax.random.key(0), state, jnp.int32(0), NOTHING)
        assert (observation, state) == (outcome.observation, after)
        assert observation == environment.observation


def _tuple_observation(key, params):
    return (jnp.zeros(2), jnp.zeros(2)), {"place": 0, "time": 0, "key": key}


def _growing(key, state, action, params):
    return jnp.zeros(3), state, 0.0, False, {}


def _with_another_field(key, state, action, params):
    return jnp.zeros(2), {**state, "extra": 0}, 0.0, False, {}


def _old(key, state, action, params):
    return jnp.zeros(2), state, 0.0, False, False, {}


def _many_rewards(key, state, action, params):
    return jnp.zeros(2), state, jnp.zeros(2), False, {}


STEP = r"got a step of 'corridor' that changes the shapes .* is no scalar; wanted \(observation, state, reward"


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (Corridor, {}, r"got the class Corridor; wanted an object in the style of gymnax ≥ 1.0, with reset_env, .*"),
        ("CartPole-v1", {}, r"got a str without reset_env, .*Pass an instance, as from_gymnax\(\*gymnax.make"),
        (changed(is_truncated=None), {}, "got a Changed without is_truncated; wanted an object in the style of gymnax"),
        (changed(action_space=lambda params: "Box"), {}, "got the actions Box of 'corridor'; wanted discrete actions"),
        (changed(action_space=lambda params: Space(0)), {}, "got number of actions of 'corridor'=0; wanted a finite"),
        (
            changed(reset_env=_tuple_observation),
            {},
            "got observations of 'corridor' that are a tuple; wanted one array",
        ),
        (changed(step_env=_growing), {}, STEP),
        (changed(step_env=_with_another_field), {}, STEP),
        (changed(step_env=_old), {}, STEP),
        (changed(step_env=_many_rewards), {}, STEP),
        (
            Corridor(),
            {"params": Goal()},
            "got 'corridor' without the parameter max_steps_in_episode; wanted a",
        ),
        (Corridor(), {"max_episode_steps": 0}, "got max_episode_steps=0; wanted a finite number ≥ 1. Leave it out"),
        (
            Corridor(),
            {"observation_dtype": "int8"},
            "got observation_dtype='int8'; wanted 'float32', 'bool', 'uint8' or",
        ),
    ],
)
def test_refuses(environment, options, message):
    with pytest.raises(UserError, match=message):
        inspect.unwrap(from_gymnax)(environment, **options)
