import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.xla.squares import sum_of_squares, total_norm

SHAPES = [(), (0,), (3,), (1023,), (1024,), (1025,), (64, 33), (3, 3, 16, 32)]


@pytest.fixture(params=SHAPES, ids=str)
def x(request):
    return jnp.float32(np.random.default_rng(0).normal(size=request.param))


def test_is_the_sum_of_squares(x):
    np.testing.assert_allclose(jax.jit(sum_of_squares)(x), (np.float64(x) ** 2).sum(), rtol=1e-6)


def test_derivatives(x):
    np.testing.assert_allclose(jax.grad(sum_of_squares)(x), 2 * x, rtol=1e-6)
    change = jnp.cos(x)
    slope = jax.jvp(sum_of_squares, (x,), (change,))[1]
    np.testing.assert_allclose(slope, 2 * (np.float64(x) * np.float64(change)).sum(), rtol=1e-5, atol=1e-4)
    curvature = jax.jvp(jax.grad(sum_of_squares), (x,), (change,))[1]
    np.testing.assert_allclose(curvature, 2 * change, rtol=1e-6)


def test_of_each_of_a_stack(x):
    stack = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(sum_of_squares)(stack), sum_of_squares(x) * jnp.array([1, 4]), rtol=1e-6)


def test_narrow_types_are_added_up_in_float32():
    x = jnp.full(4096, 1.0078125, jnp.bfloat16)  # whose square is no bfloat16
    assert sum_of_squares(x).dtype == jnp.float32
    np.testing.assert_allclose(sum_of_squares(x), 4096 * 1.0078125**2, rtol=1e-6)
    assert jax.grad(sum_of_squares)(x).dtype == jnp.bfloat16


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_what_is_not_finite_is_seen(wrong):
    x = jnp.zeros(2048).at[100].set(wrong)
    np.testing.assert_equal(float(sum_of_squares(x)), float(wrong))


def test_total_norm():
    tree = {"a": jnp.array([[3.0, 0.0]]), "b": jnp.full((2, 2), 2.0, jnp.bfloat16)}
    assert float(total_norm(tree)) == 5.0
    assert np.isnan(float(total_norm({"a": jnp.array([jnp.nan])})))
