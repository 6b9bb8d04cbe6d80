"""Atari games of the Arcade Learning Environment, one or several one after the other."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.errors import UserError, extra, require_range, require_whole, unknown_name
from pliant.rl.environments._host import HostOutcome, hosted
from pliant.types import Environment, EnvironmentStream, Key, Outcome, State, World

_SIDE = 84


def atari(
    *,
    num_tasks: int = 1,
    games: Sequence[str] = ("pong",),
    sticky: float = 0.25,
    frame_skip: int = 4,
    frame_stack: int = 4,
    noop_max: int = 30,
    max_episode_frames: int = 108_000,
    clip_rewards: bool = True,
    life_loss: bool = False,
    full_actions: bool = False,
    fire_reset: bool = False,
) -> EnvironmentStream:
    """Atari games for the VCS 2600, emulated on the host by `ale-py` in threads.

    Use it to compare with the literature on deep Q-learning; on CPUs learning from these images takes days. A compiled
    program calls the emulator once a step for all copies. Seeds of a run are trained one after the other.

    A step repeats an action for `frame_skip` frames of 1/60 s. It shows the maximum of the last two in 84 × 84 grey
    pixels. Only this image leaves the host; the stack of the last ones is made on the device. A game begins with up to
    `noop_max` − 1 frames without action. Randomness is that of the seeds with which a task begins: the same key and
    actions give the same frames, in every process.

    Args:
      num_tasks: games played in all, ≥ 1.
      games: their order, which repeats; names of ale-py such as "ms_pacman". All have the same actions; those beyond
        the own ones of a game do nothing.
      sticky: probability that a frame repeats the action of the one before, in [0, 1]; 0.25 is recommended, 0 is a game
        without randomness but for its beginning.
      frame_skip: frames of a step, ≥ 1.
      frame_stack: images of an observation, ≥ 1.
      noop_max: see above, ≥ 0.
      max_episode_frames: frames after which a game is truncated, ≥ 1; half an hour.
      clip_rewards: whether rewards are clipped to [−1, 1]. Returns are those of the score in any case.
      life_loss: whether a lost life ends an episode for the learner, as if nothing followed. The game goes on, with a
        new stack, and returns are those of games.
      full_actions: whether all 18 actions of the console are offered, and not only those that the games use.
      fire_reset: whether FIRE is pressed when a game begins; some games wait for it.

    Returns:
      An `EnvironmentStream`; observations are uint8 of shape (84, 84, `frame_stack`), the newest image last.

    Raises:
      UserError: if ale-py is not installed, for unknown games, and for numbers out of range.

    Example:
      >>> stream = atari(num_tasks=3, games=("pong", "breakout"))
      >>> [stream.environments[stream.which(index)].name for index in range(3)], stream.num_actions
      (['pong', 'breakout', 'pong'], 6)
      >>> pong = stream.environments[0].together(2)
      >>> state, observation = pong.reset(jax.random.key(0), World((), ()))
      >>> observation.shape, observation.dtype
      ((2, 84, 84, 4), dtype('uint8'))
      >>> pong.release(state)

    References:
      Bellemare et al., `The Arcade Learning Environment <https://arxiv.org/abs/1207.4708>`_, 2013. Machado et al.,
      `Revisiting the Arcade Learning Environment <https://arxiv.org/abs/1709.06009>`_, 2018, section 5: sticky actions,
      18 actions, no ends at lost lives. Mnih et al., `Human-level control through deep reinforcement learning
      <https://doi.org/10.1038/nature14236>`_, 2015: images, clipped rewards.

    Differs from:
      ale-py's own vectorised environment, which begins a new game when a life is lost, inserts a step that ignores the
      action after each game, fills new stacks with black images instead of the first one, and reports clipped returns.
    """
    require_whole("tasks", num_tasks, 1, do="Leave it out for 1.")
    require_range("sticky", sticky, 0, 1, do="Use a probability, such as 0.25.")
    for name, number, low in (
        ("frame_skip", frame_skip, 1),
        ("frame_stack", frame_stack, 1),
        ("noop_max", noop_max, 0),
        ("max_episode_frames", max_episode_frames, 1),
    ):
        require_whole(name, number, low, do="Leave it out for the usual number.")
    if not games:
        raise UserError(got="no games", wanted="at least one", do="Leave games out for Pong.")
    different = tuple(dict.fromkeys(games))
    ale = _ale_py()
    for game in different:
        if game not in ale.roms.get_all_rom_ids():
            raise unknown_name("game", game, ale.roms.get_all_rom_ids(), do="Names are those of ale-py.")
    sizes = [_num_actions(ale, game, full_actions) for game in different]
    settings = {
        "repeat_action_probability": float(sticky),
        "frameskip": int(frame_skip),
        "noop_max": int(noop_max),
        "max_num_frames_per_episode": int(max_episode_frames),
        "full_action_space": full_actions,
        "use_fire_reset": fire_reset,
        "stack_num": 1,
        "reward_clipping": False,
    }

    def environment(game: str, num_actions: int) -> Environment:
        """A game with rewards and actions as agents get them."""
        native = hosted(
            game,
            jax.ShapeDtypeStruct((_SIDE, _SIDE), np.uint8),
            max(sizes),
            -(-max_episode_frames // frame_skip),
            lambda num: _Copies(game, num, life_loss, settings),
            frames=int(frame_stack),
            reuses=True,
        )
        of_host = native.together
        assert of_host

        def together(num: int) -> Environment:
            batched = of_host(num)

            def step(key: Key, state: State, actions: Int[Array, " num"], world: World) -> tuple[State, Outcome]:
                state, outcome = batched.step(key, state, jnp.where(actions < num_actions, actions, 0), world)
                return state, outcome._replace(reward=outcome.reward.clip(-1, 1) if clip_rewards else outcome.reward)

            return batched._replace(step=step)

        return native._replace(together=together)

    return EnvironmentStream(
        name="atari",
        num_tasks=num_tasks,
        environments=tuple(environment(*each) for each in zip(different, sizes, strict=True)),
        which=lambda index: different.index(games[index % len(games)]),
    )


class _Copies:
    """Copies of a game; they end where the game or, if wanted, a life has ended."""

    def __init__(self, game: str, num: int, life_loss: bool, settings: dict[str, Any]):
        from ale_py.vector_env import AtariVectorEnv

        self.games, self.life_loss = AtariVectorEnv(game, num, **settings), life_loss
        self.goes_on = np.zeros(num, bool)
        """Where an episode has ended, but not the game."""

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        self.goes_on[:] = False
        return self._see(*self.games.reset(seed=seeds))

    def step(self, actions: np.ndarray) -> HostOutcome:
        lives = self.lives
        screens, rewards, terminated, truncated, info = self.games.step(actions)
        images = self._see(screens, info)
        over = terminated | truncated
        lost = (self.lives < lives) & self.life_loss
        self.goes_on = lost & ~over
        return HostOutcome(images, rewards, terminated | lost, truncated & ~lost, over)

    def restart(self, seeds: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Games continue the random numbers of the first: to seed one is to load it again, which takes 0.1 s."""
        del seeds
        begins = done & ~self.goes_on
        self.goes_on &= ~done
        return self._see(*self.games.reset(options={"reset_mask": begins})) if begins.any() else self.images

    def close(self) -> None:
        del self.games

    def _see(self, screens: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        self.images, self.lives = screens[:, 0], info["lives"]
        return self.images


def _ale_py() -> ModuleType:
    with extra("atari", "the games of Atari"):
        import ale_py.roms
        import ale_py.vector_env  # with gymnasium, which ale-py alone does not install
    return ale_py


def _num_actions(ale: ModuleType, game: str, full_actions: bool) -> int:
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    emulator = ale.ALEInterface()
    emulator.loadROM(ale.roms.get_rom_path(game))
    return len(emulator.getLegalActionSet() if full_actions else emulator.getMinimalActionSet())
