"""The replay against a list of all transitions that were ever made."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.rl._episodes import Episodes, Played
from pliant.rl._replay import buffer
from pliant.types import Environment, Outcome

SEEDS, COPIES, LIMIT = 2, 3, 5


class Step(NamedTuple):
    observation: np.ndarray
    action: int
    reward: float
    terminated: bool
    following: np.ndarray


class Model:
    """One copy of an environment: every frame has a number of its own, so that nothing can be mistaken."""

    def __init__(self, frames, first):
        self.frames, self.number, self.steps = frames, first, []
        self.begin()

    def begin(self):
        self.number += 1
        self.stack, self.age = [self.number] * max(self.frames, 1), 0

    @property
    def observation(self):
        return np.array(self.stack, np.int32)

    def step(self, action, ends, cut):
        """Goes on; returns what an agent is told: the outcome's observation, and where it is then."""
        before = self.observation
        self.number += 1
        self.stack, self.age = [*self.stack[1:], self.number], self.age + 1
        last = self.observation
        self.steps.append(Step(before, action, float(self.number), ends, last))
        if ends or cut:
            self.begin()
        return last, self.observation


def _environment(frames):
    shape = (frames,) if frames else (1,)
    return Environment("numbers", jax.ShapeDtypeStruct(shape, np.int32), 3, None, None, LIMIT, frames=frames)


def _run(frames, size, events, num_steps, switch_at=(), clear_at=()):
    """Adds steps of all copies to a replay of each seed; `events(t, age) -> (ends, cut)` of a copy."""
    made = buffer(_environment(frames), COPIES, size)
    add, cut = jax.jit(jax.vmap(made.add)), jax.jit(jax.vmap(made.cut))
    models = [[Model(frames, 10_000 * (1 + seed * COPIES + copy)) for copy in range(COPIES)] for seed in range(SEEDS)]
    replay = jax.vmap(made.begin)(_seen(models))
    rng = np.random.default_rng(0)
    for t in range(num_steps):
        if t in switch_at:
            for each in itertools.chain(*models):
                each.begin()
            replay = cut(replay, _seen(models))
        if t in clear_at:
            replay = jax.vmap(made.clear)(replay)
            for each in itertools.chain(*models):
                each.steps = []
        told = np.zeros((4, SEEDS, COPIES))  # action, reward, terminated, truncated
        lasts = np.zeros((SEEDS, COPIES, max(frames, 1)), np.int32)
        for seed in range(SEEDS):
            for copy, model in enumerate(models[seed]):
                ends, is_cut = events(rng, model.age + 1)
                action = int(rng.integers(3))
                lasts[seed, copy], _ = model.step(action, ends, is_cut)
                told[:, seed, copy] = action, model.steps[-1].reward, ends, is_cut
        actions, rewards, terminated, truncated = told
        outcome = Outcome(jnp.asarray(lasts), jnp.asarray(rewards, jnp.float32), terminated > 0, truncated > 0)
        done = (terminated > 0) | (truncated > 0)
        played = Played(outcome, done, done, rewards, rewards)
        replay = add(replay, jnp.asarray(actions, jnp.int32), played, Episodes((), _seen(models), rewards, rewards))
    return made, replay, models


def _seen(models):
    return jnp.asarray([[model.observation for model in of_seed] for of_seed in models])


def _sampled(made, replay, num=3000):
    sample = jax.jit(jax.vmap(lambda key, replay: made.sample(key, replay, num)))
    return jax.device_get(sample(jax.random.split(jax.random.key(1), SEEDS), replay))


def _check(found, models, newest):
    """Whether exactly these of the newest transitions were sampled, each as it was; returns how often each."""
    counts = []
    for seed, of_seed in enumerate(models):
        known = {step.reward: step for model in of_seed for step in model.steps[-newest:]}
        rewards, number = np.unique(found.rewards[seed], return_counts=True)
        assert set(rewards) <= set(known)
        counts.append(dict(zip(rewards, number, strict=True)))
        steps = [known[reward] for reward in found.rewards[seed]]
        np.testing.assert_array_equal(found.actions[seed], [step.action for step in steps])
        np.testing.assert_array_equal(found.terminated[seed], [step.terminated for step in steps])
        np.testing.assert_array_equal(found.observations[seed], [step.observation for step in steps])
        following = np.array([step.following for step in steps])
        goes_on = ~found.terminated[seed]
        np.testing.assert_array_equal(found.next_observations[seed][goes_on], following[goes_on])
    return counts


def _limited(rng, age):
    """Ends by chance, is cut at the time limit."""
    ends = rng.random() < 0.2
    return ends, not ends and age >= LIMIT


@pytest.mark.parametrize("frames", [0, 3])
@pytest.mark.parametrize("num_steps", [7, 61])
def test_it_holds_the_newest_transitions(frames, num_steps):
    """Also those that a time limit has cut, with the observation behind it; in a ring that has gone round often."""
    made, replay, models = _run(frames, 8 * COPIES, _limited, num_steps)
    for counts in _check(_sampled(made, replay), models, newest=8):
        assert len(counts) == COPIES * min(num_steps, 8)
        assert min(counts.values()) > 0.6 * 3000 / len(counts)  # uniform: 125 ± 11 of each
        assert max(counts.values()) < 1.4 * 3000 / len(counts)


@pytest.mark.parametrize("frames", [0, 3])
def test_more_cuts_than_the_time_limit_explains_leave_somewhat_fewer(frames):
    def cut(rng, age):
        return False, True

    made, replay, models = _run(frames, 16 * COPIES, cut, 50)
    for counts in _check(_sampled(made, replay), models, newest=16):
        assert 8 * COPIES <= len(counts) < 16 * COPIES


@pytest.mark.parametrize("both", [True, False])
def test_an_end_is_an_end_even_if_it_is_cut_as_well(both):
    def ends(rng, age):
        return age >= 2, both and age >= 2

    made, replay, models = _run(0, 8 * COPIES, ends, 30)
    counts = _check(_sampled(made, replay), models, newest=8)[0]
    assert len(counts) == 8 * COPIES


@pytest.mark.parametrize("frames", [0, 3])
def test_transitions_before_a_switch_keep_what_followed_them(frames):
    made, replay, models = _run(frames, 8 * COPIES, _limited, 22, switch_at=(18,))
    for counts in _check(_sampled(made, replay), models, newest=8):
        assert len(counts) >= 7 * COPIES


def test_nothing_from_before_it_was_cleared_is_sampled():
    made, replay, models = _run(3, 8 * COPIES, _limited, 22, switch_at=(18,), clear_at=(18,))
    for counts in _check(_sampled(made, replay), models, newest=8):
        assert len(counts) == 4 * COPIES


def test_a_step_costs_the_same_in_a_large_replay():
    """The replay is updated where it is: as an operand of a loop it is not copied."""
    made = buffer(_environment(0), COPIES, 30_000)
    outcome = Outcome(jnp.zeros((COPIES, 1), jnp.int32), jnp.zeros(COPIES), *[jnp.zeros(COPIES, bool)] * 2)
    nothing = jnp.zeros(COPIES)
    played = Played(outcome, outcome.terminated, outcome.terminated, nothing, nothing)
    episodes = Episodes((), outcome.observation, nothing, nothing)

    def many(replay):
        body = lambda _, replay: made.add(replay, jnp.zeros(COPIES, jnp.int32), played, episodes)  # noqa: E731
        return jax.lax.fori_loop(0, 100, body, replay)

    replay = jax.vmap(made.begin)(jnp.zeros((SEEDS, COPIES, 1), jnp.int32))
    program = jax.jit(jax.vmap(many), donate_argnums=0).lower(replay).compile()
    sizes = program.memory_analysis()
    assert sizes.temp_size_in_bytes < 0.1 * sizes.argument_size_in_bytes
    large = f"[{SEEDS},{replay.rewards.shape[1]},{COPIES}]"
    copies = [line for line in program.as_text().splitlines() if " copy(" in line and large in line]
    assert not copies
