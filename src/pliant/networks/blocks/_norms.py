"""Flax' normalisations, fast on the CPU where there are many positions.

Variances are taken about the mean: the mean of squares loses digits where there is a mean. Numbers are computed in
float32 or wider, and given in the type that Flax gives.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.finite import keep_finite
from pliant.types import Method
from pliant.xla.rows import num_rows, spread, total

_EPSILON = 1e-6


class LayerNorm(nnx.Module):
    """The channels of each position less their mean, over their deviation, times a scale, plus a bias.

    Example:
      >>> LayerNorm(2, rngs=nnx.Rngs(0))(jnp.array([[1.0, 3.0]])).round(3).tolist()
      [[-1.0, 1.0]]
    """

    def __init__(self, num_features: int, *, rngs: nnx.Rngs):
        self.scale, self.bias = _ones(num_features, rngs), _zeros(num_features, rngs)

    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """The normalised channels."""
        dtype, (x, scale, bias) = _widened(x, self.scale[...], self.bias[...])
        centred = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
        return (centred * inverse * spread(scale, x) + spread(bias, x)).astype(dtype)


class RMSNorm(nnx.Module):
    """The channels of each position over the root of their mean square, times a scale.

    Example:
      >>> RMSNorm(4, rngs=nnx.Rngs(0))(jnp.array([[0.0, 2.0, 0.0, 0.0]])).round(3).tolist()
      [[0.0, 2.0, 0.0, 0.0]]
    """

    def __init__(self, num_features: int, *, rngs: nnx.Rngs):
        self.scale = _ones(num_features, rngs)

    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """The scaled channels."""
        dtype, (x, scale) = _widened(x, self.scale[...])
        inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _EPSILON)
        return (x * inverse * spread(scale, x)).astype(dtype)


class BatchNorm(nnx.Module):
    """Each channel less its mean, over its deviation, times a scale, plus a bias.

    Statistics of a batch that are not finite do not join the running ones: with Flax one such batch ends evaluation,
    also where the optimizer leaves its update out.

    Example:
      >>> norm = BatchNorm(1, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0]]), use_running_average=False).round(3).tolist(), norm.var[...].round(3).tolist()
      ([[-1.0], [1.0]], [1.0])
    """

    def __init__(self, num_features: int, *, momentum: float, epsilon: float, rngs: nnx.Rngs):
        self.mean, self.var = nnx.BatchStat(jnp.zeros(num_features)), nnx.BatchStat(jnp.ones(num_features))
        self.scale, self.bias = _ones(num_features, rngs), _zeros(num_features, rngs)
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(
        self, x: Float[Array, "*batch channels"], *, use_running_average: bool
    ) -> Float[Array, "*batch channels"]:
        """The channels, normalised by the batch, whose statistics join the running ones, or by the running ones."""
        dtype, (x, scale, bias) = _widened(x, self.scale[...], self.bias[...])
        if use_running_average:
            var = self.var[...]
            centred = x + spread(-self.mean[...], x)
        else:
            centred, mean, var = _moments(x)
            self.mean[...] = self._averaged(self.mean[...], mean)
            self.var[...] = self._averaged(self.var[...], var)
        y = centred * spread(scale * jax.lax.rsqrt(var + self.epsilon), x) + spread(bias, x)
        return y.astype(dtype)

    def _averaged(self, running: Array, now: Array) -> Array:
        return self.momentum * running + (1 - self.momentum) * keep_finite(now, running)


def _ones(num_features: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(jax.nn.initializers.ones(rngs.params(), (num_features,)))


def _zeros(num_features: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(jax.nn.initializers.zeros(rngs.params(), (num_features,)))


def _widened(*arrays: Array) -> tuple[jnp.dtype, list[Array]]:
    """The type that they have in common, and all of them in that or float32, whichever is wider."""
    dtype = jnp.result_type(*arrays)
    return dtype, [x.astype(jnp.promote_types(dtype, jnp.float32)) for x in arrays]


def _moments(x: Array) -> tuple[Array, Array, Array]:
    """The batch less its mean, the mean, and the variance.

    The mean changes its sign as a row: after a subtraction, all of the gradient would, before it is summed.
    """
    mean = total(x) / num_rows(x)
    centred = x + spread(-mean, x)
    return centred, mean, total(centred * centred) / num_rows(x)


LAYERNORM = Method(
    name="layernorm",
    summary="Adam on a network with LayerNorm before every activation",
    reference="Ba, Kiros and Hinton 2016, equation 4; Lyle et al. 2023, section 5",
    network={"norm": "layer"},
)
