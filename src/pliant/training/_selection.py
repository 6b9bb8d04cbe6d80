"""The best weights of a task, for sources that choose among those it passed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.methods import TrainState
from pliant.types import Network, Params, Scene, Selection, State


class Best(NamedTuple):
    """Of the weights compared so far those with the highest score, the first of equals."""

    score: Float[Array, ""]
    params: Params
    statistics: State


def no_best(state: TrainState) -> Best:
    """Before the first comparison: every score is higher."""
    return Best(jnp.float32(-jnp.inf), state.params, state.statistics)


def better(
    network: Network, selection: Selection, best: Best, state: TrainState, scene: Scene, source_state: State
) -> Best:
    """The better of the best so far and the weights now; for one seed, pure.

    Args:
      network: what learns.
      selection: the source's.
      best: so far.
      state: now.
      scene: for the source.
      source_state: now.
    """
    score = selection.score(network, (state.params, state.statistics), scene, source_state)
    latest = Best(score, state.params, state.statistics)
    return jax.tree.map(lambda new, old: jnp.where(latest.score > best.score, new, old), latest, best)
