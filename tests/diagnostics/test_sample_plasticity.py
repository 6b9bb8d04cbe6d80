import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, sample_plasticity
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Update

few = settings(max_examples=25, deadline=None, database=None)


def followed(network, params, inputs, learning_rate, key):
    """What the diagnostic says of an update of gradient descent, and η‖g‖²/ℓ."""

    def loss(params):
        output = network.apply(params, {}, inputs, train=True, key=key)[0]
        return optax.softmax_cross_entropy_with_integer_labels(output, jnp.arange(len(inputs)) % 2).mean()

    before, gradient = jax.value_and_grad(loss)(params)
    change = jax.tree.map(lambda leaf: -learning_rate * leaf, gradient)
    update = Update(key, params, change, change, before, lambda: loss(optax.apply_updates(params, change)))
    _, found = DIAGNOSTICS["sample-plasticity"].follow((), update)
    assert set(found) == {"sample_plasticity"}
    return found["sample_plasticity"], learning_rate * optax.tree.norm(gradient) ** 2 / before


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [(2.0, 0.5, 0.75), (2.0, 2.0, 0.0), (2.0, 3.0, 0.0), (2.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)],
)
def test_golden(before, after, wanted):
    assert float(sample_plasticity(jnp.float32(before), jnp.float32(after))) == wanted


def test_eps_bounds_the_share_of_a_small_loss():
    np.testing.assert_allclose(sample_plasticity(jnp.float32(0.1), jnp.float32(0.1), eps=1.0), 0.9, rtol=1e-6)


@given(st.floats(1e-3, 1e3), st.floats(0, 1e3), st.floats(1e-2, 1e2))
@few
def test_within_bounds_and_free_of_scale(before, after, scale):
    found = float(sample_plasticity(jnp.float32(before), jnp.float32(after)))
    assert 0 <= found <= 1
    scaled = sample_plasticity(jnp.float32(scale * before), jnp.float32(scale * after))
    np.testing.assert_allclose(scaled, found, atol=1e-5)


@pytest.mark.parametrize("losses", [(np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf)])
def test_nan_in_nan_out(losses):
    assert np.isnan(sample_plasticity(*map(jnp.float32, losses)))


def test_an_eps_of_zero_is_refused():
    with pytest.raises(UserError, match=r"got eps=0.0; wanted a finite number ≥ 1e-30"):
        sample_plasticity(jnp.float32(1.0), jnp.float32(1.0), eps=0.0)


def test_compiled_and_batched_is_the_same_as_a_loop():
    before, after = jnp.array([2.0, 1.0, 0.0]), jnp.array([0.5, 1.5, 0.0])
    found = jax.jit(jax.vmap(sample_plasticity))(before, after)
    np.testing.assert_array_equal(found, [sample_plasticity(b, a) for b, a in zip(before, after, strict=True)])


def test_updates_of_a_live_and_a_dead_network(key):
    """No update has none, a small one the first-order estimate; the dead one moves the head's bias only."""
    network = mlp((3,), 2, widths=(8,))
    live, _ = network.init(key)
    dead = live | {"dense_0": live["dense_0"] | {"bias": live["dense_0"]["bias"] - 100.0}}
    of = jax.jit(lambda params, rate: followed(network, params, jax.random.normal(key, (8, 3)), rate, key))
    assert float(of(live, 0.0)[0]) == 0.0
    found, estimate = of(live, 2e-3)
    assert float(estimate) > 1e-4
    np.testing.assert_allclose(found, estimate, rtol=0.05)
    assert float(of(dead, 0.1)[0]) < float(of(live, 0.1)[0]) / 3


def test_first_order_estimate_of_a_convolutional_network(key):
    network = cnn((4, 4, 1), 2, channels=(2,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=())
    params, _ = network.init(key)
    images = jax.random.normal(key, (6, 4, 4, 1))
    found, estimate = jax.jit(lambda params: followed(network, params, images, 2e-3, key))(params)
    assert float(estimate) > 1e-4
    np.testing.assert_allclose(found, estimate, rtol=0.05)


def test_it_only_follows():
    diagnostic = DIAGNOSTICS["sample-plasticity"]
    assert diagnostic.measure is None
    assert diagnostic.summarize is None
