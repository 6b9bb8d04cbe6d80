import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.methods import METHODS
from pliant.networks import mlp
from pliant.networks.blocks._norms import BatchNorm, LayerNorm, RMSNorm

ROWS = [(6, 3), (9, 8, 8, 3)]
"""Few, where the sums are XLA's, and many."""
STATISTICS = {"momentum": 0.8, "epsilon": 1e-5}
PAIRS = {
    "layer": (lambda rngs: LayerNorm(3, rngs=rngs), lambda rngs: nnx.LayerNorm(3, use_fast_variance=False, rngs=rngs)),
    "rms": (lambda rngs: RMSNorm(3, rngs=rngs), lambda rngs: nnx.RMSNorm(3, rngs=rngs)),
    "batch": (
        lambda rngs: BatchNorm(3, **STATISTICS, rngs=rngs),
        lambda rngs: nnx.BatchNorm(3, **STATISTICS, use_fast_variance=False, rngs=rngs),
    ),
}
CALLS = [
    ("layer", {}),
    ("rms", {}),
    ("batch", {"use_running_average": False}),
    ("batch", {"use_running_average": True}),
]


def pair(name, dtype=jnp.float32):
    """Ours and Flax', with the same numbers, none of them 0 or 1."""
    norms = [make(nnx.Rngs(0)) for make in PAIRS[name]]
    for norm in norms:
        norm.scale[...] = jnp.array([0.5, 1.25, 2.0], dtype)
        if name != "rms":
            norm.bias[...] = jnp.array([-1.0, 0.25, 1.0], dtype)
        if name == "batch":
            norm.mean[...], norm.var[...] = jnp.array([3.0, 4.0, 5.0]), jnp.array([0.5, 2.0, 4.0])
    return norms


def inputs(shape, dtype=jnp.float32):
    """With a mean, so that it matters what the variance is taken about."""
    return jnp.asarray(np.random.default_rng(0).normal(4.0, 0.5, size=shape), dtype)


def value_and_gradients(norm, x, options):
    graph, params, rest = nnx.split(norm, nnx.Param, ...)

    @jax.jit
    def loss(params, rest, x):
        return jnp.sin(nnx.merge(graph, params, rest)(x, **options)).sum()

    return jax.value_and_grad(loss, argnums=(0, 2))(params, rest, x)


@pytest.mark.parametrize(("name", "options"), CALLS)
@pytest.mark.parametrize("shape", ROWS)
def test_is_flax(name, options, shape):
    ours, theirs = (value_and_gradients(norm, inputs(shape), options) for norm in pair(name))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), ours, theirs)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("shape", ROWS)
def test_running_statistics_are_flax(running, shape):
    ours, theirs = pair("batch")
    before = np.array([ours.mean[...], ours.var[...]])
    for norm in (ours, theirs):
        norm(inputs(shape), use_running_average=running)
    after = np.array([ours.mean[...], ours.var[...]])
    np.testing.assert_allclose(after, np.array([theirs.mean[...], theirs.var[...]]), rtol=1e-5)
    assert (after == before).all() if running else (after != before).all()


@pytest.mark.parametrize(("name", "options"), CALLS[::2])
def test_the_variance_is_taken_about_the_mean(name, options):
    """With a mean of 10,000 the mean of squares has no digit left for a variance of 1."""
    norm = {"layer": LayerNorm(2, rngs=nnx.Rngs(0)), "batch": BatchNorm(2, **STATISTICS, rngs=nnx.Rngs(0))}[name]
    x = jnp.array([[1.0, -1.0], [-1.0, 1.0]]) + 1e4
    np.testing.assert_allclose(norm(x, **options), x - 1e4, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), CALLS)
@pytest.mark.parametrize(
    "kinds", [(jnp.bfloat16, jnp.bfloat16), (jnp.bfloat16, jnp.float32), (jnp.float16, jnp.float32)]
)
def test_types_and_rounding_are_flax(name, options, kinds):
    """Numbers are rounded once, at the end: to within a unit of the last place of what Flax gives."""
    (ours, theirs), x = pair(name, kinds[1]), inputs(ROWS[1], kinds[0])
    a, b = ours(x, **options), theirs(x, **options)
    assert a.dtype == b.dtype
    tolerance = float(jnp.finfo(a.dtype).eps) * (2 if a.dtype == jnp.bfloat16 else 200)
    np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance)


def test_statistics_of_a_bad_batch_do_not_join_the_running_ones():
    """Of the channel in which something is not finite; the others go on."""
    norm, clean = pair("batch")[0], pair("batch")[0]
    x = inputs((6, 3))
    norm(x.at[2, 1].set(jnp.nan), use_running_average=False)
    clean(x, use_running_average=False)
    for found, wanted, start in ((norm.mean, clean.mean, 4.0), (norm.var, clean.var, 2.0)):
        np.testing.assert_allclose(found[...], np.asarray(wanted[...]) * [1, 0, 1] + [0, start, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["layernorm", "layernorm-weight-decay"])
def test_methods_with_layer_norm_have_it_in_the_network(name):
    network = mlp((3,), 2, widths=(5, 4), **METHODS[name].network)
    assert network.wiring.roles == mlp((3,), 2, widths=(5, 4), norm="layer").wiring.roles
