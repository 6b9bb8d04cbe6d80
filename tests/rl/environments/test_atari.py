import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pliant
from pliant.errors import UserError
from pliant.rl.environments import ENVIRONMENTS, atari, host_environments, num_host_environments
from pliant.types import World

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("gymnasium")
NOWHERE = World((), ())
KEY = jax.random.key(0)
NUM = 2


@pytest.fixture(autouse=True)
def _nothing_open():
    with host_environments():
        yield


def seeds_of(key):
    return np.asarray(jax.random.randint(key, (NUM,), 0, 2**31 - 1, jnp.int32))


def player(num_steps, **options):
    """Plays at random in a compiled loop, as agents do."""
    stream = atari(**{"games": ("breakout",), "noop_max": 0} | options)
    (environment,) = stream.environments
    copies = environment.together(NUM)

    @jax.jit
    def run(key):
        def step(state, keys):
            actions = jax.random.randint(keys[0], (NUM,), 0, environment.num_actions)
            state, outcome = copies.step(keys[1], state, actions, NOWHERE)
            done = outcome.terminated | outcome.truncated
            state, observation = copies.restart(keys[2], state, done, NOWHERE)
            return state, (actions, outcome, observation)

        state, first = copies.reset(key, NOWHERE)
        state, told = jax.lax.scan(step, state, jax.random.split(key, (num_steps, 3)))
        copies.release(state)
        return first, told

    return run


def shrinking(size, to):
    """The matrix that averages over areas."""
    edges = np.linspace(0, size, to + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(size)[None]
    return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) * to / size


DOWN, ACROSS = shrinking(210, 84).astype(np.float32), shrinking(160, 84).astype(np.float32)


class Console:
    """A game as the emulator itself plays it, with what the literature does to its screen."""

    def __init__(self, seed, sticky, limit):
        self.ale, self.limit = ale_py.ALEInterface(), limit
        self.ale.setFloat("repeat_action_probability", sticky)
        self.ale.setInt("random_seed", int(seed))
        self.ale.loadROM(ale_py.roms.get_rom_path("breakout"))
        self.actions = self.ale.getMinimalActionSet()

    def reset(self):
        self.ale.reset_game()
        self.frames, self.lives = 0, self.ale.lives()

    def step(self, action):
        reward, screens = 0, []
        for _ in range(4):
            reward += self.ale.act(self.actions[action])
            self.frames += 1
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over() or self.frames >= self.limit:
                break
        lost, self.lives = self.ale.lives() < self.lives, self.ale.lives()
        return (
            np.maximum(*screens[-2:]) if len(screens) > 1 else None,
            reward,
            self.ale.game_over(),
            self.frames >= self.limit,
            lost,
        )


@pytest.mark.parametrize(
    ("life_loss", "limit", "clip_rewards"),
    [(True, 600, False), pytest.param(False, 108_000, True, marks=pytest.mark.whole)],
    ids=["lives", "games"],
)
def test_games_are_those_of_the_emulator(life_loss, limit, clip_rewards):
    num_steps = 300
    run = player(num_steps, life_loss=life_loss, max_episode_frames=limit, clip_rewards=clip_rewards)
    first, (actions, outcome, after) = jax.device_get(run(KEY))
    check_stacks(first, outcome, after, life_loss)
    screens, images, ends, lives = [], [], 0, 0
    for copy, seed in enumerate(seeds_of(KEY)):
        console = Console(seed, sticky=0.25, limit=limit)
        console.reset()
        for time in range(num_steps):
            screen, reward, over, cut, lost = console.step(actions[time, copy])
            got = jax.tree.map(lambda leaf, at=(time, copy): leaf[at], outcome)
            assert got.score == reward
            assert got.reward == (np.clip(reward, -1, 1) if clip_rewards else reward)
            assert got.terminated == (over or (life_loss and lost))
            assert got.truncated == (cut and not got.terminated)
            assert got.game_over == (over or cut)
            if got.game_over:
                console.reset()
            else:  # where a game ends, ale-py shows the image before
                screens.append(screen)
                images.append(got.observation[..., -1])
            ends, lives = ends + got.game_over, lives + lost
    wanted = DOWN @ np.array(screens, np.float32) @ ACROSS.T
    assert np.abs(np.array(images) - wanted).max() < 1
    assert ends >= 2
    assert lives >= 4


def check_stacks(first, outcome, after, life_loss):
    """They shift by an image, and hold the first one alone where an episode begins."""
    done = outcome.terminated | outcome.truncated
    before = np.concatenate([first[None], after[:-1]])
    np.testing.assert_array_equal(outcome.observation[..., :-1], before[..., 1:])
    np.testing.assert_array_equal(after[~done], outcome.observation[~done])
    begun = np.concatenate([first, after[done]])
    np.testing.assert_array_equal(begun, np.repeat(begun[..., -1:], 4, axis=-1))
    goes_on = done & ~outcome.game_over
    assert goes_on.any() == life_loss
    np.testing.assert_array_equal(after[goes_on][..., -1], outcome.observation[goes_on][..., -1])


def test_the_same_key_gives_the_same_games_in_copies_that_were_used():
    run = player(20, games=("pong",), noop_max=30)
    first, other, again = (jax.device_get(run(jax.random.key(seed))) for seed in (0, 1, 0))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not np.array_equal(first[1][2], other[1][2])
    assert num_host_environments() == 0


def test_games_with_fewer_actions_ignore_the_others():
    stream = atari(games=("freeway", "pong"), sticky=0.0, noop_max=0, num_tasks=2)
    assert stream.num_actions == 6
    freeway = stream.environments[0].together(NUM)
    state, _ = freeway.reset(KEY, NOWHERE)
    key = jax.random.key(7)
    for action in (1, 1, 3, 1, 5):  # the copies' first actions agree, then one is invalid and the other none
        state, outcome = freeway.step(key, state, jnp.array([action, action if action < 3 else 0]), NOWHERE)
    np.testing.assert_array_equal(outcome.observation[0], outcome.observation[1])


def test_options_reach_the_games():
    assert atari(full_actions=True).num_actions == 18
    (environment,) = atari(frame_stack=2, frame_skip=3, max_episode_frames=100).environments
    assert environment.observation.shape == (84, 84, 2)
    assert environment.frames == 2
    assert environment.max_episode_steps == 34
    assert ENVIRONMENTS["atari"] is atari


def test_tasks_play_the_games_in_their_order_again_and_again():
    stream = atari(games=("pong", "breakout", "pong"), num_tasks=5)
    names = [environment.name for environment in stream.environments]
    assert names == ["pong", "breakout"]
    assert [names[stream.which(index)] for index in range(5)] == ["pong", "breakout", "pong", "pong", "breakout"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": ("pongg",)}, "the game 'pongg'.*Did you mean 'pong'"),
        ({"games": ()}, "no games; wanted at least one"),
        ({"sticky": 1.5}, r"sticky=1.5; wanted a number in \[0, 1\]"),
        ({"frame_skip": 0}, "frame_skip=0; wanted a finite number ≥ 1"),
        ({"frame_stack": 0}, "frame_stack=0"),
        ({"noop_max": -1}, "noop_max=-1"),
        ({"max_episode_frames": 0}, "max_episode_frames=0"),
        ({"num_tasks": 0}, "tasks=0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        atari(**options)


@pytest.mark.parametrize("missing", ["ale_py", "ale_py.roms", "gymnasium"])
def test_without_ale_py_or_gymnasium_the_extra_is_named(monkeypatch, missing):
    for name in [name for name in sys.modules if name.startswith("ale_py.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install 'pliant\[atari\]'"):
        atari()


@pytest.mark.whole
@pytest.mark.exact
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_a_run_that_is_killed_ends_with_the_same_numbers(tmp_path, agent):
    def kill(now):
        if now.task == 2 and now.task_done >= 0.5:
            raise KeyboardInterrupt

    of_agent = {
        "ppo": ("ppo.num_envs=2", "ppo.rollout_length=8", "ppo.epochs=1"),
        "dqn": ("dqn.num_envs=2", "dqn.steps_per_update=2", "dqn.replay_size=64", "dqn.min_replay=16"),
    }
    small = {"agent": agent, "methods": ("adam",), "seeds": 1, "tasks": 2, "env_steps": 64, "batch_size": 8}
    small |= {"widths": (4,), "eval_episodes": 1, "probe_size": 4, "network": "mlp", "settings": of_agent[agent]}
    games = atari(num_tasks=2, max_episode_frames=80)
    whole = pliant.run(environment=games, out=tmp_path / "whole", **small)
    with pytest.raises(KeyboardInterrupt):
        pliant.run(environment=games, out=tmp_path / "killed", report=kill, **small)
    assert num_host_environments() == 0
    again = pliant.run(environment=games, out=tmp_path / "killed", **small)
    pd.testing.assert_frame_equal(again.metrics, whole.metrics)


@pytest.mark.whole
def test_thousands_of_steps_under_seeds_end():
    run = player(1500, games=("pong",))
    both = jax.jit(lambda keys: jax.lax.map(lambda key: run(key)[1][1].score.sum(), keys))
    assert (both(jax.random.split(KEY, 2)) < 0).all()
