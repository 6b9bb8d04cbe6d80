"""A replay on the device: the newest transitions, from which updates sample; every observation is stored once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from pliant.rl._episodes import Episodes, Played
from pliant.types import Environment, Key


class Replay(NamedTuple):
    """The newest transitions of every copy of an environment.

    Observations lie in a ring of rows. Row r + 1 is what follows row r, but for the last row of an episode. Transitions
    lie in a ring of their own and point to the row before them. So the observations of an episode take one row each,
    and one more where the episode was cut: the value behind a time limit is that of its last observation.
    """

    observations: Array
    """(rows, copies, …); of stacks only the newest frame."""
    ages: UInt8[Array, "rows copies"]
    """Of stacks: frames of the episode before this one, at most one fewer than in a stack."""
    actions: UInt8[Array, "size copies"] | Int[Array, "size copies"]
    rewards: Float[Array, "size copies"]
    terminated: Bool[Array, "size copies"]
    rows: Int[Array, "size copies"]
    """Number of the row before the transition, counted from the first one that was ever written."""
    number: Int[Array, ""]
    """Transitions of each copy so far."""
    row: Int[Array, " copies"]
    """Number of the row of the present observation."""
    oldest: Int[Array, " copies"]
    """Number of the oldest transition that can be sampled."""


class Transitions(NamedTuple):
    """Steps of an environment, with a leading axis."""

    observations: Array
    actions: Int[Array, " step"]
    rewards: Float[Array, " step"]
    terminated: Bool[Array, " step"]
    next_observations: Array
    """The last of the episode where that was cut; anything where it has terminated."""


class Buffer(NamedTuple):
    """What is done with a `Replay`."""

    begin: Callable[[Array], Replay]
    """`begin(observations)`: an empty one, of copies with these observations."""
    add: Callable[[Replay, Int[Array, " copies"], Played, Episodes], Replay]
    """`add(replay, actions, played, episodes)`: the transitions of one step of all copies."""
    cut: Callable[[Replay, Array], Replay]
    """`cut(replay, observations)`: all episodes are left where they are, others begin with these observations."""
    clear: Callable[[Replay], Replay]
    """No transition so far can be sampled any more."""
    sample: Callable[[Key, Replay, int], Transitions]
    """`sample(key, replay, num)`: uniformly, with replacement."""


def buffer(environment: Environment, num_copies: int, size: int) -> Buffer:
    """Makes the functions of a replay.

    A step writes two rows at a place of its own in each copy, in place: the cost does not depend on the size.

    Args:
      environment: whose observations are stored, as they are. Of stacks (`Environment.frames`) each frame is stored
        once, and stacks are put together when they are sampled; before an episode began there is only its first frame.
      num_copies: of the environment, ≥ 1.
      size: transitions, over all copies; rounded down to whole steps of all, ≥ 1. Where episodes are cut more often
        than by the time limit, it holds somewhat fewer.

    Example:
      >>> import numpy as np
      >>> number = Environment("numbers", jax.ShapeDtypeStruct((), np.int8), 2, None, None, max_episode_steps=9)
      >>> of_numbers = buffer(number, num_copies=1, size=100)
      >>> replay = of_numbers.begin(jnp.zeros(1, jnp.int8))
      >>> replay.observations.shape  # 100 transitions, 12 more for episodes that are cut, and room to write
      (115, 1)
    """
    frames, length = environment.frames, size // num_copies
    num_rows = length + -(-length // environment.max_episode_steps) + max(frames, 1) + 2
    deep = environment.observation.shape[-1] // frames if frames else 0  # the last axis of one frame
    copies = jnp.arange(num_copies)

    def newest(observations: Array) -> Array:
        return observations[..., -deep:] if frames else observations

    def begin(observations: Array) -> Replay:
        stored = newest(observations)
        empty = jnp.zeros((num_rows, *stored.shape), stored.dtype)
        small = jnp.uint8 if environment.num_actions <= 256 else jnp.int32
        nothing = jnp.zeros((length, num_copies))
        zeros = jnp.zeros(num_copies, jnp.int32)
        return Replay(
            empty.at[0].set(stored),
            jnp.zeros((num_rows, num_copies), jnp.uint8),
            nothing.astype(small),
            nothing,
            nothing.astype(bool),
            nothing.astype(jnp.int32),
            jnp.int32(0),
            zeros,
            zeros,
        )

    def write(replay: Replay, observations: Array, ages: Array, moves: Int[Array, " copies"]) -> Replay:
        """Puts two rows behind the present one, and moves on by one or two."""
        places = (replay.row[None] + jnp.array([[1], [2]])) % num_rows
        return replay._replace(
            observations=replay.observations.at[places, copies[None]].set(newest(observations), unique_indices=True),
            ages=replay.ages.at[places, copies[None]].set(ages.astype(jnp.uint8), unique_indices=True),
            row=replay.row + moves,
        )

    def dropped(replay: Replay) -> Replay:
        """Without transitions that were overwritten: of one step at most two of each copy."""
        oldest = jnp.maximum(replay.oldest, replay.number - length)
        first = replay.row + 2 - num_rows + max(frames - 1, 0)
        for _ in range(2):
            oldest = oldest + (replay.rows[oldest % length, copies] < first)
        return replay._replace(oldest=jnp.minimum(oldest, replay.number))

    def add(replay: Replay, actions: Int[Array, " copies"], played: Played, episodes: Episodes) -> Replay:
        outcome, place = played.outcome, replay.number % length
        cut = outcome.truncated & ~outcome.terminated
        older = jnp.minimum(replay.ages[replay.row % num_rows, copies] + 1, max(frames - 1, 0))
        replay = replay._replace(
            actions=replay.actions.at[place].set(actions.astype(replay.actions.dtype)),
            rewards=replay.rewards.at[place].set(outcome.reward),
            terminated=replay.terminated.at[place].set(outcome.terminated),
            rows=replay.rows.at[place].set(replay.row),
            number=replay.number + 1,
        )
        of_cut = cut.reshape(-1, *([1] * (outcome.observation.ndim - 1)))
        behind = jnp.where(of_cut, outcome.observation, episodes.observation)
        ages = jnp.stack([jnp.where(outcome.terminated, 0, older), jnp.zeros_like(older)])
        return dropped(write(replay, jnp.stack([behind, episodes.observation]), ages, 1 + cut))

    def cut(replay: Replay, observations: Array) -> Replay:
        ages = jnp.zeros((2, num_copies), jnp.uint8)
        return dropped(write(replay, jnp.stack([observations, observations]), ages, jnp.ones(num_copies, jnp.int32)))

    def clear(replay: Replay) -> Replay:
        return replay._replace(oldest=jnp.full_like(replay.oldest, replay.number))

    def stacked(replay: Replay, rows: Int[Array, " step"], copy: Int[Array, " step"]) -> Array:
        """The observations of some rows."""
        if not frames:
            return replay.observations[rows % num_rows, copy]
        back = jnp.arange(frames - 1, -1, -1)
        before = jnp.minimum(back[None], replay.ages[rows % num_rows, copy][:, None])
        found = replay.observations[(rows[:, None] - before) % num_rows, copy[:, None]]
        return jnp.concatenate([found[:, frame] for frame in range(frames)], axis=-1)

    def sample(key: Key, replay: Replay, num: int) -> Transitions:
        bits = jax.random.bits(key, (2, num))
        copy = (bits[0] % num_copies).astype(jnp.int32)
        oldest = replay.oldest[copy]
        places = (replay.number - oldest).astype(jnp.uint32)  # far below 2³²: the remainder is as good as uniform
        place = (oldest + (bits[1] % places).astype(jnp.int32)) % length
        rows = replay.rows[place, copy]
        return Transitions(
            stacked(replay, rows, copy),
            replay.actions[place, copy].astype(jnp.int32),
            replay.rewards[place, copy],
            replay.terminated[place, copy],
            stacked(replay, rows + 1, copy),
        )

    return Buffer(begin, add, cut, clear, sample)
