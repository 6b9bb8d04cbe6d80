import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.xla.rounding import rounded, with_rounded_gradient

pytestmark = pytest.mark.exact


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_numbers_are_unchanged(dtype):
    x = jnp.array([0.0, -0.0, 1.5, jnp.inf, -(2.0**-130), 3e-39], dtype)
    out = jax.jit(rounded)({"x": x, "n": jnp.arange(3)}, jnp.int32(7))
    np.testing.assert_array_equal(out["x"].view(f"int{8 * x.dtype.itemsize}"), x.view(f"int{8 * x.dtype.itemsize}"))
    np.testing.assert_array_equal(out["n"], [0, 1, 2])


def test_a_product_is_rounded_before_the_sum():
    """Without the rounding point XLA may contract a·b + c to a fused multiply-add, which rounds once."""
    draw = np.random.default_rng(0)
    a, b = (draw.normal(size=1000).astype(np.float32) for _ in range(2))
    c = -(a * b)  # the fused form leaves the rounding error of a·b, the separate one exactly 0
    separate = jax.jit(lambda a, b, c, step: rounded(a * b, step) + c)(a, b, c, jnp.int32(1))
    np.testing.assert_array_equal(separate, 0.0)


def test_two_rounding_points_do_not_cancel():
    draw = np.random.default_rng(0)
    a, b = (draw.normal(size=1000).astype(np.float32) for _ in range(2))
    twice = jax.jit(lambda a, b, c, step: rounded(rounded(a * b, step), step) + c)(a, b, -(a * b), jnp.int32(1))
    np.testing.assert_array_equal(twice, 0.0)


def test_gradients_flow():
    def loss(x):
        return (with_rounded_gradient(x, jnp.int32(1)) ** 3).sum()

    np.testing.assert_allclose(jax.grad(loss)(jnp.array([1.0, 2.0])), [3.0, 12.0])
