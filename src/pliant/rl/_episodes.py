"""Copies of an environment that an agent acts in: steps, new episodes where one has ended, returns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pliant.types import Environment, Key, Mean, Outcome, State, World
from pliant.xla.branches import anywhere


class Episodes(NamedTuple):
    """Running episodes, one of each copy."""

    state: State
    """Of the environments."""
    observation: Array
    returns: Float[Array, " env"]
    """Sum of rewards of the game so far, or of scores where these are told."""
    lengths: Int[Array, " env"]
    """Steps of the game so far."""


class Played(NamedTuple):
    """One step of all copies."""

    outcome: Outcome
    """Its observation is the last of an episode where that has ended."""
    done: Bool[Array, " env"]
    """Whether an episode has ended."""
    over: Bool[Array, " env"]
    """Whether a game that is scored has ended: an episode, unless the environment says otherwise."""
    returns: Float[Array, " env"]
    """Of the games, up to this step."""
    lengths: Int[Array, " env"]


def ended(played: Played) -> dict[str, Mean]:
    """Return and length of the games that have ended."""
    number = played.over.sum(dtype=jnp.int32)
    return {
        "episode_return": Mean(jnp.where(played.over, played.returns, 0.0).sum(), number),
        "episode_length": Mean(jnp.where(played.over, played.lengths, 0).sum().astype(jnp.float32), number),
    }


class Copies(NamedTuple):
    """A number of copies of an environment; arrays have a leading axis."""

    begin: Callable[[Key, World], Episodes]
    """`begin(key, world)`: all of them begin an episode."""
    play: Callable[[Key, Episodes, Int[Array, " env"], World], tuple[Episodes, Played]]
    """`play(key, episodes, actions, world)`: one step of all; copies whose episode ends begin another."""
    release: Callable[[Episodes], None]
    """Gives back what the host keeps for them."""


def copies(environment: Environment, num: int) -> Copies:
    """Makes copies of an environment.

    Args:
      environment: with one copy, or with `together`.
      num: ≥ 1.
    """
    if environment.together:
        batched = environment.together(num)
        again = batched.restart
        assert again
        return _copies(batched, lambda key, state, _, done, world: again(key, state, done, world), num)

    def reset(key: Key, world: World) -> tuple[State, Array]:
        return jax.vmap(environment.reset, (0, None))(jax.random.split(key, num), world)

    def step(key: Key, state: State, actions: Array, world: World) -> tuple[State, Outcome]:
        return jax.vmap(environment.step, (0, 0, 0, None))(jax.random.split(key, num), state, actions, world)

    def restart(key: Key, state: State, observation: Array, done: Array, world: World) -> tuple[State, Array]:
        def again() -> tuple[State, Array]:
            return jax.tree.map(lambda new, old: _where(done, new, old), reset(key, world), (state, observation))

        return jax.lax.cond(anywhere(done.any()), again, lambda: (state, observation))

    return _copies(environment._replace(reset=reset, step=step), restart, num)


def _copies(batched: Environment, restart: Callable[..., tuple[State, Array]], num: int) -> Copies:
    def begin(key: Key, world: World) -> Episodes:
        return Episodes(*batched.reset(key, world), jnp.zeros(num), jnp.zeros(num, jnp.int32))

    def play(key: Key, episodes: Episodes, actions: Array, world: World) -> tuple[Episodes, Played]:
        of_step, of_reset = jax.random.split(key)
        state, outcome = batched.step(of_step, episodes.state, actions, world)
        done = outcome.terminated | outcome.truncated
        over = done if outcome.game_over is None else outcome.game_over
        scores = outcome.reward if outcome.score is None else outcome.score
        returns, lengths = episodes.returns + scores, episodes.lengths + 1
        state, observation = restart(of_reset, state, outcome.observation, done, world)
        after = Episodes(state, observation, jnp.where(over, 0.0, returns), jnp.where(over, 0, lengths))
        return after, Played(outcome, done, over, returns, lengths)

    def release(episodes: Episodes) -> None:
        if batched.release:
            batched.release(episodes.state)

    return Copies(begin, play, release)


def _where(flag: Bool[Array, " env"], new: Array, old: Array) -> Array:
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        data = _where(flag, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))
    return jnp.where(flag.reshape(-1, *([1] * (new.ndim - 1))), new, old)


def in_current(which: Int[Array, ""], branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Runs the branch of the current environment; a run with only one has no branch."""
    return branches[0](*operands) if len(branches) == 1 else jax.lax.switch(which, branches, *operands)
