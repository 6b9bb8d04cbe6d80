"""Layers that divide their weights by an estimate of the spectral norm, and the estimate."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.isometry import matrix_view
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.types import Method, Scalar


class SingularVector(nnx.Variable):
    """An estimate of a kernel's leading singular vector: state, not a parameter."""


class PowerIterated(KernelLayer):
    """A layer that follows its kernel's leading singular vectors u and v, with one power iteration a training step."""

    def start_power_iteration(self, rngs: nnx.Rngs) -> None:
        """Makes u and v, of a random u and one iteration."""
        matrix = matrix_view(self.kernel[...])
        u = jax.random.normal(rngs.params(), matrix.shape[:1])
        u, v = power_iteration(matrix, u, jnp.zeros(matrix.shape[1:]))
        self.u, self.v = SingularVector(u), SingularVector(v)

    def estimated_norm(self, matrix: Float[Array, "in out"], *, train: bool) -> Scalar:
        """uᵀAv, differentiated with u and v as constants; with `train` they get an iteration before."""
        if train:
            self.u[...], self.v[...] = power_iteration(matrix, self.u[...], self.v[...])
        return self.u[...] @ jnp.matmul(matrix, self.v[...], precision="highest")


class SpectralNorm(PowerIterated):
    r"""A dense layer, or a convolution, that applies its weights divided by their spectral norm.

    .. math:: y = g\, x\, W / \hat\sigma + b, \qquad \hat\sigma = u^\top W v, \qquad
              v \leftarrow \frac{W^\top u}{\lVert W^\top u \rVert}, \quad u \leftarrow \frac{W v}{\lVert W v \rVert}

    The vectors u and v are kept as state and get one iteration a call with `train=True`; a call without it uses them as
    they are. Their gradient is stopped, so that of the norm is :math:`u v^\top`. All of it in float32. Where
    :math:`\hat\sigma` is not positive, as for W = 0, the weights are applied undivided.

    A convolution's W is the matrix view (height·wide·in, out), whose norm times √(height·wide) bounds the
    convolution's.

    Args:
      shape: of the kernel, (in, out) or (height, wide, in, out).
      gain: g, the spectral norm of the map.
      rngs: for the weights, which start orthogonal with singular values of 1, and u.
      options: `use_bias`, `strides` and `padding` of `KernelLayer`.

    Example:
      >>> layer = SpectralNorm((2, 2), rngs=nnx.Rngs(0))
      >>> layer.kernel[...] = jnp.diag(jnp.array([4.0, 1.0]))
      >>> for _ in range(10):
      ...     y = layer(jnp.array([[1.0, 1.0]]), train=True)
      >>> jnp.round(y, 3).tolist()
      [[1.0, 0.25]]

    References:
      Miyato et al., `Spectral Normalization for Generative Adversarial Networks <https://arxiv.org/abs/1802.05957>`_,
      2018. Equation 8 and algorithm 1.
      Gogianu et al., `Spectral Normalisation for Deep Reinforcement Learning <https://arxiv.org/abs/2105.05246>`_,
      2021.

    Differs from:
      PyTorch's `spectral_norm`, whose vectors get 15 iterations at the start: an orthogonal kernel needs one; and
      which divides by an estimate of any sign. Code that starts from the same random vector at every call, whose
      estimate stays too small. Flax' `nnx.SpectralNorm`, which
      writes the divided weights back into the parameters (google/flax#5576).
    """

    def __init__(self, shape: tuple[int, ...], *, gain: float = 1.0, rngs: nnx.Rngs, **options: Any):
        super().__init__(shape, rngs=rngs, **options)
        self.gain = gain
        self.start_power_iteration(rngs)

    def applied_kernel(self, *, train: bool) -> Float[Array, "*axes out"]:
        """The kernel over its estimated norm."""
        kernel = self.kernel[...]
        matrix = matrix_view(kernel).astype(jnp.promote_types(kernel.dtype, jnp.float32))
        norm = self.estimated_norm(matrix, train=train)
        result = self.gain * matrix / jnp.where(norm > 0, norm, 1.0)
        return result.reshape(kernel.shape).astype(kernel.dtype)


def power_iteration(matrix: Float[Array, "in out"], u: Array, v: Array) -> tuple[Array, Array]:
    """One iteration v ← Aᵀu, u ← Av of unit vectors; their gradient is stopped.

    Example:
      >>> u, v = power_iteration(jnp.diag(jnp.array([4.0, 3.0])), jnp.array([0.6, 0.8]), jnp.zeros(2))
      >>> [round(float(entry), 3) for entry in v], [round(float(entry), 2) for entry in u]
      ([0.707, 0.707], [0.8, 0.6])
    """
    matrix = jax.lax.stop_gradient(matrix)
    v = _direction(jnp.matmul(matrix.T, u, precision="highest"), v)
    return _direction(jnp.matmul(matrix, v, precision="highest"), u), v


def _direction(vector: Array, former: Array) -> Array:
    """The unit vector, or the former one where there is none: for 0, and for what is not finite."""
    norm = jnp.linalg.norm(vector)
    return jnp.where((norm > 0) & jnp.isfinite(norm), vector / jnp.where(norm > 0, norm, 1.0), former)


SPECTRAL_NORM_LAYER = Method(
    name="spectral-norm-layer",
    summary="Adam on a network whose first dense layer is divided by its spectral norm",
    reference="Gogianu et al. 2021; Lyle et al. 2023, section 5.2",
    network={"linear": "spectral-norm-first"},
)
