import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from pliant.errors import UserError
from pliant.rl.environments import host_environments, num_host_environments
from pliant.rl.environments._host import HostOutcome, hosted
from pliant.types import World

NOWHERE = World((), ())


class Counters:
    """Each counts its steps from its seed's last digit; an episode ends at 10 more, where a game ends at the second."""

    opened = closed = 0

    def __init__(self, num, shape=()):
        type(self).opened += 1
        self.shape, self.games = shape, np.zeros(num, int)

    def reset(self, seeds):
        self.value = seeds % 10
        self.limit = self.value + 10
        return self._images()

    def step(self, actions):
        self.value = self.value + 1 + actions
        over = self.value >= self.limit
        self.games += over
        return HostOutcome(self._images(), self.value * 2, over & (actions == 0), over & (actions > 0), over)

    def restart(self, seeds, done):
        self.value, self.limit = np.where(done, seeds % 10, self.value), np.where(done, seeds % 10 + 10, self.limit)
        return self._images()

    def close(self):
        type(self).closed += 1

    def _images(self):
        return np.broadcast_to(self.value.reshape(-1, *([1] * len(self.shape))), (len(self.value), *self.shape)).astype(
            np.uint8
        )


def counters(shape=(), **options):
    return hosted("counter", jax.ShapeDtypeStruct(shape, np.uint8), 2, 20, lambda num: Counters(num, shape), **options)


def seeds_of(key, num):
    return np.asarray(jax.random.randint(key, (num,), 0, 2**31 - 1, jnp.int32))


@pytest.fixture(autouse=True)
def _nothing_open():
    Counters.opened = Counters.closed = 0
    with host_environments():
        yield


def play(environment, num_steps):
    """As agents do: begin, step in a loop, restart; release behind the last step."""

    def run(key):
        of_begin, of_steps = jax.random.split(key)
        state, observation = environment.reset(of_begin, NOWHERE)

        def step(carry, key):
            state, observation = carry
            action = (observation.reshape(observation.shape[0], -1)[:, 0] % 3 == 0).astype(jnp.int32)
            state, outcome = environment.step(key, state, action, NOWHERE)
            done = outcome.terminated | outcome.truncated
            state, observation = environment.restart(key, state, done, NOWHERE)
            return (state, observation), (outcome, observation)

        (state, _), told = jax.lax.scan(step, (state, observation), jax.random.split(of_steps, num_steps))
        environment.release(state)
        return observation, told

    return run


def by_hand(num, num_steps, key):
    of_begin, of_steps = jax.random.split(key)
    copies = Counters(num)
    observation = copies.reset(seeds_of(of_begin, num))
    rows = []
    for each in jax.random.split(of_steps, num_steps):
        outcome = copies.step(observation.astype(int) % 3 == 0)
        done = outcome.terminated | outcome.truncated
        observation = copies.restart(seeds_of(each, num), done) if done.any() else outcome.observation
        rows.append((outcome, observation))
    return rows


def one_device(f):
    mesh = Mesh(np.array(jax.devices()[:1]), ("seed",))
    return jax.shard_map(f, mesh=mesh, in_specs=PartitionSpec("seed"), out_specs=PartitionSpec("seed"), check_vma=False)


def all_devices(f):
    mesh = Mesh(np.array(jax.devices()), ("seed",))
    return jax.shard_map(f, mesh=mesh, in_specs=PartitionSpec("seed"), out_specs=PartitionSpec("seed"), check_vma=False)


@pytest.mark.parametrize("over_seeds", ["map", "devices"])
def test_seeds_in_a_compiled_loop_are_what_python_steps(over_seeds):
    run = play(counters().together(3), 40)
    keys = jax.random.split(jax.random.key(0), 2)
    spread = {
        "map": one_device(functools.partial(jax.lax.map, run)),
        "devices": all_devices(functools.partial(jax.lax.map, run)),
    }[over_seeds]
    _, (outcome, observation) = jax.jit(spread)(keys)
    assert outcome.terminated.any()
    assert outcome.truncated.any()
    for seed, key in enumerate(keys):
        for time, (wanted, after) in enumerate(by_hand(3, 40, key)):
            got = jax.tree.map(lambda leaf, at=(seed, time): np.asarray(leaf)[at], outcome)
            np.testing.assert_array_equal(got.observation, wanted.observation)
            np.testing.assert_array_equal(got.reward, wanted.reward)
            np.testing.assert_array_equal(got.terminated, wanted.terminated)
            np.testing.assert_array_equal(got.truncated, wanted.truncated)
            np.testing.assert_array_equal(got.game_over, wanted.game_over)
            np.testing.assert_array_equal(observation[seed, time], after)


def test_what_is_released_is_closed():
    environment = counters().together(2)
    play(environment, 3)(jax.random.key(0))
    jax.effects_barrier()
    assert (Counters.opened, Counters.closed) == (1, 1)
    assert num_host_environments() == 0


def test_a_run_closes_what_it_has_opened_and_no_more():
    environment, other = counters().together(2), counters().together(1)
    mine, _ = environment.reset(jax.random.key(0), NOWHERE)
    with contextlib.suppress(KeyboardInterrupt), host_environments():
        environment.reset(jax.random.key(0), NOWHERE)
        its, _ = other.reset(jax.random.key(0), NOWHERE)
        assert num_host_environments() == 5
        raise KeyboardInterrupt
    assert num_host_environments() == 2
    assert Counters.closed == 2
    environment.step(jax.random.key(0), mine, jnp.array([0, 0]), NOWHERE)
    other.release(its)  # closed, or of another process: nothing happens


def test_a_run_raises_what_an_environment_raised():
    environment = hosted("broken", jax.ShapeDtypeStruct((), np.uint8), 2, 20, lambda num: 1 / 0).together(1)
    message = "ZeroDivisionError: division by zero, from `reset` of the environment broken"
    with pytest.raises(UserError, match=message) as e, host_environments():
        jax.block_until_ready(environment.reset(jax.random.key(0), NOWHERE))
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    with pytest.raises(jax.errors.JaxRuntimeError, match="another"), host_environments():
        raise jax.errors.JaxRuntimeError("another")


def test_copies_that_can_be_reset_wholly_are_used_again():
    environment = counters(reuses=True).together(2)
    for _ in range(3):
        state, _ = environment.reset(jax.random.key(0), NOWHERE)
        environment.release(state)
        jax.effects_barrier()
    assert (Counters.opened, Counters.closed) == (1, 0)
    assert num_host_environments() == 0
    with host_environments():
        pass
    assert Counters.closed == 1


def test_copies_of_a_program_that_is_gone_are_closed():
    environment = counters().together(2)
    environment.reset(jax.random.key(0), NOWHERE)
    del environment
    jax.clear_caches()
    import gc

    gc.collect()
    assert Counters.closed == 1


def test_frames_are_stacked_and_filled_at_the_beginning():
    environment = counters((2, 1), frames=3).together(2)
    assert environment.observation.shape == (2, 1, 3)
    assert environment.frames == 3
    key = jax.random.key(1)
    state, first = environment.reset(key, NOWHERE)
    start = seeds_of(key, 2) % 10
    np.testing.assert_array_equal(first[:, 0, 0], np.repeat(start[:, None], 3, axis=1))
    state, outcome = environment.step(key, state, jnp.array([0, 1]), NOWHERE)
    np.testing.assert_array_equal(outcome.observation[0, 1, 0], start[0] + np.array([0, 0, 1]))
    np.testing.assert_array_equal(outcome.observation[1, 1, 0], start[1] + np.array([0, 0, 2]))
    state, observation = environment.restart(key, state, jnp.array([False, True]), NOWHERE)
    np.testing.assert_array_equal(observation[0], outcome.observation[0])
    np.testing.assert_array_equal(observation[1, 0, 0], np.repeat(start[1], 3))
    state, outcome = environment.step(key, state, jnp.array([0, 0]), NOWHERE)
    np.testing.assert_array_equal(outcome.observation[:, 0, 0], np.array([[0, 1, 2], [0, 0, 1]]) + start[:, None])


def test_where_nothing_is_done_the_host_is_not_called():
    environment = counters().together(2)
    state, _ = environment.reset(jax.random.key(0), NOWHERE)
    same, _ = environment.restart(jax.random.key(0), state, jnp.zeros(2, bool), NOWHERE)
    np.testing.assert_array_equal(same.ticket, state.ticket)


def test_an_earlier_state_is_refused():
    environment = counters().together(1)
    state, _ = environment.reset(jax.random.key(0), NOWHERE)
    environment.step(jax.random.key(0), state, jnp.array([0]), NOWHERE)
    with pytest.raises(jax.errors.JaxRuntimeError, match="of counter that is an earlier one; wanted the state that"):
        jax.block_until_ready(environment.step(jax.random.key(0), state, jnp.array([0]), NOWHERE))


def test_a_state_of_another_process_is_refused():
    environment = counters().together(1)
    with host_environments():
        state, _ = environment.reset(jax.random.key(0), NOWHERE)
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"not open in this process.*no checkpoint holds it: call `reset` when a task"
    ):
        jax.block_until_ready(environment.step(jax.random.key(0), state, jnp.array([0]), NOWHERE))


def test_a_step_behind_the_end_is_refused():
    environment = counters().together(2)
    state, _ = environment.reset(jax.random.key(0), NOWHERE)
    for _ in range(5):
        state, outcome = environment.step(jax.random.key(0), state, jnp.array([1, 0]), NOWHERE)
    assert outcome.truncated.tolist() == [True, False]
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"a step of counter after the end of an episode.*`restart`"):
        jax.block_until_ready(environment.step(jax.random.key(0), state, jnp.array([1, 0]), NOWHERE))


def test_a_single_copy_is_refused():
    with pytest.raises(UserError, match=r"a single copy of counter.*environment.together\(num\)"):
        counters().reset(jax.random.key(0), NOWHERE)
    with pytest.raises(UserError, match="cannot be vmapped"):
        counters().step(jax.random.key(0), (), jnp.array(0), NOWHERE)


def test_thousands_of_steps_with_large_images_end():
    environment = counters((84, 84, 4)).together(8)
    key = jax.random.key(0)

    def step(_, carry):
        state, observation, total = carry
        actions = (observation[:, 0, 0, 0] % 3 == 0).astype(jnp.int32)
        state, outcome = environment.step(key, state, actions, NOWHERE)
        state, observation = environment.restart(key, state, outcome.game_over, NOWHERE)
        return state, observation, total + outcome.observation[:, -1, -1, -1].sum(dtype=jnp.int32)

    begin = environment.reset(key, NOWHERE)
    assert jax.jit(lambda begin: jax.lax.fori_loop(0, 3000, step, (*begin, jnp.int32(0))))(begin)[2] != 0
