"""What a method, and then the protocol, does to the learner when the task changes."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from pliant.keys import Draw, SeedKeys, draw_key
from pliant.methods import Parts, TrainState, begin_task
from pliant.types import Info, Network, leaf_path


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
    """Tells the method that task number `index` begins, then resets the optimizer's state or the heads.

    First the penalty, which may look back at the old parameters, then the intervention, then what the protocol asks
    for. "zero" makes the parameters of all heads 0, "fresh" initialises them again. The optimizer keeps its
    statistics for them unless it is reset too.

    Returns:
      The state, and what the intervention reports.
    """
    state, info = begin_task(network, parts, state, keys.method, index)
    if head != "keep":
        draw = draw_key(keys.method, Draw.HEAD, index)
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
