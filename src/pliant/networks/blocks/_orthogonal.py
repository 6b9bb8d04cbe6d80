"""Orthogonal initialisations that are safe under `vmap`."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.types import Key

Initializer: TypeAlias = Callable[[Key, tuple[int, ...], Any], Array]


def orthogonal(gain: float = 1.0) -> Initializer:
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
      batched QR decompositions in one XLA:CPU program can deadlock. Narrow types are drawn in
      float32 and rounded, since there is no QR decomposition of bfloat16.
    """
    draw = jax.nn.initializers.orthogonal(gain)

    def initializer(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.custom_batching.sequential_vmap(lambda k: draw(k, shape, jnp.float32))(key).astype(dtype)

    return initializer


def delta_orthogonal(gain: float = 1.0) -> Initializer:
    r"""Draws kernels of convolutions that are an orthogonal matrix at their centre and 0 elsewhere.

    .. math:: K_{ij} = \begin{cases} Q & i, j = \lfloor (k - 1) / 2 \rfloor \\ 0 & \text{else} \end{cases}

    with Q of shape (in, out) as from `orthogonal`. At stride 1 with padding "SAME" every position is mapped by Q alone,
    so all singular values of the whole map of images are the gain. A kernel that is orthogonal as a matrix of shape
    (rows·columns·in, out) has singular values of up to √(rows·columns) gains, as a map of images whose patches overlap.

    Args:
      gain: the singular value, > 0.

    Returns:
      `initializer(key, shape, dtype)`, as in `jax.nn.initializers`; of a dense kernel it is `orthogonal`.

    Example:
      >>> kernel = delta_orthogonal()(jax.random.key(0), (3, 3, 2, 4), jnp.float32)
      >>> bool(jnp.allclose(kernel[1, 1] @ kernel[1, 1].T, jnp.eye(2), atol=1e-5)), int((kernel != 0).sum())
      (True, 8)

    References:
      Xiao et al., `Dynamical Isometry and a Mean Field Theory of CNNs
      <https://arxiv.org/abs/1806.05393>`_, 2018. Algorithm 1.

    Differs from:
      `jax.nn.initializers.delta_orthogonal`, which refuses kernels with more inputs than outputs.
    """
    draw = orthogonal(gain)

    def initializer(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        centre = tuple((size - 1) // 2 for size in shape[:-2])
        return jnp.zeros(shape, dtype).at[centre].set(draw(key, shape[-2:], dtype))

    return initializer
