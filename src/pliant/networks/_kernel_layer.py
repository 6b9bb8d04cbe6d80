"""Layers that apply a function of their weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.networks._orthogonal import orthogonal
from pliant.xla.convolution import Padding, convolution
from pliant.xla.rows import spread


class KernelLayer(nnx.Module):
    r"""A dense layer or a convolution with a function of its kernel in the kernel's place: `applied_kernel`.

    .. math:: y = x\, f(W) + b

    Args:
      shape: of the kernel: (in, out), or (height, wide, in, out) for a convolution.
      gain: singular values of the kernel's matrix view at the start, > 0.
      use_bias: whether there is a b (initialised to 0).
      strides: of a convolution, for both axes, ≥ 1.
      padding: of a convolution, as in `pliant.networks.convolution`.
      rngs: for the weights. The draws are those of `nnx.Linear`, so that what is initialised later is the same as well.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        gain: float = 1.0,
        use_bias: bool = True,
        strides: int = 1,
        padding: Padding | Sequence[Sequence[int]] = "SAME",
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(orthogonal(gain)(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jax.nn.initializers.zeros(rngs.params(), shape[-1:])) if use_bias else None
        self.strides = (strides, strides)
        self.padding = padding if isinstance(padding, str) else tuple(tuple(pair) for pair in padding)

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The kernel that the layer applies, in the shape and type of its weights."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*batch in"], *, train: bool = False) -> Float[Array, "*new_batch out"]:
        """The inputs times the applied kernel, or convolved with it."""
        kernel = self.applied_kernel(train=train)
        y = x @ kernel if kernel.ndim == 2 else convolution(x, kernel, strides=self.strides, padding=self.padding)
        return y if self.bias is None else y + spread(self.bias[...], y)
