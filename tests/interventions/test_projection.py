import jax.numpy as jnp
import numpy as np
import pytest

from pliant.interventions._projection import toward, wide


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ends_are_exact(dtype):
    leaf, goal = jnp.asarray([0.1, -3.3, 0.0], dtype), jnp.asarray([0.7, 1e-3, -2.0], dtype)
    np.testing.assert_array_equal(toward(leaf, goal, 1.0), goal)
    np.testing.assert_array_equal(toward(leaf, goal, 0.0), leaf)
    np.testing.assert_array_equal(toward(leaf, goal, jnp.float32(1.0)), goal)
    assert toward(leaf, goal, jnp.float32(0.5)).dtype == dtype


def test_nothing_leaks_through_a_strength_of_0():
    leaf = jnp.array([1.0, -0.0])
    found = toward(leaf, jnp.array([jnp.nan, jnp.inf]), 0.0)
    np.testing.assert_array_equal(found, leaf)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(leaf))


def test_a_share_of_the_way():
    np.testing.assert_allclose(toward(jnp.array([1.0]), jnp.array([3.0]), 0.25), [1.5])


def test_wide_is_at_least_float32():
    assert wide(jnp.ones(2, jnp.bfloat16)).dtype == wide(jnp.ones(2)).dtype == jnp.float32


def test_the_goal_is_reached_from_what_is_not_a_number():
    found = toward(jnp.array([jnp.nan, jnp.inf]), jnp.array([1.0, 2.0]), 1.0)
    np.testing.assert_array_equal(found, [1.0, 2.0])
