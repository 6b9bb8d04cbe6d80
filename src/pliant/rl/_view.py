"""What the network sees of stored observations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from pliant.types import Environment, World


def view(environment: Environment, observations: Shaped[Array, "..."], world: World) -> Float[Array, "..."]:
    """The network's inputs for stored observations, with the same leading axes.

    Agents call it wherever a network is applied: to act, to learn and to evaluate. Replays and rollouts store the
    observations themselves, which may be much smaller.

    Args:
      environment: whose observations these are. Its `view` is vmapped over the leading axes; without one, the
        observations are cast to float32, and divided by 255 if they are uint8.
      observations: arrays of `environment.observation` with any number of leading axes, none included.
      world: the data and the task at which the observations are looked at.

    Returns:
      float32 of the shape `EnvironmentStream.inputs`, after the leading axes.

    Example:
      >>> import numpy as np
      >>> from pliant.types import Outcome
      >>> spec = jax.ShapeDtypeStruct((2,), np.uint8)
      >>> pixels = Environment("pixels", spec, 1, lambda key, world: ((), jnp.zeros(2, jnp.uint8)), Outcome, 1)
      >>> view(pixels, jnp.array([[0, 255], [255, 0]], jnp.uint8), World((), ())).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
      >>> from_table = pixels._replace(observation=jax.ShapeDtypeStruct((), np.int32), view=lambda i, w: w.data[i])
      >>> view(from_table, jnp.array([2, 0]), World(jnp.array([0.5, 1.5, 2.5]), ())).tolist()
      [2.5, 0.5]
    """
    if environment.view is None:
        inputs = observations.astype(jnp.float32)
        return inputs / 255 if observations.dtype == jnp.uint8 else inputs
    shown = environment.view
    for _ in range(observations.ndim - len(environment.observation.shape)):
        shown = jax.vmap(shown, in_axes=(0, None))
    return shown(observations, world)
