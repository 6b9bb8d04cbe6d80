"""AID: activation by interval-wise dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import require_range
from pliant.types import Key, Method, Number


def aid(x: Float[Array, "*axes"], p: Number = 0.9, *, key: Key | None = None) -> Float[Array, "*axes"]:
    r"""Lets through either the positive or the negative part, by chance, and in evaluation the mean of the two (AID).

    .. math:: \text{in training } \begin{cases} \max(x, 0) & \text{with probability } p \\
                                                \min(x, 0) & \text{otherwise} \end{cases} \qquad
              \text{in evaluation } p \max(x, 0) + (1 - p) \min(x, 0)

    for every entry by itself. ReLU is p = 1, and p = ½ is a linear map in evaluation, so training pulls the network
    towards a linear one. The mean square in training is half that of a symmetric signal, as behind ReLU; in evaluation
    it is (p² + (1 − p)²)/2 of it.

    Args:
      x: any shape.
      p: in [0, 1].
      key: for the draws of training; None in evaluation.

    Returns:
      The part that passes, or with `key=None` the mean, in the shape of x.

    Raises:
      UserError: if `p` is out of range.

    Example:
      >>> [round(float(y), 3) for y in aid(jnp.array([2.0, -2.0]))]
      [1.8, -0.2]
      >>> drawn = aid(jnp.array([2.0, -2.0]), key=jax.random.key(0))
      >>> bool(jnp.isin(drawn, jnp.array([2.0, 0.0, -2.0])).all())
      True

    References:
      Park, Han, Oh, Kim, `Activation by Interval-wise Dropout: A Simple Way to Prevent Neural Networks from Plasticity
      Loss <https://arxiv.org/abs/2502.01342>`_, 2025. Algorithm 2, with their p = 0.9.

    Differs from:
      Implementations that drop with the framework's dropout, which divides by the probability of keeping, so that
      training and evaluation disagree, and those that draw for the positive and the negative part apart. The authors'
      CNNs pool by the mean, `cnn` by the maximum.
    """
    require_range("p", p, 0, 1, do="0.9 is the authors'.")
    if key is None:
        return jnp.where(x >= 0, p * x, (1.0 - p) * x)
    positive = jax.random.bernoulli(key, p, x.shape)
    return jnp.where(positive == (x >= 0), x, jnp.zeros_like(x))


AID = Method(
    name="aid",
    summary="Adam with activation by interval-wise dropout: by chance either the positive or the negative part passes",
    reference="Park et al. 2025, algorithm 2",
    network={"activation": "aid"},
)
