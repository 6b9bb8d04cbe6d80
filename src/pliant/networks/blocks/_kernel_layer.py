"""Dense layers and convolutions, also those that apply a function of their weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.networks.blocks._orthogonal import Initializer, orthogonal
from pliant.xla.convolution import Padding, Pair, convolution
from pliant.xla.rows import num_rows, spread


class KernelLayer(nnx.Module):
    r"""A dense layer or a convolution, fast on the CPU, with a function of its kernel in the kernel's place.

    .. math:: y = x\, f(W) + b

    f is the identity here; other layers override `applied_kernel`. Every position of every example is a row of one
    matrix: XLA:CPU would copy the input of a product over several axes to get its gradient, which nearly doubles the
    time of a ViT's step.

    Args:
      shape: of the kernel: (in, out), or (height, wide, in, out) for a convolution.
      gain: singular values of the kernel's matrix view at the start, > 0.
      kernel_init: draws the kernel, in the place of an orthogonal start.
      use_bias: whether there is a b (initialised to 0).
      strides: of a convolution, ≥ 1: one for both axes, or (for height, for wide).
      padding: of a convolution, as in `pliant.networks.convolution`.
      rngs: for the weights. The draws are those of `nnx.Linear`, so that what is initialised later is the same as well.

    Example:
      >>> layer = KernelLayer((3, 3, 3, 8), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 5, 3))).shape
      (2, 5, 5, 8)
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        gain: float = 1.0,
        kernel_init: Initializer | None = None,
        use_bias: bool = True,
        strides: int | Pair = 1,
        padding: Padding | Sequence[Sequence[int]] = "SAME",
        rngs: nnx.Rngs,
    ):
        draw = orthogonal(gain) if kernel_init is None else kernel_init
        self.kernel = nnx.Param(draw(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jax.nn.initializers.zeros(rngs.params(), shape[-1:])) if use_bias else None
        self.strides = (strides, strides) if isinstance(strides, int) else strides
        self.padding = padding if isinstance(padding, str) else tuple(tuple(pair) for pair in padding)

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The kernel that the layer applies, in the shape and type of its weights."""
        del train
        return self.kernel[...]

    def __call__(self, x: Float[Array, "*batch in"], *, train: bool = False) -> Float[Array, "*new_batch out"]:
        """The inputs times the applied kernel, or convolved with it, plus the bias."""
        kernel, bias = self.applied_kernel(train=train), None if self.bias is None else self.bias[...]
        dtype = jnp.result_type(x, kernel, *([] if bias is None else [bias]))
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if kernel.ndim > 2:
            y = convolution(x, kernel, strides=self.strides, padding=self.padding)
        else:
            y = (x.reshape(num_rows(x), x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])
        return y if bias is None else y + spread(bias.astype(dtype), y)
