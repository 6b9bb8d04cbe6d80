import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, update_norm
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.types import Update

few = settings(max_examples=15, deadline=None, database=None)
UPDATE_NORM = DIAGNOSTICS["update-norm"]


def test_golden():
    params = {"bias": jnp.array([0.0]), "kernel": jnp.array([[24.0, 10.0]])}
    found = update_norm({"bias": jnp.array([12.0]), "kernel": jnp.array([[3.0, -4.0]])}, params)
    assert (float(found.norm), float(found.effective_learning_rate)) == (13.0, 0.5)


def test_no_update():
    found = update_norm({"w": jnp.zeros(2)}, {"w": jnp.ones(2)})
    assert (float(found.norm), float(found.effective_learning_rate)) == (0.0, 0.0)


@pytest.mark.parametrize("change", [0.0, 1.0])
def test_parameters_of_zero_have_no_effective_learning_rate(change):
    found = update_norm({"w": jnp.full(1, change)}, {"w": jnp.zeros(1)})
    assert float(found.norm) == change
    assert np.isnan(found.effective_learning_rate)


def test_nan_in_nan_out():
    bad, good = {"w": jnp.array([jnp.nan, 1.0])}, {"w": jnp.ones(2)}
    assert np.isnan(list(update_norm(bad, good))).all()
    assert np.isnan(update_norm(good, bad).effective_learning_rate)


def test_bfloat16_is_summed_in_float32():
    tiny = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.full((1,), 1 / 16, jnp.bfloat16)}
    np.testing.assert_allclose(update_norm(tiny, tiny).norm, (1 + 1 / 256) ** 0.5, rtol=1e-6)


@given(st.integers(0, 2**31), st.floats(1e-2, 1e2))
@few
def test_scale(seed, scale):
    change, params = (jnp.asarray(draw, jnp.float32) for draw in np.random.default_rng(seed).standard_normal((2, 4, 3)))
    found = update_norm({"w": change}, {"w": params})
    together, alone = (update_norm({"w": scale * change}, {"w": s * params}) for s in (scale, 1.0))
    np.testing.assert_allclose(together.norm, scale * found.norm, rtol=1e-5)
    np.testing.assert_allclose(together.effective_learning_rate, found.effective_learning_rate, rtol=1e-5)
    np.testing.assert_allclose(alone.effective_learning_rate, scale * found.effective_learning_rate, rtol=1e-5)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(
        UserError, match=r"got no parameters; wanted at least one array\. Pass the network's parameters"
    ):
        update_norm({}, {})
    with pytest.raises(
        UserError, match=r"got 'w' of shape \(2,\) and \(3,\); wanted the same leaves of the same shapes"
    ):
        update_norm({"w": jnp.ones(2)}, {"w": jnp.ones(3)})


def test_several_seeds(key):
    change, params = (jax.random.normal(each, (3, 4, 2)) for each in jax.random.split(key))
    together = jax.jit(jax.vmap(update_norm))({"w": change}, {"w": params})
    for seed in range(3):
        np.testing.assert_allclose(
            [value[seed] for value in together], update_norm({"w": change[seed]}, {"w": params[seed]}), rtol=1e-6
        )


def test_it_follows_gradient_descent(key):
    """The update of plain descent is the gradient times η; frozen parameters move by nothing."""
    params, _ = mlp((3,), 2, widths=(4,)).init(key)
    gradients = jax.tree.map(jnp.ones_like, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    for rate in (0.5, 0.0):
        optimizer = optax.sgd(rate)
        change, _ = optimizer.update(gradients, optimizer.init(params), params)
        found = jax.jit(
            lambda params, change: UPDATE_NORM.follow((), Update(key, params, change, change, 1.0, None))[1]
        )(params, change)
        assert set(found) == {"update_norm", "effective_learning_rate"}
        assert float(found["update_norm"]) == pytest.approx(rate * size**0.5, rel=1e-5)
        relative = rate * size**0.5 / float(optax.tree.norm(params))
        assert float(found["effective_learning_rate"]) == pytest.approx(relative, rel=1e-5)


def test_it_only_follows():
    assert UPDATE_NORM.measure is None
    assert UPDATE_NORM.summarize is None
    assert UPDATE_NORM.cost == "cheap"
