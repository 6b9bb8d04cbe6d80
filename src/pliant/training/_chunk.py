"""A chunk of updates in one compiled loop, for one seed: pure functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pliant.keys import Draw, SeedKeys, draw_key
from pliant.methods import Parts
from pliant.training._state import Carry
from pliant.training._step import train_step
from pliant.training._sums import together
from pliant.types import Diagnostic, Fed, Info, Mean, Network, Now, Params, Source, State, Update


class Pace(NamedTuple):
    """What the host decides for every update of a chunk, the same for all seeds."""

    rate: Float[np.ndarray | Array, " step"]
    """What the learning rate is multiplied by."""
    fraction: Float[np.ndarray | Array, " step"]
    """The share of the task's updates done before this one, in [0, 1)."""
    weight: Float[np.ndarray | Array, " step"]
    """Weight of this update for sampled diagnostics: updates of the task over those sampled, or 0 if it is not."""
    first_step: Int[Array, ""] | np.int32
    """Updates before this chunk."""
    num_steps: Int[Array, ""] | np.int32
    """Updates to run; may be anything up to the length of the arrays without another compilation."""

    @classmethod
    def steady(cls, num_steps: int) -> "Pace":
        """The first `num_steps` updates of a run, all at the full learning rate."""
        ones = np.ones(num_steps, np.float32)
        fractions = np.arange(num_steps, dtype=np.float32) / num_steps
        return cls(ones, fractions, ones, np.int32(0), np.int32(num_steps))


class Setting(NamedTuple):
    """Inputs of a chunk other than the learner and the source's state."""

    keys: SeedKeys
    data: Any
    """The source's."""
    task: Any
    facts: Any
    """Of the task, see `Source`."""
    numbers: Any
    """The source's hyperparameters."""
    fed: Fed
    """For every update of the chunk."""
    pace: Pace


def train_chunk(
    network: Network,
    build_parts: Callable[[Any, Any], Parts],
    source: Source,
    source_state: State,
    carry: Carry,
    setting: Setting,
    diagnostics: Sequence[Diagnostic] = (),
) -> tuple[State, Carry, Mapping[str, Any]]:
    """Runs updates `first_step` + 1 to `first_step` + `num_steps` of the pace.

    Args:
      network: what learns.
      build_parts: `build_parts(factor of the learning rate, fraction of the task) -> the method's parts`.
      source: where batches come from.
      source_state: before the chunk.
      carry: the learner before the chunk.
      setting: keys, task, and what the host prepared.
      diagnostics: those that follow training.

    Returns:
      The source's state, the learner, and the scalars of every update, 0 beyond `num_steps`.
    """
    keys, pace = setting.keys, setting.pace

    def clip(gradients: Params) -> Params:
        return source.clip(gradients, setting.numbers) if source.clip else gradients

    def one(source_state: State, carry: Carry, i: Int[Array, ""] | int) -> tuple[State, Carry, Info]:
        step = jnp.asarray(pace.first_step + i + 1)
        fed = jax.tree.map(lambda leaf: leaf[i], setting.fed)
        key = draw_key(keys.noise, Draw.BATCH, step)
        now = Now(key, setting.data, setting.task, setting.facts, setting.numbers, step, fed)
        source_state, lesson, told = source.draw(network, now, source_state, carry.learner.learned())
        parts = build_parts(pace.rate[i], pace.fraction[i])
        stepped = train_step(network, parts, source.objective, carry.learner, lesson, step, keys, clip)
        followed, seen = follow(diagnostics, carry.followed, stepped.update, pace.weight[i])
        return source_state, Carry(stepped.state, followed), together(told, stepped.info, seen)

    def body(i: Int[Array, ""], everything: tuple[State, Carry, Any]) -> tuple[State, Carry, Any]:
        source_state, carry, info = everything
        source_state, carry, values = one(source_state, carry, i)
        return source_state, carry, jax.tree.map(lambda of_all, value: of_all.at[i].set(value), info, values)

    _, _, shapes = jax.eval_shape(one, source_state, carry, 0)
    zeros = jax.tree.map(lambda value: jnp.zeros((len(pace.rate), *value.shape), value.dtype), shapes)
    return jax.lax.fori_loop(0, pace.num_steps, body, (source_state, carry, zeros))


def follow(
    diagnostics: Sequence[Diagnostic],
    states: Mapping[str, State],
    update: Callable[[], Update],
    weight: Float[Array, ""] | float,
) -> tuple[dict[str, State], Info]:
    """What diagnostics say of an update: those with a state of every one, the others of those whose weight is not 0.

    Args:
      diagnostics: which follow training.
      states: of those that have one, by name.
      update: makes what they see.
      weight: what the numbers of those without a state are multiplied by; where it is 0 they are not computed.

    Returns:
      The states after it, and scalars.
    """
    states, info = dict(states), dict[str, Any]()
    for each in diagnostics:
        if each.init and each.follow:
            states[each.name], told = each.follow(states[each.name], update())
            info = together(info, told)

    def sampled() -> Info:
        found = [each.follow((), update())[1] for each in diagnostics if each.follow and not each.init]
        told = together(*found)
        return {name: value if isinstance(value, Mean) else weight * value for name, value in told.items()}

    if all(each.init for each in diagnostics):
        return states, info
    zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(sampled))
    return states, together(info, jax.lax.cond(jnp.asarray(weight) > 0, sampled, lambda: zeros))
