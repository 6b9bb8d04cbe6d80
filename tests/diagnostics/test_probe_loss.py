import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import DIAGNOSTICS
from pliant.networks import mlp
from subjects import measure, subject


def test_golden(key):
    """A linear model says 3 and 4 where 1 and 4 are right: the mean of 4 and 0."""
    network = mlp((2,), 1, widths=())
    params, state = network.init(key)
    params["head"] = {"kernel": jnp.array([[1.0], [1.0]]), "bias": jnp.zeros(1)}
    of = subject(network, params, state, jnp.array([[3.0, 0.0], [2.0, 2.0]]), jnp.array([[1.0], [4.0]]))
    assert measure("probe-loss", of).numbers == measure("start-loss", of).numbers == {"probe_loss": 2.0}


def test_the_same_at_two_moments():
    start, end = DIAGNOSTICS["start-loss"], DIAGNOSTICS["probe-loss"]
    assert (start.moment, end.moment) == ("start", "end")
    assert start.measure is end.measure


def test_nan_one_example_and_bfloat16(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    x = jax.random.normal(key, (1, 3))
    exact = measure("probe-loss", subject(network, params, state, x)).numbers["probe_loss"]
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    found = measure("probe-loss", subject(network, half, state, x.astype(jnp.bfloat16))).numbers["probe_loss"]
    assert found == pytest.approx(exact, rel=0.05)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    assert np.isnan(measure("probe-loss", subject(network, broken, state, x)).numbers["probe_loss"])
