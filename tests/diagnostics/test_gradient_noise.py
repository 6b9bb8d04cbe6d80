import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, gradient_gram, gradient_moments, gradient_noise
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Batch
from subjects import measure, subject

few = settings(max_examples=15, deadline=None, database=None)


def quadratic(params, x):
    """½‖θ − x‖²: the gradient of an example is θ − x."""
    return jnp.square(params[None] - x).sum(axis=1).mean() / 2


GRAM = jax.jit(functools.partial(gradient_gram, quadratic))
MOMENTS = jax.jit(functools.partial(gradient_moments, quadratic))


def noise_of(params, x):
    found = MOMENTS(params, x)
    return gradient_noise(float(found.mean_square), float(found.example_square), len(x))


def test_golden():
    """Gradients (1, 0) and (3, 4): their mean is (2, 2), their variance 2 + 8 = 10, and 8 − 10 / 2 = 3."""
    found = gradient_moments(quadratic, jnp.zeros(2), jnp.array([[-1.0, 0.0], [-3.0, -4.0]]))
    assert (float(found.mean_square), float(found.example_square)) == (8.0, 13.0)
    assert tuple(gradient_noise(8.0, 13.0, 2)) == pytest.approx((3.0, 10.0, 10 / 3))


def test_the_closed_form_of_a_quadratic(key):
    """The trace is the sample variance of the data; the signal is the squared distance less its own noise."""
    x = np.asarray(3.0 + jax.random.normal(key, (50, 4)), np.float64)
    found = noise_of(jnp.ones(4), jnp.asarray(x, jnp.float32))
    trace = x.var(axis=0, ddof=1).sum()
    signal = np.square(1.0 - x.mean(axis=0)).sum() - trace / 50
    assert tuple(found) == pytest.approx((signal, trace, trace / signal), rel=1e-4)


def test_signal_and_trace_are_unbiased():
    """Of N(μ, I) in three dimensions with ‖μ‖² = 0.12 and samples of four, where the naive signal would be 0.87."""
    x = np.random.default_rng(0).normal(0.2, 1.0, (20_000, 4, 3))
    mean_square, example_square = np.square(x.mean(axis=1)).sum(axis=1), np.square(x).sum(axis=2).mean(axis=1)
    found = np.array([gradient_noise(*each, 4) for each in zip(mean_square, example_square, strict=True)])
    assert found[:, 0].mean() == pytest.approx(0.12, abs=0.02)
    assert found[:, 1].mean() == pytest.approx(3.0, abs=0.05)
    assert mean_square.mean() == pytest.approx(0.87, abs=0.02)


def test_noise_that_hides_the_signal_has_no_scale():
    opposite = noise_of(jnp.zeros(1), jnp.array([[1.0], [-1.0]]))
    assert opposite.signal == -1.0
    assert opposite.scale == float("inf")
    nothing = noise_of(jnp.zeros(1), jnp.zeros((3, 1)))
    assert nothing[:2] == (0.0, 0.0)
    assert np.isnan(nothing.scale)
    assert noise_of(jnp.zeros(1), jnp.ones((3, 1))).scale == 0.0


@given(st.integers(0, 2**31), st.permutations(range(6)))
@few
def test_it_is_read_off_the_gram_matrix_in_any_order(seed, order):
    x = jnp.asarray(np.random.default_rng(seed).standard_normal((6, 3)), jnp.float32)
    gram = np.asarray(GRAM(jnp.ones(3), x))
    found = MOMENTS(jnp.ones(3), x[jnp.array(order)])
    np.testing.assert_allclose(found.mean_square, gram.mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.example_square, np.diag(gram).mean(), rtol=1e-4)


def test_several_seeds_and_half_precision(key):
    params, x = jax.random.normal(key, (3, 4)), jax.random.normal(key, (5, 4))
    together = jax.jit(jax.vmap(lambda params: gradient_moments(quadratic, params, x)))(params)
    for seed in range(3):
        alone = MOMENTS(params[seed], x)
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_allclose(a[seed], b, rtol=1e-5), together, alone)
    half = gradient_moments(quadratic, params[0].astype(jnp.bfloat16), x)
    assert half.mean_square.dtype == jnp.float32
    np.testing.assert_allclose(half.example_square, together.example_square[0], rtol=0.05)


@pytest.mark.parametrize(("params", "x"), [(jnp.zeros(2), jnp.zeros((1, 2))), ({}, jnp.zeros((3, 2)))])
def test_what_cannot_scatter_is_refused(params, x):
    with pytest.raises(UserError, match=r"wanted at least two examples.* one gradient alone does not scatter"):
        gradient_moments(lambda params, x: 0.0, params, x)


def test_one_example_is_refused(key):
    with pytest.raises(UserError, match="got num_examples=1; wanted at least 2"):
        gradient_noise(1.0, 1.0, 1)
    network = mlp((3,), 2, widths=(4,))
    with pytest.raises(UserError, match="Pass a larger probe batch"):
        measure("gradient-noise", subject(network, *network.init(key), jnp.ones((1, 3))))


def test_diagnostic_moves_with_the_noise_of_labels(key):
    """Examples of one class with its own label agree; random labels make their gradients scatter."""
    network = mlp((3,), 2, widths=(16,))
    params, state = network.init(key)
    x = 1.0 + 0.1 * jax.random.normal(key, (64, 3))
    random = jax.random.randint(key, (64,), 0, 2)
    same, mixed = (
        measure("gradient-noise", subject(network, params, state, x, labels)).numbers
        for labels in (jnp.zeros(64, jnp.int32), random)
    )
    assert mixed["gradient_noise_scale"] > 10 * same["gradient_noise_scale"]
    assert mixed["gradient_noise"] > 10 * same["gradient_noise"]
    assert mixed["gradient_signal"] < same["gradient_signal"]
    assert DIAGNOSTICS["gradient-noise"].moment == "start"


def test_nan_in_nan_out_also_behind_a_relu(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    of = subject(network, params, state, jax.random.normal(key, (8, 3)))
    broken = of._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert np.isnan(list(measure("gradient-noise", broken).numbers.values())).all()
    one = of._replace(probe=Batch(of.probe.inputs.at[3].set(jnp.nan), of.probe.targets))
    assert np.isnan(list(measure("gradient-noise", one).numbers.values())).all()


def test_diagnostic_on_a_cnn(key):
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    found = measure("gradient-noise", subject(network, *network.init(key), jax.random.normal(key, (6, 4, 4, 1))))
    assert list(found.numbers) == ["gradient_signal", "gradient_noise", "gradient_noise_scale"]
    assert found.numbers["gradient_noise"] > 0
