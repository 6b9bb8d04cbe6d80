import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks.blocks._rational import DENOMINATOR, NUMERATOR, rational

GRID = np.linspace(-3, 3, 6001)
LEAKY = np.where(GRID > 0, GRID, 0.01 * GRID)


def by_hand(x, numerator=NUMERATOR, denominator=DENOMINATOR):
    """In float64, power by power."""
    p = sum(a * x**power for power, a in enumerate(numerator))
    q = sum(b * x**power for power, b in enumerate(denominator, start=1))
    return p / (1 + abs(q))


def test_golden():
    x = jnp.array([2.0, -2.0, 0.0])
    np.testing.assert_allclose(rational(x, (1.0, 2.0), (3.0,)), [5 / 7, -3 / 7, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rational(x, (1.0, 0.0, 1.0), (0.0, -1.0)), [1.0, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_types_are_promoted(shape):
    """Numbers written in Python follow x; arrays are promoted with it."""
    short, learned = jnp.ones(shape, jnp.bfloat16), jnp.asarray(NUMERATOR)
    assert rational(short).dtype == jnp.bfloat16
    assert rational(short, learned).dtype == jnp.float32


def test_degrees_are_five_and_four():
    assert (len(NUMERATOR) - 1, len(DENOMINATOR)) == (5, 4)
    np.testing.assert_allclose(rational(jnp.asarray(GRID, jnp.float32)), by_hand(GRID), rtol=1e-5, atol=1e-6)


def test_the_start_is_a_fit_to_leaky_relu():
    error = by_hand(GRID) - LEAKY
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), 0.00554, atol=1e-5)
    np.testing.assert_allclose(np.abs(error).max(), 0.0336, atol=1e-4)


def test_the_fit_is_one_of_least_squares():
    """No coefficient can be moved a little either way without a larger error."""

    def error(coefficients):
        return np.sum((by_hand(GRID, coefficients[:6], coefficients[6:]) - LEAKY) ** 2)

    best = np.array(NUMERATOR + DENOMINATOR)
    for i in range(10):
        for by in (1e-3, -1e-3):
            assert error(best + by * np.eye(10)[i]) > error(best)


def test_far_away_both_slopes_are_the_same():
    x = jnp.array([-1e4, 1e4])
    np.testing.assert_allclose(jax.vmap(jax.grad(rational))(x), NUMERATOR[5] / DENOMINATOR[3], rtol=1e-3)
    np.testing.assert_allclose(rational(x) - 0.505 * x, 3.1, atol=0.2)


def test_there_are_no_poles(key):
    """The denominator is at least 1, whatever is learned."""
    a, b = jax.random.normal(key, (2, 100, 5))
    x = jnp.linspace(-5, 5, 201)
    found = jax.vmap(lambda a, b: rational(x, a, b))(a, b)
    numerators = jax.vmap(lambda a: rational(x, a, (0.0,)))(a)
    assert bool((jnp.abs(found) <= jnp.abs(numerators)).all())


def test_gradients_by_hand():
    x, a, b = jnp.array(2.0), jnp.array([1.0, 2.0]), jnp.array([-3.0])
    of_x, of_a, of_b = jax.grad(rational, argnums=(0, 1, 2))(x, a, b)
    np.testing.assert_allclose(of_x, 2 / 7 - 5 * 3 / 49, rtol=1e-5)  # P'/D − P D'/D², D = 1 + |−3x| = 1 + 3x
    np.testing.assert_allclose(of_a, [1 / 7, 2 / 7], rtol=1e-6)
    np.testing.assert_allclose(of_b, [5 * 2 / 49], rtol=1e-5)


def test_gradients_of_coefficients_of_many_entries():
    """Against power by power in float64, seeds batched."""
    draw = np.random.default_rng(0)
    x, g = draw.normal(size=(2, 3, 128, 96))
    a, b = draw.normal(size=(3, 6)), draw.normal(size=(3, 4))
    arrays = [jnp.asarray(each, jnp.float32) for each in (x, a, b, g)]
    of_a, of_b = jax.vmap(lambda x, a, b, g: jax.vjp(lambda a, b: rational(x, a, b), a, b)[1](g))(*arrays)
    powers = np.stack([x**power for power in range(6)], axis=1)
    p, q = np.einsum("sp,spij->sij", a, powers), np.einsum("sp,spij->sij", b, powers[:, 1:5])
    below = 1 + np.abs(q)
    wanted_a = np.einsum("sij,spij->sp", g / below, powers)
    wanted_b = np.einsum("sij,spij->sp", -g * p * np.sign(q) / below**2, powers[:, 1:5])
    np.testing.assert_allclose(of_a, wanted_a, rtol=0, atol=1e-4 * np.abs(wanted_a).max())
    np.testing.assert_allclose(of_b, wanted_b, rtol=0, atol=1e-4 * np.abs(wanted_b).max())


@pytest.mark.parametrize("x", [0.0, 1e-30, -50.0, 1e4])
def test_gradients_are_finite(x):
    arguments = (jnp.float32(x), jnp.array(NUMERATOR), jnp.array(DENOMINATOR))
    first = jax.grad(rational, argnums=(0, 1, 2))(*arguments)
    second = jax.grad(lambda *a: jax.grad(rational)(*a), argnums=(0, 1, 2))(*arguments)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((first, second)))


def test_powers_of_float16_do_not_overflow():
    """Of 20 the fifth power is 3.2 million."""
    x = jnp.array([-20.0, 5.0, 20.0], jnp.float16)
    np.testing.assert_allclose(rational(x), by_hand(np.float64(x)), rtol=2e-3)
    gradient = jax.grad(lambda x: rational(x).sum())(x)
    wanted = (by_hand(np.float64(x) + 1e-4) - by_hand(np.float64(x) - 1e-4)) / 2e-4
    np.testing.assert_allclose(gradient, wanted, rtol=5e-3)


def test_keeps_bfloat16():
    narrow = [jnp.array(values, jnp.bfloat16) for values in (NUMERATOR, DENOMINATOR)]
    assert rational(jnp.ones(3, jnp.bfloat16), *narrow).dtype == jnp.bfloat16
