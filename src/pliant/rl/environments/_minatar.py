"""Continual MinAtar: small Atari games one after the other, with their channels permuted for each task."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt16

from pliant.errors import UserError, extra, require_choice, require_range, require_whole, unknown_name
from pliant.rl.environments._gymnax import from_gymnax
from pliant.types import Environment, EnvironmentStream, Key, Outcome, State, World

Board: TypeAlias = UInt16[Array, "10 10"]
GAMES = ("breakout", "asterix", "space-invaders", "freeway")
"""The games of the AdamO paper."""
_NUM_ACTIONS = 6
_NUM_CHANNELS = {"breakout": 4, "asterix": 4, "space-invaders": 6, "freeway": 7, "seaquest": 10}
_DEAD_BELOW = {"breakout": 0.5}
"""A policy that always takes the same action scores 0 in Breakout. No such return is known of the other games."""


def minatar(
    *,
    num_tasks: int = 20,
    games: Sequence[str] = GAMES,
    num_channels: int = 10,
    permute: bool = True,
    order: Literal["random", "fixed"] = "random",
    order_seed: int = 0,
    sticky_actions: float = 0.0,
) -> EnvironmentStream:
    r"""MinAtar games in cycles; every task is one game, with its channels in a new random order.

    Every game is played once in each cycle. All games have the same observations and actions, so that one network plays
    them:

    .. math:: o_{ijc} = x_{ij\pi_t(c)}

    The network sees o, float32 (10, 10, `num_channels`) of 0 and 1: the game's own channels, then empty ones, all of
    them permuted by :math:`\pi_t`, which is drawn for each task and seed and is the same in training and evaluation.
    An observation is stored in 200 bytes, as a board of bits: bit c of a cell is channel c.

    Actions are 0 to 5: the game's own, which are 3, 5, 4, 3 and 6 in the order of `games` below, then some that do
    nothing, as action 0 does.

    Episodes end with the game, or are truncated: after 1,000 steps, of Freeway after 2,500. Games become harder within
    an episode, as in the original.

    Args:
      num_tasks: ≥ 1; a cycle has one task for each game.
      games: one or more of "breakout", "asterix", "space-invaders", "freeway" and "seaquest", each once; a single game
        is played in all tasks.
      num_channels: at least those of the games, which are 4, 4, 6, 7 and 10 in the order above; at most 16.
      permute: False leaves channels in the game's order.
      order: of the games within a cycle; "random" draws one for each cycle, the same for all seeds; "fixed" takes them
        as listed.
      order_seed: of the random orders, ≥ 0.
      sticky_actions: probability, in [0, 1], that the environment repeats the previous action.

    Returns:
      An `EnvironmentStream`; a task is the permutation, int32 (`num_channels`,).

    Raises:
      UserError: for an unknown or repeated game, too few channels, numbers out of range, or if gymnax is missing.

    Example:
      >>> stream = minatar(num_tasks=8)
      >>> [stream.environments[stream.which(index)].name for index in range(4)]
      ['space-invaders', 'breakout', 'asterix', 'freeway']
      >>> stream.task(jax.random.key(0), 1).tolist()
      [0, 3, 9, 5, 1, 8, 4, 6, 2, 7]
      >>> stream.inputs.shape, stream.num_actions
      ((10, 10, 10), 6)

    References:
      Young and Tian, `MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
      Experiments <https://arxiv.org/abs/1903.03176>`_, 2019; Lange, `gymnax <https://github.com/RobertTLange/gymnax>`_,
      2022.

    Differs from:
      The original: episodes have a time limit; Freeway is truncated after 2,500 steps, where the original ends it after
      2,501; no action sticks unless asked for; and a reset forgets the previous action. gymnax 1.0.1: a new entity
      never replaces another in Asterix, as in the original, and the rules are computed in another way with the same
      results. Seaquest is gymnax's: it compiles and steps slowly, and the last observation of an episode may show the
      oxygen refilled.
    """
    names = _checked_names(games, num_channels)
    require_whole("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    require_choice("order", order, "random", "fixed")
    require_whole("order_seed", order_seed, 0, do="Leave it out for 0.")
    require_range("sticky_actions", sticky_actions, 0, 1, do="The original has 0.1; leave it out for none.")
    environments = tuple(_game(name, num_channels) for name in names)
    if sticky_actions:
        environments = tuple(_sticky(environment, sticky_actions) for environment in environments)

    def task(key: Key, index: Any) -> Int[Array, " channels"]:
        channels = jnp.arange(num_channels, dtype=jnp.int32)
        return jax.random.permutation(jax.random.fold_in(key, index), channels) if permute else channels

    def which(index: int) -> int:
        cycle, place = divmod(index, len(names))
        if order == "random":
            place = np.random.default_rng([order_seed, cycle]).permutation(len(names))[place]
        return int(place)

    return EnvironmentStream(name="minatar", num_tasks=num_tasks, environments=environments, which=which, task=task)


def _checked_names(games: Sequence[str], num_channels: int) -> list[str]:
    names = [games] if isinstance(games, str) else list(games)
    for name in names:
        if name not in _NUM_CHANNELS:
            raise unknown_name("game", name, _NUM_CHANNELS, "Separate several by commas.")
    if not names or len(set(names)) < len(names):
        raise UserError(
            got=f"games={','.join(names)}",
            wanted="one or more games, each once",
            do="Every game is played once in each cycle; raise --tasks for more cycles.",
        )
    least = max(_NUM_CHANNELS[name] for name in names)
    require_whole("num_channels", num_channels, least, 16, do=f"These games have up to {least} channels.")
    return names


def _native(name: str) -> Environment:
    """One game; its observations are boards of bits."""
    with extra("rl", "the games of MinAtar"):
        import gymnax.environments.minatar  # noqa: F401

        from pliant.rl.environments._minatar_games import GAMES

    return from_gymnax(GAMES[name](), name=name, observation_dtype="uint16", dead_below=_DEAD_BELOW.get(name))


def _game(name: str, num_channels: int) -> Environment:
    """One game with the observations and actions of all."""
    native = _native(name)

    def permuted(board: Board, order: Int[Array, " channels"]) -> Board:
        """Bit c of a cell is the game's channel order[c]; channels that the game lacks are never set."""
        channels = np.arange(_NUM_CHANNELS[name])
        powers = np.left_shift(1, np.arange(num_channels))
        moved = jnp.sum((channels[:, None] == order[None]) * powers[None], axis=1).astype(jnp.uint16)
        parts = [jnp.where((board & (1 << k)) > 0, moved[k], jnp.uint16(0)) for k in channels]
        return functools.reduce(jnp.bitwise_or, parts)

    def reset(key: Key, world: World) -> tuple[State, Board]:
        state, board = native.reset(key, world)
        return state, permuted(board, world.task)

    def step(key: Key, state: State, action: Int[Array, ""], world: World) -> tuple[State, Outcome]:
        state, outcome = native.step(key, state, jnp.where(action < native.num_actions, action, 0), world)
        return state, outcome._replace(observation=permuted(outcome.observation, world.task))

    def view(board: Board, world: World) -> Float[Array, "10 10 channels"]:
        del world
        masks = np.left_shift(1, np.arange(num_channels)).astype(np.uint16)
        return ((board[:, :, None] & masks[None, None]) > 0).astype(jnp.float32)

    return native._replace(num_actions=_NUM_ACTIONS, reset=reset, step=step, view=view)


class _Stuck(NamedTuple):
    """The state of an environment whose actions stick."""

    state: State
    action: Int[Array, ""]
    """The previous one; 0 after a reset."""


def _sticky(environment: Environment, probability: float) -> Environment:
    """The environment, which repeats the previous action with some probability."""

    def reset(key: Key, world: World) -> tuple[State, Array]:
        state, observation = environment.reset(key, world)
        return _Stuck(state, jnp.int32(0)), observation

    def step(key: Key, state: State, action: Int[Array, ""], world: World) -> tuple[State, Outcome]:
        inner, own = jax.random.split(key)
        action = jnp.where(jax.random.uniform(own) < probability, state.action, jnp.asarray(action, jnp.int32))
        after, outcome = environment.step(inner, state.state, action, world)
        return _Stuck(after, action), outcome

    return environment._replace(reset=reset, step=step)
