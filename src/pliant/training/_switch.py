"""What a method, and then the protocol, does to the learner when the task changes."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from pliant.methods import Parts
from pliant.training._step import SeedKeys, TrainState
from pliant.types import Fresh, Info, Network, leaf_path

_HEADS, _SWITCHES = 2**32 - 2, 2**32 - 5  # apart from the steps in the stream of method noise: they are int32


def switch_task(
    network: Network,
    parts: Parts,
    state: TrainState,
    keys: SeedKeys,
    index: Any,
    *,
    optimizer: Literal["keep", "reset"] = "keep",
    head: Literal["keep", "zero", "fresh"] = "keep",
) -> tuple[TrainState, Info]:
    """Tells the method that task number `index` begins, then resets the optimizer's state or the output layer.

    First the penalty, which may look back at the old parameters, then the intervention, then what the protocol wants.
    The output layer is the parameters of role "head" and what lies beside them (its bias); "zero" makes them 0, "fresh"
    draws them anew. What the optimizer remembers of them stays unless it is reset too.

    Returns:
      The state, and what the intervention reports.
    """
    info: Info = {}
    if parts.penalty and parts.penalty.switch:
        state = state._replace(penalty=parts.penalty.switch(state.params, state.penalty))
    if parts.intervention and parts.intervention.switch:
        key = jax.random.fold_in(jax.random.fold_in(keys.method, _SWITCHES), index)
        fresh = Fresh(network.init, parts.optimizer.init)
        learned, intervention, info = parts.intervention.switch(key, index, state.learned(), state.intervention, fresh)
        state = TrainState(*learned, state.penalty, intervention, state.twin)
    if head != "keep":
        draw = jax.random.fold_in(jax.random.fold_in(keys.method, _HEADS), index)
        new = network.init(draw)[0] if head == "fresh" else jax.tree.map(jnp.zeros_like, state.params)
        is_head = network.wiring.head(state.params)
        state = state._replace(
            params=jax.tree_util.tree_map_with_path(
                lambda path, of_head, old, n: n if of_head and leaf_path(path) not in network.wiring.frozen else old,
                is_head,
                state.params,
                new,
            )
        )
    return (state._replace(optimizer=parts.optimizer.init(state.params)) if optimizer == "reset" else state), info
