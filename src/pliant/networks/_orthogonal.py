"""Orthogonal initialisation that is safe under `vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.types import Key


def orthogonal(gain: float = 1.0) -> Callable[[Key, tuple[int, ...], Any], Array]:
    """Draws kernels whose matrix view has all singular values equal to `gain`.

    The matrix is the Q of a Gaussian's QR decomposition, uniform over orthogonal matrices.

    Args:
      gain: the singular value, > 0.

    Returns:
      `initializer(key, shape, dtype)`, as in `jax.nn.initializers`.

    Example:
      >>> kernel = orthogonal(2.0)(jax.random.key(0), (3, 2), jnp.float32)
      >>> bool(jnp.allclose(kernel.T @ kernel, 4.0 * jnp.eye(2), atol=1e-5))
      True

    References:
      Saxe, McClelland, Ganguli, `Exact solutions to the nonlinear dynamics of learning in deep linear neural networks
      <https://arxiv.org/abs/1312.6120>`_, 2014. Section 3.

    Differs from:
      `jax.nn.initializers.orthogonal`, which it calls. Under `vmap` the draws run one after the other, because several
      batched QR decompositions in one XLA:CPU program can wait for each other for ever. Narrow types are drawn in
      float32 and rounded, since there is no QR decomposition of bfloat16.
    """
    draw = jax.nn.initializers.orthogonal(gain)

    def initializer(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.custom_batching.sequential_vmap(lambda k: draw(k, shape, jnp.float32))(key).astype(dtype)

    return initializer
