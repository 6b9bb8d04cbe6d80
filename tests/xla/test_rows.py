import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.xla.rows import num_rows, spread, spread_number, total

SHAPES = [(1, 3), (512, 3), (513, 3), (7, 11, 13, 2), (64, 32, 1)]


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 3000))
def test_any_number_of_rows(rows):
    x = normal((rows, 2))
    np.testing.assert_allclose(total(x), np.float64(x).sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_is_the_others_gradient(shape):
    row, x = normal(shape[-1:]), normal(shape, seed=1)
    _, to_row = jax.vjp(lambda row: spread(row, x), row)
    _, to_x = jax.vjp(total, x)
    np.testing.assert_allclose(to_row(x)[0], np.float64(x).reshape(-1, shape[-1]).sum(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(to_x(row)[0], jnp.broadcast_to(row, shape))
    assert num_rows(x) == x.size // shape[-1]


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_all_orders_and_forward_mode(shape):
    def function(spread, total):
        return lambda row, x: jnp.sin(total(jnp.cos(x * spread(row, x)) / num_rows(x))).sum()

    def derivatives(f):
        return jax.hessian(f, argnums=(0, 1)), jax.jacrev(jax.jacfwd(f)), jax.jacrev(jax.grad(f, argnums=1))

    ours = function(spread, total)
    stock = function(lambda row, x: jnp.broadcast_to(row, x.shape), lambda x: x.sum(0))
    arguments = normal(shape[-1:]), normal(shape, seed=1)
    for our, their in zip(derivatives(ours), derivatives(stock), strict=True):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), our(*arguments), their(*arguments)
        )


@pytest.mark.parametrize("shape", [(), (7,), *SHAPES])
def test_a_number_for_all_entries(shape):
    x = normal(shape)
    there, back = jax.vjp(lambda number: spread_number(number, x), jnp.float32(1.5))
    np.testing.assert_array_equal(there, np.full(shape, 1.5))
    np.testing.assert_allclose(back(x)[0], np.float64(x).sum(), rtol=1e-5, atol=1e-4)
    second = jax.hessian(lambda number: (x * spread_number(number, x) ** 3).sum())(jnp.float32(0.5))
    np.testing.assert_allclose(second, 3 * np.float64(x).sum(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rows", [3, 600])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_many_at_once(rows, axis):
    many, like = normal((5, 2)), normal((5, rows, 2), seed=1)
    x = jnp.moveaxis(like, 0, axis)
    np.testing.assert_allclose(jax.vmap(total, axis)(x), jnp.stack(list(map(total, like))), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(jax.vmap(spread, (0, axis))(many, x), jnp.broadcast_to(many[:, None], like.shape))
    np.testing.assert_array_equal(jax.vmap(spread, (1, axis))(many.T, x), jnp.broadcast_to(many[:, None], like.shape))
    np.testing.assert_array_equal(jax.vmap(spread, (None, axis))(many[0], x), jnp.broadcast_to(many[0], like.shape))

    def gradient(row, x):
        return jax.grad(lambda row: (jnp.sin(spread(row, x)) * x).sum())(row)

    one_by_one = jnp.stack([gradient(*each) for each in zip(many, like, strict=True)])
    np.testing.assert_allclose(jax.vmap(gradient, (0, axis))(many, x), one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_numbers_are_summed_as_long_ones(dtype):
    """Rounded once: between 4,096 and 8,192 bfloat16 only has multiples of 32, which a sum in it soon is."""
    x = (1 + normal((4095, 3))).astype(dtype)
    exact = np.asarray(x, np.float64).sum(0)
    assert total(x).dtype == dtype
    np.testing.assert_array_equal(total(x), jnp.asarray(exact, jnp.float32).astype(dtype))


def test_exact_where_there_are_many_rows():
    """A million rows with a mean: adding one after the other loses a thousand times as much."""
    x = 1 + normal((2**20, 1))
    np.testing.assert_allclose(total(x), np.float64(x).sum(0), rtol=2e-7)


def test_long_sums_go_by_halves():
    """The compiled gradient of a row has no reduction of XLA's, which is slow."""
    row, x = normal((8,)), normal((2048, 8), seed=1)

    def reductions(along_rows):
        _, gradient = jax.vjp(lambda row: jnp.sin(along_rows(row, x)), row)
        return re.findall(r" reduce(?:-window)?\(", jax.jit(gradient).lower(x).compile().as_text())

    assert not reductions(spread)
    assert reductions(lambda row, x: jnp.broadcast_to(row, x.shape))


TRANSFORMATIONS = {
    "forward": lambda f: f,
    "gradient": jax.grad,
    "gradients of many": lambda f: lambda row, x: jax.vmap(jax.grad(f), (0, None))(jnp.stack([row, 2 * row]), x),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_elsewhere_than_on_the_cpu_it_is_the_stock_sum(name):
    """The choice falls when a program is lowered, for a platform that need not be here."""

    def operations(along_rows, sum_of_rows, platform):
        program = TRANSFORMATIONS[name](lambda row, x: jnp.sin(sum_of_rows(along_rows(row, x))).sum())
        lowered = jax.jit(program).trace(normal((8,)), normal((2048, 8))).lower(lowering_platforms=(platform,))
        return collections.Counter(re.findall(r"\bstablehlo\.(?!reshape|broadcast)\w+", lowered.as_text()))

    stock = lambda row, x: jnp.broadcast_to(row, x.shape), lambda x: x.sum(0)
    assert operations(spread, total, "cuda") == operations(*stock, "cuda")
    assert operations(spread, total, "cpu") != operations(*stock, "cpu")


def test_runs_without_compilation():
    x = normal((2048, 3))
    with jax.disable_jit():
        np.testing.assert_allclose(total(spread(x[0], x)), 2048 * np.float64(x[0]), rtol=1e-5)
