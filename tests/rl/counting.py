"""An environment whose every number can be computed by hand: it counts steps, and pays what the action says."""

import jax
import jax.numpy as jnp
import numpy as np

from pliant.types import Environment, EnvironmentStream, Outcome


def counting(length=3, *, truncates=False, name="counting", bonus=0.0):
    """Observes the number of steps so far; action 1 earns 1 + `bonus`; ends after `length` steps."""

    def reset(key, world):
        return jnp.int32(0), jnp.zeros(1, jnp.float32)

    def step(key, state, action, world):
        state = state + 1
        is_end = state >= length
        flags = (False, is_end) if truncates else (is_end, False)
        reward = action.astype(jnp.float32) * (1.0 + bonus)
        return state, Outcome(state.astype(jnp.float32)[None], reward, *map(jnp.asarray, flags))

    return Environment(name, jax.ShapeDtypeStruct((1,), np.float32), 2, reset, step, length)


def stream(*environments, num_tasks=1):
    """Tasks that go through the environments, one after the other."""
    return EnvironmentStream("counting", num_tasks, environments, which=lambda index: index % len(environments))
