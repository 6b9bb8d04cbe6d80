"""How well an agent does: returns in training since the task began, and in episodes of their own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pliant.finite import all_finite
from pliant.rl._episodes import Episodes, copies, in_current
from pliant.types import Environment, EnvironmentStream, Info, Key, Mean, Network, Params, Scene, State, World

Policy = Callable[[Network, tuple[Params, State], Key, Array, World], Array]
"""`policy(network, weights, key, observations, world) -> actions`"""


class Phase(NamedTuple):
    """The episodes that have ended since the task began."""

    returns: Array
    """Their sum."""
    number: Array


def no_episodes() -> Phase:
    """The phase that begins."""
    return Phase(jnp.float32(0), jnp.int32(0))


def count(phase: Phase, told: Info) -> Phase:
    """Adds what `pliant.rl.ended` tells."""
    found = told["episode_return"]
    assert isinstance(found, Mean)
    return Phase(phase.returns + found.total, phase.number + found.number)


def evaluate(
    stream: EnvironmentStream,
    num_episodes: int,
    policy: Policy,
    network: Network,
    weights: tuple[Params, State],
    scene: Scene,
    state: Any,
) -> dict[str, Array]:
    """Plays episodes with given weights; training notices nothing.

    Args:
      stream: environments, task by task.
      num_episodes: played at once; 0 for none.
      policy: how the agent acts.
      network: of the agent.
      weights: parameters and running statistics.
      scene: whose facts are the place of the environment.
      state: of the agent; has the `phase`.
    """
    world = World(scene.data, scene.task)
    limits = [np.nan if each.dead_below is None else each.dead_below for each in stream.environments]
    found = {
        "environment": jnp.asarray(scene.facts),
        "phase_returns": state.phase.returns,
        "phase_episodes": state.phase.number,
        "dead_below": jnp.asarray(np.array(limits, np.float32))[scene.facts],
        "diverged": ~all_finite(weights[0]),
    }
    if num_episodes:
        act = functools.partial(policy, network, weights)
        branches = [functools.partial(_play, each, num_episodes, act) for each in stream.environments]
        returns, lengths = in_current(jnp.asarray(scene.facts), branches, scene.key, world)
        found |= {"eval_return": returns.mean(), "eval_length": lengths.mean()}
    return found


def summarize(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What is recorded of an evaluation."""
    recorded = ("environment", "eval_return", "eval_length", "diverged")
    numbers = {name: float(found[name]) for name in recorded if name in found}
    episodes, limit = int(found["phase_episodes"]), float(found["dead_below"])
    if episodes and not np.isnan(limit):
        numbers["dead_phase"] = float(found["phase_returns"] / episodes < limit)
    return numbers


def _play(
    environment: Environment, num: int, act: Callable[[Key, Array, World], Array], key: Key, world: World
) -> tuple[Array, Array]:
    """Returns and lengths of the first episode of each copy."""
    of_begin, of_steps = jax.random.split(key)
    of_environment = copies(environment, num)

    class Running(NamedTuple):
        episodes: Episodes
        steps: Array
        done: Array
        returns: Array
        lengths: Array

    def goes_on(running: Running) -> Array:
        return ~running.done.all() & (running.steps < environment.max_episode_steps)

    def step(running: Running) -> Running:
        of_action, of_step = jax.random.split(jax.random.fold_in(of_steps, running.steps))
        actions = act(of_action, running.episodes.observation, world)
        episodes, played = of_environment.play(of_step, running.episodes, actions, world)
        returns, lengths = (
            jnp.where(running.done, before, now)
            for before, now in ((running.returns, played.returns), (running.lengths, played.lengths))
        )
        return Running(episodes, running.steps + 1, running.done | played.over, returns, lengths)

    begun = of_environment.begin(of_begin, world)
    start = Running(begun, jnp.int32(0), jnp.zeros(num, bool), jnp.zeros(num), jnp.zeros(num, jnp.int32))
    end = jax.lax.while_loop(goes_on, step, start)
    of_environment.release(end.episodes)
    return end.returns, end.lengths
