"""What a protocol does to the learner when the task changes."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from pliant.methods import Parts
from pliant.training._step import SeedKeys, TrainState
from pliant.types import Network, leaf_path

_HEADS = 2**32 - 2  # apart from the steps in the stream of method noise: they are int32


def switch_task(
    network: Network,
    parts: Parts,
    state: TrainState,
    keys: SeedKeys,
    index: Any,
    *,
    optimizer: Literal["keep", "reset"],
    head: Literal["keep", "zero", "fresh"],
) -> TrainState:
    """Resets the optimizer's state or the output layer before task number `index`, as the protocol says.

    The output layer is the parameters of role "head" and what lies beside them (its bias); "zero" makes them 0, "fresh"
    draws them anew. What the optimizer remembers of them stays unless it is reset too.
    """
    params = state.params
    if head != "keep":
        leaves = [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        layers = {path.rpartition("/")[0] for path in leaves if network.wiring.roles[path] == "head"}
        draw = jax.random.fold_in(jax.random.fold_in(keys.method, _HEADS), index)
        fresh = network.init(draw)[0] if head == "fresh" else jax.tree.map(jnp.zeros_like, params)

        def replaced(path: Any, old: Any, new: Any) -> Any:
            return new if leaf_path(path).rpartition("/")[0] in layers else old

        params = jax.tree_util.tree_map_with_path(replaced, params, fresh)
    state = state._replace(params=params)
    return state._replace(optimizer=parts.optimizer.init(params)) if optimizer == "reset" else state
