"""Any environment of Gymnasium."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from pliant.errors import UserError, extra, require_whole
from pliant.rl.environments._host import HostOutcome, hosted
from pliant.types import Environment


def from_gymnasium(
    make: "str | Callable[[], Any]", *, name: str | None = None, max_episode_steps: int | None = None
) -> Environment:
    """An environment of Gymnasium, which the host steps.

    Use it for environments that are not written in JAX. Compiled programs call the host once a step, whatever the
    number of copies; copies are stepped one after the other in Python. Seeds of a run are trained one after the other.
    Every copy is a new environment whenever a task or an evaluation begins, so a run continued from a checkpoint
    equals an uninterrupted one if `env.reset(seed=...)` fixes all randomness.

    Args:
      make: makes one environment; or an id, for `gymnasium.make`. Actions must be `Discrete`, observations `Box`, or
        `Discrete`, which become one-hot. Observations of bool and uint8 stay so, others become float32.
      name: in records and figures; the id of the environment, or the name of its class, if None.
      max_episode_steps: ≥ 1; cuts episodes that are longer, which counts as truncated. None for the environment's own
        limit.

    Returns:
      An environment with `together`.

    Raises:
      UserError: if gymnasium is not installed; for other spaces; without any limit of steps. What the environment
        raises during a run arrives as the text of a `jax.errors.JaxRuntimeError`.

    Example:
      >>> from pliant.types import World
      >>> carts = from_gymnasium("CartPole-v1").together(2)
      >>> state, observation = carts.reset(jax.random.key(0), World((), ()))
      >>> state, outcome = carts.step(jax.random.key(1), state, jax.numpy.array([0, 1]), World((), ()))
      >>> outcome.observation.shape, outcome.reward.tolist()
      ((2, 4), [1.0, 1.0])
      >>> carts.release(state)
    """
    with extra("atari", "environments of Gymnasium"):
        import gymnasium

    def make_one() -> Any:
        return gymnasium.make(make) if isinstance(make, str) else make()

    example = make_one()
    name = name or (example.spec.id if example.spec else type(example.unwrapped).__name__)
    actions, observations = example.action_space, example.observation_space
    own_limit = example.spec.max_episode_steps if example.spec else None
    example.close()
    if not isinstance(actions, gymnasium.spaces.Discrete):
        raise UserError(
            got=f"{name} with actions {actions}",
            wanted="Discrete actions",
            do="Choose among some of its actions with a `gymnasium.ActionWrapper`.",
        )
    if not isinstance(observations, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
        raise UserError(
            got=f"{name} with observations {observations}",
            wanted="Box or Discrete observations",
            do="Make one array of them with `gymnasium.wrappers.FlattenObservation`.",
        )
    limit = max_episode_steps if max_episode_steps is not None else own_limit
    if limit is None:
        raise UserError(
            got=f"{name} without a limit of steps",
            wanted="a number of steps after which every episode has ended",
            do="Pass max_episode_steps=1000, say; an evaluation that need not end would hang.",
        )
    limit = require_whole("max_episode_steps", limit, 1, do="Pass a number of steps, such as 1000.")
    if isinstance(observations, gymnasium.spaces.Discrete):
        num, first = int(observations.n), int(observations.start)
        seen, encode = jax.ShapeDtypeStruct((num,), np.bool_), lambda one: np.arange(first, first + num) == one
    else:
        kept = observations.dtype in (np.bool_, np.uint8)
        seen, encode = jax.ShapeDtypeStruct(observations.shape, observations.dtype if kept else np.float32), np.asarray

    def open_copies(num: int) -> _Copies:
        return _Copies([make_one() for _ in range(num)], seen, encode, int(actions.start), limit)

    return hosted(name, seen, int(actions.n), limit, open_copies)


class _Copies:
    """Environments of Gymnasium, stepped one after the other."""

    def __init__(
        self,
        environments: Sequence[Any],
        observation: jax.ShapeDtypeStruct,
        encode: Callable[[Any], np.ndarray],
        first_action: int,
        limit: int,
    ):
        self.environments, self.encode, self.first_action, self.limit = environments, encode, first_action, limit
        self.seen = np.zeros((len(environments), *observation.shape), observation.dtype)
        self.lengths = np.zeros(len(environments), np.int64)

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        return self.restart(seeds, np.ones(len(self.environments), bool))

    def restart(self, seeds: np.ndarray, done: np.ndarray) -> np.ndarray:
        for index in map(int, np.flatnonzero(done)):
            first, _ = self.environments[index].reset(seed=int(seeds[index]))
            self._see(index, first)
            self.lengths[index] = 0
        return self.seen.copy()

    def step(self, actions: np.ndarray) -> HostOutcome:
        rewards = np.zeros(len(actions), np.float32)
        terminated, truncated = np.zeros((2, len(actions)), bool)
        self.lengths += 1
        for index, (environment, action) in enumerate(zip(self.environments, actions, strict=True)):
            observation, rewards[index], terminated[index], truncated[index], _ = environment.step(
                int(action) + self.first_action
            )
            self._see(index, observation)
        truncated = (truncated | (self.lengths >= self.limit)) & ~terminated
        return HostOutcome(self.seen.copy(), rewards, terminated, truncated, terminated | truncated)

    def close(self) -> None:
        for environment in self.environments:
            environment.close()

    def _see(self, index: int, observation: Any) -> None:
        encoded = self.encode(observation)
        if encoded.shape != self.seen.shape[1:]:
            raise UserError(
                got=f"an observation of shape {encoded.shape}",
                wanted=f"the shape {self.seen.shape[1:]} of the environment's observation_space",
                do="Correct the environment's observation_space, or its observations.",
            )
        self.seen[index] = encoded
