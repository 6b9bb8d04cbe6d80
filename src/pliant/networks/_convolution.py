"""Convolutional layers that stay fast inside compiled loops."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from pliant.xla.convolution import Padding, Pair, convolution, pair
from pliant.xla.rows import spread


class Conv(nnx.Conv):
    """`nnx.Conv` on `convolution`, with a bias whose gradient is fast.

    Example:
      >>> layer = Conv(3, 8, (3, 3), kernel_init=jax.nn.initializers.ones, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 5, 3))).shape
      (2, 5, 5, 8)
    """

    strides: Pair
    padding: Padding | tuple[Pair, Pair]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Pair,
        *,
        strides: int = 1,
        padding: Padding | Sequence[Sequence[int]] = "SAME",
        use_bias: bool = True,
        kernel_init: Any,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides=(strides, strides),
            padding=padding if isinstance(padding, str) else (pair(padding[0]), pair(padding[1])),
            use_bias=use_bias,
            kernel_init=kernel_init,
            rngs=rngs,
        )

    def __call__(  # type: ignore[override] # without Flax' options
        self, x: Float[Array, "batch height wide in"]
    ) -> Float[Array, "batch new_height new_wide out"]:
        """The convolved images, plus the bias."""
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        y = convolution(x, kernel, strides=self.strides, padding=self.padding)
        return y if bias is None else y + spread(bias, y)
