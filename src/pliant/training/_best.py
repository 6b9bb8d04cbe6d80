"""The weights that were the best on validation examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pliant.training._evaluate import mean_score
from pliant.training._step import TrainState
from pliant.types import Network, Params, State, Stream


class Best(NamedTuple):
    """Of the epochs so far the one with the highest validation score, the first of those."""

    score: Float[Array, ""]
    params: Params
    statistics: State


def no_epoch(state: TrainState) -> Best:
    """Before the first epoch: every score is higher."""
    return Best(jnp.float32(-jnp.inf), state.params, state.statistics)


def better(
    network: Network,
    stream: Stream,
    best: Best,
    state: TrainState,
    data: Any,
    task: Any,
    number: Int[Array, ""] | np.int32,
) -> Best:
    """The better of the best epoch so far and the weights now; for one seed, pure.

    Args:
      network: what learns.
      stream: which holds out examples.
      best: so far.
      state: at the end of an epoch.
      data: the stream's.
      task: the current one.
      number: of its validation examples.
    """
    assert stream.validation is not None

    def apply(inputs: Any) -> Array:
        return network.apply(state.params, state.statistics, inputs, train=False, key=None)[0]

    now = Best(mean_score(stream, apply, stream.validation, number, data, task), state.params, state.statistics)
    return jax.tree.map(lambda new, old: jnp.where(now.score > best.score, new, old), now, best)
