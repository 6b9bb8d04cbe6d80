"""Environments that the host steps: compiled programs call it, and carry a ticket for what it keeps."""

import collections
import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Bool, Int, Shaped

from pliant.errors import UserError
from pliant.types import Environment, Key, Outcome, World


class HostOutcome(NamedTuple):
    """What a step of all copies leads to, in NumPy."""

    observation: Shaped[np.ndarray, "num ..."]
    """The last one of episodes that end."""
    reward: Shaped[np.ndarray, " num"]
    terminated: Bool[np.ndarray, " num"]
    truncated: Bool[np.ndarray, " num"]
    game_over: Bool[np.ndarray, " num"]
    """Whether the game that is scored has ended; as in `Outcome`, but always told."""


@runtime_checkable
class HostCopies(Protocol):
    """Copies of an environment that live on the host; NumPy only, because JAX may deadlock in a callback."""

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Every copy begins anew, as its seed alone says; returns observations."""

    def step(self, actions: np.ndarray) -> HostOutcome:
        """One step of every copy."""

    def restart(self, seeds: np.ndarray, done: np.ndarray) -> np.ndarray:
        """An episode begins in the copies that are done; returns the observations of all."""

    def close(self) -> None:
        """Frees what the copies hold."""


class HostState(NamedTuple):
    """What a compiled program carries of copies on the host."""

    ticket: Int[Array, "2"]
    """Their number in this process, and how many calls they have answered. Every call takes the ticket and returns the
    next one, so the order of calls follows from the data."""
    observation: Shaped[Array, "num ..."]
    """The latest, stacked if frames are."""


def hosted(
    name: str,
    observation: jax.ShapeDtypeStruct,
    num_actions: int,
    max_episode_steps: int,
    open_copies: Callable[[int], HostCopies],
    *,
    frames: int = 0,
    reuses: bool = False,
) -> Environment:
    """An environment of copies on the host.

    Compiled programs reach it by `jax.experimental.io_callback`. That works on all platforms, in loops and in branches,
    but not in `vmap`: map over seeds one after the other. Each `reset` opens copies of its own, so seeds and
    evaluations are apart. `release` closes them.

    Args:
      name: of the environment.
      observation: shape and type of what the host returns for one copy.
      num_actions: ≥ 1.
      max_episode_steps: ≥ 1.
      open_copies: `open_copies(num)` makes that many copies.
      frames: stacks so many observations along a new last axis, on the device; the host hands out each once. 0 for
        none.
      reuses: whether a reset makes used copies equal to new ones, so that released ones may be kept for the next reset.

    Returns:
      An environment with `together`; its own `reset` and `step` raise `UserError`.
    """
    stacked = jax.ShapeDtypeStruct((*observation.shape, frames), observation.dtype) if frames else observation

    def refuse(*_: Any) -> NoReturn:
        raise UserError(
            got=f"a single copy of {name}, which the host steps",
            wanted="copies together, because it cannot be vmapped",
            do="Call `reset` and `step` of `environment.together(num)`.",
        )

    def together(num: int) -> Environment:
        host = _Host(name, num, lambda: open_copies(num))
        each = jax.ShapeDtypeStruct((num, *observation.shape), observation.dtype)
        ticket = jax.ShapeDtypeStruct((2,), jnp.int32)
        rewards, flags = jax.ShapeDtypeStruct((num,), jnp.float32), jax.ShapeDtypeStruct((3, num), jnp.bool_)

        def first(observations: Array) -> Array:
            return jnp.repeat(observations[..., None], frames, axis=-1) if frames else observations

        def pushed(before: Array, new: Array) -> Array:
            return jnp.concatenate([before[..., 1:], new[..., None]], axis=-1) if frames else new

        def reset(key: Key, world: World) -> tuple[HostState, Array]:
            del world
            state = HostState(*io_callback(host.reset, (ticket, each), _seeds(key, num)))
            state = state._replace(observation=first(state.observation))
            return state, state.observation

        def step(key: Key, state: HostState, actions: Int[Array, " num"], world: World) -> tuple[HostState, Outcome]:
            del key, world
            asked = jnp.concatenate([state.ticket, actions.astype(jnp.int32)])  # each array costs 30 µs
            after, new, reward, told = io_callback(host.step, (ticket, each, rewards, flags), asked)
            seen = pushed(state.observation, new)
            return HostState(after, seen), Outcome(seen, reward, told[0], told[1], reward, told[2])

        def restart(key: Key, state: HostState, done: Bool[Array, " num"], world: World) -> tuple[HostState, Array]:
            del world

            def again() -> HostState:
                after, new = io_callback(host.restart, (ticket, each), state.ticket, _seeds(key, num), done)
                chosen = done.reshape(-1, *([1] * len(stacked.shape)))
                return HostState(after, jnp.where(chosen, first(new), state.observation))

            state = jax.lax.cond(done.any(), again, lambda: state)
            return state, state.observation

        def release(state: HostState) -> None:
            io_callback(host.release, None, state.ticket, reuses)

        return alone._replace(reset=reset, step=step, restart=restart, release=release, together=None)

    alone = Environment(
        name=name,
        observation=stacked,
        num_actions=num_actions,
        reset=refuse,
        step=refuse,
        max_episode_steps=max_episode_steps,
        together=together,
        frames=frames,
    )
    return alone


@contextlib.contextmanager
def host_environments() -> Iterator[None]:
    """What a run is made in: closes the environments that the host has opened for it, however it ends.

    What an environment raised within it is raised as a `UserError`. JAX makes a `JaxRuntimeError` of it, of many lines.
    Without this context, copies are closed with the last reference to their program.

    Example:
      >>> from pliant.rl.environments import from_gymnasium
      >>> carts = from_gymnasium("CartPole-v1").together(2)
      >>> with host_environments():
      ...     state, observation = carts.reset(jax.random.key(0), World((), ()))
      ...     num_host_environments()
      2
      >>> num_host_environments()
      0
    """
    first = next(_NUMBERS)
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        for failure in _FAILURES:
            if str(failure) in str(error):
                raise failure from failure.__cause__
        raise
    finally:
        _FAILURES.clear()
        for host in tuple(_HOSTS):
            host.close(since=first)


def num_host_environments() -> int:
    """How many copies of environments the host has opened, and neither released nor closed.

    Example:
      >>> num_host_environments()
      0
    """
    return sum(host.num * len(host.opened) for host in tuple(_HOSTS))


class _Opened:
    """Copies, and what keeps their calls in order."""

    def __init__(self, copies: HostCopies):
        self.copies, self.calls = copies, 0
        self.ended: np.ndarray | None = None


class _Host:
    """What one environment has opened: a set of copies for each seed, and one for an evaluation that is running."""

    def __init__(self, name: str, num: int, make: Callable[[], HostCopies]):
        self.name, self.num, self.make = name, num, make
        self.opened: dict[int, _Opened] = {}
        self.spare: list[HostCopies] = []
        self.lock = threading.RLock()
        weakref.finalize(self, _close, self.opened, self.spare)
        _HOSTS.add(self)

    def reset(self, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
        with self.lock, _explained(self.name, "reset"):
            copies = self.spare.pop() if self.spare else self.make()
            first, number = copies.reset(np.asarray(seeds)), next(_NUMBERS)
            self.opened[number] = _Opened(copies)
            return np.array([number, 0], np.int32), first

    def step(self, ticket_and_actions: Any) -> tuple[np.ndarray, ...]:
        with self.lock, _explained(self.name, "step"):
            ticket, actions = np.split(np.asarray(ticket_and_actions), [2])
            opened = self._find(ticket)
            if opened.ended is not None and opened.ended.any():
                raise UserError(
                    got=f"a step of {self.name} after the end of an episode",
                    wanted="a new episode before it",
                    do="Call the environment's `restart` with `terminated | truncated` after every step.",
                )
            observation, reward, *told = opened.copies.step(actions)
            flags = np.stack(told)
            opened.ended = flags[0] | flags[1]
            return self._next(ticket), observation, np.asarray(reward, np.float32), flags

    def restart(self, ticket: Any, seeds: Any, done: Any) -> tuple[np.ndarray, np.ndarray]:
        with self.lock, _explained(self.name, "reset"):
            opened, done = self._find(ticket), np.asarray(done)
            observations = opened.copies.restart(np.asarray(seeds), done)
            opened.ended = None if opened.ended is None else opened.ended & ~done
            return self._next(ticket), observations

    def release(self, ticket: Any, reuses: Any) -> None:
        with self.lock:
            opened = self.opened.pop(int(np.asarray(ticket)[0]), None)
            if opened is None:
                return  # of another process: its checkpoint was continued here
            if reuses and not self.spare:
                self.spare.append(opened.copies)
            else:
                opened.copies.close()

    def close(self, since: int) -> None:
        with self.lock:
            _close({number: self.opened.pop(number) for number in tuple(self.opened) if number > since}, self.spare)

    def _find(self, ticket: Any) -> _Opened:
        number, calls = (int(part) for part in np.asarray(ticket))
        opened = self.opened.get(number)
        if opened is None or opened.calls != calls:
            raise UserError(
                got=f"a state of {self.name} that is {'an earlier one' if opened else 'not open in this process'}",
                wanted="the state that the last call returned",
                do="The host cannot go back, and no checkpoint holds it: call `reset` when a task begins.",
            )
        return opened

    def _next(self, ticket: Any) -> np.ndarray:
        number = int(np.asarray(ticket)[0])
        self.opened[number].calls += 1
        return np.array([number, self.opened[number].calls], np.int32)


_HOSTS: "weakref.WeakSet[_Host]" = weakref.WeakSet()
_NUMBERS = itertools.count(1)
_FAILURES: "collections.deque[UserError]" = collections.deque(maxlen=8)


def _close(opened: dict[int, _Opened], spare: list[HostCopies]) -> None:
    for copies in (*(each.copies for each in opened.values()), *spare):
        copies.close()
    opened.clear()
    spare.clear()


def _seeds(key: Key, num: int) -> Int[Array, " num"]:
    return jax.random.randint(key, (num,), 0, jnp.iinfo(jnp.int32).max, jnp.int32)


@contextlib.contextmanager
def _explained(name: str, call: str) -> Iterator[None]:
    """Names the environment in what it raises: of an error in a callback, JAX hands on nothing but the text."""
    try:
        yield
    except UserError as failure:
        _FAILURES.append(failure)
        raise
    except Exception as error:
        failure = UserError(
            got=f"{type(error).__name__}: {error}, from `{call}` of the environment {name}",
            wanted="an answer",
            do=f"Make the environment without pliant, and call its `{call}`.",
        )
        _FAILURES.append(failure)
        raise failure from error
