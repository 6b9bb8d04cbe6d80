"""Initialisers estimated from parameters, for networks that do not say theirs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def estimated(leaf: Any) -> Callable[[PRNGKeyArray, tuple[int, ...], Any], Array]:
    r"""An initialiser that draws numbers like those of a parameter at the start of training.

    A constant parameter gives that constant. Other ones give numbers with the mean of its entries and their deviation
    :math:`\sigma`: uniform if none is farther than :math:`1.05 \sqrt3 \sigma` from the mean, else normal.

    Args:
      leaf: the parameter. Entries that are not finite are left out.

    Example:
      >>> estimated(np.ones(3))(jax.random.key(0), (2,), jnp.float32).tolist()
      [1.0, 1.0]
    """
    numbers = np.asarray(leaf, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    mean = float(numbers.mean()) if numbers.size else 0.0
    deviation = float(numbers.std()) if numbers.size else 0.0
    if numbers.size and np.ptp(numbers) == 0:
        return jax.nn.initializers.constant(float(numbers[0]))
    largest = float(np.abs(numbers - mean).max()) if numbers.size else 0.0
    is_uniform = largest <= 1.05 * math.sqrt(3.0) * deviation

    def draw(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        if is_uniform:
            reach = math.sqrt(3.0) * deviation
            return mean + jax.random.uniform(key, shape, dtype, -reach, reach)
        return mean + deviation * jax.random.normal(key, shape, dtype)

    return draw
