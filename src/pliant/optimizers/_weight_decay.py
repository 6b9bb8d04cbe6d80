"""Decoupled weight decay that a strength of 0 switches off, whatever the weights are."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pliant.types import Number


def add_weight_decay(weight_decay: Number) -> optax.GradientTransformation:
    """`optax.add_decayed_weights`, but infinite weights stay infinite where the decay is a traced 0, instead of NaN.

    Example:
      >>> params = jnp.array([2.0, jnp.inf])
      >>> decays = [add_weight_decay(decay) for decay in (0.5, jnp.array(0.0))]
      >>> [decay.update(jnp.zeros(2), decay.init(params), params)[0].tolist() for decay in decays]
      [[1.0, inf], [0.0, 0.0]]
    """
    decay = optax.add_decayed_weights(weight_decay)

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        decayed, state = decay.update(updates, state, params)
        return jax.tree.map(lambda new, old: jnp.where(weight_decay > 0, new, old), decayed, updates), state

    return optax.GradientTransformation(decay.init, update_fn)
