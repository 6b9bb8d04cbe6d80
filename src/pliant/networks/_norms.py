"""Flax' normalisations, fast on the CPU where there are many positions.

Variances are taken about the mean: the mean of squares loses digits where there is a mean.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.networks._rows import num_rows, spread, total


class LayerNorm(nnx.LayerNorm):
    """`nnx.LayerNorm`: the channels of each position less their mean, over their deviation, times a scale, plus a bias.

    Example:
      >>> LayerNorm(2, rngs=nnx.Rngs(0))(jnp.array([[1.0, 3.0]])).round(3).tolist()
      [[-1.0, 1.0]]
    """

    scale: nnx.Param[Array]
    bias: nnx.Param[Array]

    def __call__(  # type: ignore[override] # without Flax' options
        self, x: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch channels"]:
        """The normalised channels."""
        x, scale, bias = self.promote_dtype((x, self.scale[...], self.bias[...]), dtype=self.dtype)
        centred = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        return centred * inverse * spread(scale, x) + spread(bias, x)


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm`: each channel less its mean, over its deviation, times a scale, plus a bias.

    Example:
      >>> norm = BatchNorm(1, momentum=0.9, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0]]), use_running_average=False).round(3).tolist(), norm.var[...].round(3).tolist()
      ([[-1.0], [1.0]], [1.0])
    """

    scale: nnx.Param[Array]
    bias: nnx.Param[Array]

    def __call__(  # type: ignore[override] # without Flax' options
        self, x: Float[Array, "*batch channels"], *, use_running_average: bool
    ) -> Float[Array, "*batch channels"]:
        """The channels, normalised by the batch, whose statistics join the running ones, or by the running ones."""
        x, scale, bias, mean, var = self.promote_dtype(
            (x, self.scale[...], self.bias[...], self.mean[...], self.var[...]), dtype=self.dtype
        )
        if use_running_average:
            centred = x + spread(-mean, x)
        else:
            centred, batch_mean, var = _moments(x)
            self.mean[...] = self.momentum * mean + (1 - self.momentum) * batch_mean
            self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * var
        return centred * spread(scale * jax.lax.rsqrt(var + self.epsilon), x) + spread(bias, x)


def _moments(x: Array) -> tuple[Array, Array, Array]:
    """The batch less its mean, the mean, and the variance.

    The mean changes its sign as a row: after a subtraction, all of the gradient would, before it is summed.
    """
    mean = total(x) / num_rows(x)
    centred = x + spread(-mean, x)
    return centred, mean, total(centred * centred) / num_rows(x)
