import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import DIAGNOSTICS, batch_tridiagonals, curvature_volatility, top_eigenvalues
from pliant.errors import UserError
from pliant.networks import mlp
from subjects import measure, subject


def quadratic(params, x):
    """½ Σ x_j θ_j²: the Hessian of a batch is the diagonal of its mean."""
    return (x * jnp.square(params)[None]).sum(axis=1).mean() / 2


def sharpness(params, x, **options):
    found = batch_tridiagonals(quadratic, params, x, jax.random.key(0), **options)
    each = zip(np.asarray(found.alphas), np.asarray(found.betas), strict=True)
    return [top_eigenvalues(*of_batch).algebraic for of_batch in each]


def test_golden():
    assert curvature_volatility(np.array([1.0, 3.0])) == pytest.approx((2**0.5 / 2, 2.0))
    assert curvature_volatility(np.array([-1.0, -3.0])) == pytest.approx((2**0.5 / 2, -2.0))


def test_the_closed_form_of_a_quadratic():
    """Batch b has the examples b and b + 3, and its sharpness is the largest mean."""
    x = jnp.array([[1.0, 2.0], [5.0, 0.0], [1.0, 1.0], [3.0, 0.0], [7.0, 0.0], [1.0, 9.0], [50.0, 50.0]])
    np.testing.assert_allclose(sharpness(jnp.ones(2), x, num_batches=3), [2.0, 6.0, 5.0], rtol=1e-5)


def test_what_is_the_same_everywhere_does_not_vary():
    assert curvature_volatility(np.array([2.0, 2.0, 2.0])) == (0.0, 2.0)
    assert curvature_volatility(np.zeros(3)) == (0.0, 0.0)
    assert curvature_volatility(np.array([-1.0, 1.0])).volatility == np.inf
    assert np.isnan(curvature_volatility(np.array([1.0, np.nan]))).all()


def test_there_are_no_more_batches_than_examples():
    assert len(sharpness(jnp.ones(2), jnp.ones((3, 2)))) == 3


def test_several_seeds(key):
    params, x = jax.random.normal(key, (3, 2)), jnp.abs(jax.random.normal(key, (8, 2)))
    together = jax.jit(jax.vmap(lambda params: batch_tridiagonals(quadratic, params, x, key, 4)))(params)
    alone = batch_tridiagonals(quadratic, params[1], x, key, 4)
    np.testing.assert_allclose(together.alphas[1], alone.alphas, rtol=1e-4)


def test_one_batch_is_refused(key):
    with pytest.raises(UserError, match="got 1 examples in 1 batches; wanted at least two of each"):
        batch_tridiagonals(quadratic, jnp.ones(2), jnp.ones((1, 2)), key)
    with pytest.raises(UserError, match="got 1 mini-batches; wanted at least two"):
        curvature_volatility(np.ones(1))


def test_diagnostic_moves_with_the_spread_of_the_examples(key):
    """One large example makes one batch sharp; equal examples make all batches equally sharp."""
    network = mlp((3,), 2, widths=(8,))
    params, state = network.init(key)
    x = jnp.broadcast_to(jnp.array([0.5, -0.2, 0.1]), (64, 3))
    equal = measure("curvature-volatility", subject(network, params, state, x)).numbers
    uneven = measure("curvature-volatility", subject(network, params, state, x.at[0].mul(30.0))).numbers
    assert equal["curvature_volatility"] < 1e-3
    assert uneven["curvature_volatility"] > 0.1
    assert equal["batch_sharpness"] > 0
    assert DIAGNOSTICS["curvature-volatility"].moment == "start"


def test_diagnostic_of_nan_and_of_bfloat16(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    of = subject(network, params, state, jax.random.normal(key, (16, 3)))
    broken = of._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert np.isnan(list(measure("curvature-volatility", broken).numbers.values())).all()
    half = of._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    found = measure("curvature-volatility", half).numbers["batch_sharpness"]
    assert found == pytest.approx(measure("curvature-volatility", of).numbers["batch_sharpness"], rel=0.3)
