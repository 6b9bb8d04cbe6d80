import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.diagnostics import DIAGNOSTICS, gradient_moments, gradient_noise, readiness
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.types import Rule
from subjects import measure, subject

RULE = Rule(optax.with_extra_args_support(optax.sgd(0.1)), 16)


@pytest.mark.parametrize(
    ("signal", "trace", "batch_size", "wanted"),
    [
        (3.0, 10.0, 10, (2.25, 3.0, 0.75)),
        (4.0, 0.0, 1, (4.0, 4.0, 1.0)),
        (-1.0, 10.0, 10, (0.0, -1.0, 0.0)),
        (0.0, 0.0, 10, (0.0, 0.0, 0.0)),
    ],
)
def test_golden(signal, trace, batch_size, wanted):
    assert tuple(readiness(signal, trace, batch_size)) == pytest.approx(wanted)


def test_nan_in_nan_out():
    for found in (readiness(np.nan, 1.0, 4), readiness(1.0, np.nan, 4)):
        assert np.isnan([found.readiness, found.reliability]).all()


def test_a_batch_of_none_is_refused():
    with pytest.raises(UserError, match=r"got batch_size=0; wanted a finite number ≥ 1"):
        readiness(1.0, 1.0, 0)


def test_the_bound_is_reached_on_the_quadratic_that_it_is_derived_from():
    """f = L/2 ‖θ − x̄‖² in batches of two with replacement: all are enumerated, so that the gain is exact."""
    smoothness, batch_size = 3.0, 2
    x = np.array([[1.0, 0.0], [2.0, 1.0], [4.0, -1.0], [1.0, 2.0]])
    theta = np.array([0.5, -0.5])

    def gain(eta):
        batches = itertools.product(x, repeat=batch_size)
        after = np.array([theta - eta * smoothness * (theta - np.mean(batch, axis=0)) for batch in batches])
        loss = smoothness / 2 * np.square(after - x.mean(axis=0)).sum(axis=1)
        return smoothness / 2 * np.square(theta - x.mean(axis=0)).sum() - loss.mean()

    signal = smoothness**2 * np.square(theta - x.mean(axis=0)).sum()
    trace = smoothness**2 * x.var(axis=0).sum()  # of sampling from these four examples
    found = readiness(signal, trace, batch_size)
    best = found.reliability / smoothness
    assert gain(best) == pytest.approx(found.readiness / (2 * smoothness), rel=1e-9)
    assert max(gain(best * factor) for factor in (0.8, 0.9, 1.1, 1.2)) < gain(best)


def test_it_bounds_the_gain_where_curvature_differs():
    """Curvatures 1 and 4: L is 4, and the step that the bound chooses gains at least R / (2L)."""
    curvature = jnp.array([1.0, 4.0])
    x = jax.random.normal(jax.random.key(0), (200, 2)) + 1.0

    def loss(params, x):
        return (curvature[None] * jnp.square(params[None] - x)).sum(axis=1).mean() / 2

    params = jnp.array([3.0, -1.0])
    moments = gradient_moments(loss, params, x)
    noise = gradient_noise(float(moments.mean_square), float(moments.example_square), 200)
    found = readiness(noise.signal, noise.trace, 8)
    batches = x[jax.random.randint(jax.random.key(1), (4000, 8), 0, 200)]
    step = found.reliability / 4.0
    after = jax.vmap(lambda batch: loss(params - step * jax.grad(loss)(params, batch), x))(batches)
    gain = float(loss(params, x) - after.mean())
    assert gain > found.readiness / (2 * 4.0) > 0.25 * gain


def test_diagnostic_falls_where_units_die_and_where_labels_are_noise(key):
    network = mlp((3,), 2, widths=(16,))
    params, state = network.init(key)
    x = jax.random.normal(key, (64, 3))
    labels = (x[:, 0] > 0).astype(jnp.int32)
    whole = measure("readiness", subject(network, params, state, x, labels, rule=RULE)).numbers
    bias = params["dense_0"]["bias"].at[:12].set(-100.0)
    dead = params | {"dense_0": params["dense_0"] | {"bias": bias}}
    fewer = measure("readiness", subject(network, dead, state, x, labels, rule=RULE)).numbers
    assert fewer["readiness"] < 0.6 * whole["readiness"]
    random = jax.random.randint(jax.random.key(3), (64,), 0, 2)
    noisy = measure("readiness", subject(network, params, state, x, random, rule=RULE)).numbers
    assert noisy["readiness_reliability"] < 0.7 * whole["readiness_reliability"]
    assert 0 <= noisy["readiness_reliability"] <= whole["readiness_reliability"] <= 1


def test_diagnostic_of_a_dead_network_and_of_nan(key):
    network = mlp((3,), 2, widths=(4,), use_bias=False)
    params, state = network.init(key)
    of = subject(network, params, state, jax.random.normal(key, (8, 3)), rule=RULE)
    silent = measure("readiness", of._replace(params=jax.tree.map(jnp.zeros_like, params)))
    assert silent.numbers == {"readiness": 0.0, "readiness_strength": 0.0, "readiness_reliability": 0.0}
    broken = measure("readiness", of._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, params)))
    assert np.isnan(list(broken.numbers.values())).all()


def test_a_larger_batch_is_more_reliable(key):
    network = mlp((3,), 2, widths=(8,))
    of = subject(network, *network.init(key), jax.random.normal(key, (64, 3)), rule=RULE)
    small, large = (measure("readiness", of._replace(rule=RULE._replace(batch_size=size))).numbers for size in (1, 256))
    assert small["readiness_strength"] == large["readiness_strength"]
    assert small["readiness_reliability"] < large["readiness_reliability"] < 1


def test_it_shares_its_gradients_with_the_gradient_noise():
    assert DIAGNOSTICS["readiness"].measure is DIAGNOSTICS["gradient-noise"].measure
    assert DIAGNOSTICS["readiness"].needs == ("rule",)
