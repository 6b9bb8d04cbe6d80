"""Frozen parameters, which no optimizer may change."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pliant.types import Params, Wiring, leaf_path


def hold_frozen(
    optimizer: optax.GradientTransformationExtraArgs, wiring: Wiring
) -> optax.GradientTransformationExtraArgs:
    """Sets the updates of a wiring's frozen parameters to 0.

    Use it around the optimizer when part of a network must not be trained.

    Args:
      optimizer: a whole optimizer, with its learning rate.
      wiring: the network's layer graph.

    Returns:
      The optimizer itself where nothing is frozen. Its state is the same in any case.

    Example:
      >>> wiring = Wiring((), {}, frozen=frozenset({"head"}))
      >>> tx = hold_frozen(optax.with_extra_args_support(optax.sgd(0.5)), wiring)
      >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> float(updates["body"][0]), float(updates["head"][0])
      (-0.5, 0.0)

    References:
      None: a convention of this library.

    Differs from:
      `optax.partition` with `optax.set_to_zero`, whose state has another structure.
    """
    if not wiring.frozen:
        return optimizer

    def update_fn(updates: Any, state: Any, params: Params | None = None, **extra: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params, **extra)
        held = jax.tree_util.tree_map_with_path(
            lambda path, update: jnp.zeros_like(update) if leaf_path(path) in wiring.frozen else update, updates
        )
        return held, state

    return optax.GradientTransformationExtraArgs(optimizer.init, update_fn)
