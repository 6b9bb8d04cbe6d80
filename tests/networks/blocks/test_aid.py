import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks.blocks._aid import aid


def same(a, b):
    np.testing.assert_array_equal(a, b)


def test_evaluation_golden():
    np.testing.assert_allclose(aid(jnp.array([2.0, -2.0, 0.0])), [1.8, -0.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(aid(jnp.array([2.0, -2.0]), 0.7), [1.4, -0.6], rtol=1e-6)


def test_the_ends_are_relu_and_its_mirror_and_the_middle_is_linear(key):
    x = jax.random.normal(key, (100,))
    same(aid(x, 1.0), jax.nn.relu(x))
    same(aid(x, 1.0, key=key), jax.nn.relu(x))
    same(aid(x, 0.0, key=key), jnp.minimum(x, 0.0))
    np.testing.assert_allclose(aid(x, 0.5), x / 2, rtol=1e-6)


@pytest.mark.parametrize("p", [0.9, 0.3])
def test_either_part_passes_with_its_probability(key, p):
    x = jax.random.normal(key, (200, 500))
    drawn = np.asarray(aid(x, p, key=jax.random.key(1)))
    passed = drawn != 0
    same(drawn[passed], np.asarray(x)[passed])
    positive = np.asarray(x) > 0
    np.testing.assert_allclose(passed[positive].mean(), p, atol=0.01)
    np.testing.assert_allclose(passed[~positive].mean(), 1 - p, atol=0.01)
    np.testing.assert_allclose((drawn**2).mean(), 0.5, rtol=0.02)


def test_evaluation_is_the_mean_of_training(key):
    x = jnp.array([2.0, -2.0, 0.5, -0.5])
    drawn = jax.vmap(lambda key: aid(x, key=key))(jax.random.split(key, 20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), aid(x), atol=0.02)


def test_every_entry_draws_for_itself_and_from_the_key_only(key):
    x = jnp.ones((64, 64))
    drawn = aid(x, 0.5, key=key)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert 0 < float(drawn.mean(axis=0).min()) < float(drawn.mean(axis=0).max()) < 1
    same(aid(x, 0.5, key=key), drawn)
    same(jax.jit(lambda x, key: aid(x, 0.5, key=key))(x, key), drawn)
    assert not np.array_equal(aid(x, 0.5, key=jax.random.key(1)), drawn)


def test_gradients_are_those_of_what_passed(key):
    x = jax.random.normal(key, (50,))
    passed = np.asarray(aid(x, key=key)) != 0
    same(jax.grad(lambda x: aid(x, key=key).sum())(x), passed)
    np.testing.assert_allclose(jax.grad(lambda x: aid(x).sum())(x), np.where(x > 0, 0.9, 0.1), rtol=1e-6)


@pytest.mark.parametrize("seed", [None, 0])
def test_keeps_bfloat16(seed):
    drawn = aid(jnp.ones(3, jnp.bfloat16), key=None if seed is None else jax.random.key(seed))
    assert drawn.dtype == jnp.bfloat16


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_refuses(p):
    with pytest.raises(UserError, match=rf"got p={p}; wanted a number in \[0, 1\]. 0.9 is the authors'"):
        aid(jnp.ones(2), p)
