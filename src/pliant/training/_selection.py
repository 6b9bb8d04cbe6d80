"""The best weights of a task, for sources that choose among those it passed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.training._state import TrainState
from pliant.types import Network, Params, Selection, State


class Best(NamedTuple):
    """Of the weights compared so far those with the highest score, the first of equals."""

    score: Float[Array, ""]
    params: Params
    statistics: State


def no_best(state: TrainState) -> Best:
    """Before the first comparison: every score is higher."""
    return Best(jnp.float32(-jnp.inf), state.params, state.statistics)


def better(
    network: Network, selection: Selection, best: Best, state: TrainState, data: Any, task: Any, facts: Any
) -> Best:
    """The better of the best so far and the weights now; for one seed, pure.

    Args:
      network: what learns.
      selection: the source's.
      best: so far.
      state: now.
      data: the source's.
      task: the current one.
      facts: of the task.
    """
    score = selection.score(network, (state.params, state.statistics), data, task, facts)
    now = Best(score, state.params, state.statistics)
    return jax.tree.map(lambda new, old: jnp.where(now.score > best.score, new, old), now, best)
