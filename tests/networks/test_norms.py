import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks._norms import BatchNorm, LayerNorm

ROWS = [(6, 3), (9, 8, 8, 3)]
"""Few, where the sums are XLA's, and many."""


def inputs(shape):
    """With a mean, so that it matters what the variance is taken about."""
    return jnp.asarray(np.random.default_rng(0).normal(4.0, 0.5, size=shape), jnp.float32)


def set_up(norm):
    norm.scale[...] = jnp.array([0.5, 1.0, 2.0])
    norm.bias[...] = jnp.array([-1.0, 0.0, 1.0])
    return norm


def value_and_gradients(norm, x, **options):
    graph, params, rest = nnx.split(norm, nnx.Param, ...)

    @jax.jit
    def loss(params, rest, x):
        return jnp.sin(nnx.merge(graph, params, rest)(x, **options)).sum()

    return jax.value_and_grad(loss, argnums=(0, 2))(params, rest, x)


def assert_alike(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("shape", ROWS)
def test_layer_norm_is_flax(shape):
    theirs = set_up(nnx.LayerNorm(3, use_fast_variance=False, rngs=nnx.Rngs(0)))
    ours = set_up(LayerNorm(3, rngs=nnx.Rngs(0)))
    assert_alike(value_and_gradients(ours, inputs(shape)), value_and_gradients(theirs, inputs(shape)))


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("shape", ROWS)
def test_batch_norm_is_flax(shape, running):
    options = {"momentum": 0.8, "epsilon": 1e-5, "rngs": nnx.Rngs(0)}
    theirs, ours = set_up(nnx.BatchNorm(3, use_fast_variance=False, **options)), set_up(BatchNorm(3, **options))
    x = inputs(shape)
    ours_is, theirs_is = (value_and_gradients(norm, x, use_running_average=running) for norm in (ours, theirs))
    assert_alike(ours_is, theirs_is)
    for norm in (ours, theirs):
        norm(x, use_running_average=running)
    assert_alike((ours.mean[...], ours.var[...]), (theirs.mean[...], theirs.var[...]))
    assert (ours.mean[...] == 0).all() == running


@pytest.mark.parametrize("make", [LayerNorm, BatchNorm])
def test_the_variance_is_taken_about_the_mean(make):
    """With a mean of 10,000 the mean of squares has no digit left for a variance of 1."""
    x = jnp.array([[1.0, -1.0], [-1.0, 1.0]]) + 1e4
    options = {"use_running_average": False} if make is BatchNorm else {}
    np.testing.assert_allclose(make(2, rngs=nnx.Rngs(0))(x, **options), x - 1e4, rtol=1e-4)


@pytest.mark.parametrize("make", [LayerNorm, BatchNorm])
def test_types_are_promoted_as_by_flax(make):
    options = {"use_running_average": False} if make is BatchNorm else {}
    x = jnp.ones((4, 3), jnp.bfloat16)
    assert make(3, rngs=nnx.Rngs(0))(x, **options).dtype == jnp.float32
