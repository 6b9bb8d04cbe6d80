import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks import from_nnx
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._spectral_norm import SpectralNorm, power_iteration
from pliant.types import Wiring


def singular_values(kernel):
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    return np.linalg.svd(matrix, compute_uv=False)


class Single(nnx.Module):
    """One layer as a network."""

    def __init__(self, shape, rngs, options):
        self.layer = SpectralNorm(shape, rngs=rngs, **options)

    def __call__(self, x, *, train, key):
        return self.layer(x, train=train), {}


def network_of(shape, **options):
    roles = {"layer/kernel": "matrix", "layer/bias": "bias"}
    return from_nnx(lambda rngs: Single(shape, rngs, options), Wiring((), roles))


SHAPES = {"tall": (8, 6), "wide": (6, 8), "conv": (3, 3, 2, 4)}


def inputs(key, shape):
    return jax.random.normal(key, (5, 8, 6, shape[2]) if len(shape) == 4 else (5, shape[0]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_starts_orthogonal_with_an_exact_estimate(shape):
    layer = SpectralNorm(shape, gain=0.7, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(singular_values(layer.kernel[...]), 1.0, rtol=2e-6)
    np.testing.assert_allclose(layer.applied_kernel(train=False), 0.7 * layer.kernel[...], atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_applied_spectral_norm_is_the_gain(key, shape):
    """Whatever the scale of the weights is, after 50 iterations that carry on from each other."""
    network = network_of(shape, gain=0.5)
    params, state = network.init(key)
    kernel = 30.0 * jax.random.normal(key, shape)
    params["layer"]["kernel"] = kernel
    x = inputs(key, shape)
    state = jax.jit(
        lambda state: jax.lax.fori_loop(
            0, 50, lambda _, state: network.apply(params, state, x, train=True, key=None)[2], state
        )
    )(state)
    y = network.apply(params, state, x, train=False, key=None)[0]
    matrix = np.asarray(kernel, np.float64).reshape(-1, shape[-1])
    estimate = np.asarray(state["layer"]["u"]) @ matrix @ np.asarray(state["layer"]["v"])
    sigma = np.linalg.svd(matrix, compute_uv=False)[0]
    np.testing.assert_allclose(estimate, sigma, rtol=1e-4)
    plain = network.apply(
        {"layer": params["layer"] | {"kernel": kernel / sigma * estimate}}, state, x, train=False, key=None
    )[0]
    np.testing.assert_allclose(y, plain, rtol=1e-3, atol=1e-3)


def test_one_iteration_a_training_call_and_none_in_eval(key):
    network = network_of((4, 3))
    params, state = network.init(key)
    params["layer"]["kernel"] = jax.random.normal(key, (4, 3))
    x = jax.random.normal(key, (2, 4))
    kept = network.apply(params, state, x, train=False, key=None)[2]
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    moved = network.apply(params, state, x, train=True, key=None)[2]["layer"]
    kernel, u = np.asarray(params["layer"]["kernel"], np.float64), np.asarray(state["layer"]["u"], np.float64)
    v = kernel.T @ u / np.linalg.norm(kernel.T @ u)
    np.testing.assert_allclose(moved["v"], v, atol=1e-6)
    np.testing.assert_allclose(moved["u"], kernel @ v / np.linalg.norm(kernel @ v), atol=1e-6)


def test_the_gradient_of_the_estimate_is_u_v(key):
    """d(W/σ)·c = c/σ − (c·W) uvᵀ/σ², the vectors being constants."""
    layer = SpectralNorm((4, 3), rngs=nnx.Rngs(0))
    kernel = jax.random.normal(key, (4, 3))
    c = jax.random.normal(jax.random.fold_in(key, 1), (4, 3))
    u, v = np.asarray(layer.u[...], np.float64), np.asarray(layer.v[...], np.float64)
    graph, state = nnx.split(layer)

    def value(kernel):
        copy = nnx.merge(graph, state)
        copy.kernel = nnx.Param(kernel)
        return jnp.vdot(copy.applied_kernel(train=False), c)

    sigma = u @ np.asarray(kernel) @ v
    sign = 1.0 if sigma > 0 else -1.0
    wanted = np.asarray(c) / sigma - np.vdot(c, kernel) * np.outer(u, v) / sigma**2
    np.testing.assert_allclose(jax.grad(value)(sign * kernel), sign * wanted, rtol=1e-4, atol=1e-5)


def test_zeros_are_applied_as_they_are():
    network = network_of((4, 3), use_bias=False)
    params, state = network.init(jax.random.key(0))
    params = {"layer": {"kernel": jnp.zeros((4, 3))}}

    def loss(params, train):
        y, _, after = network.apply(params, state, jnp.ones((2, 4)), train=train, key=None)
        return y.sum(), after

    for train in (False, True):
        (value, after), gradient = jax.value_and_grad(lambda p, t=train: loss(p, t), has_aux=True)(params)
        assert value == 0.0
        assert np.isfinite(gradient["layer"]["kernel"]).all()
        jax.tree.map(np.testing.assert_array_equal, after, state)


def test_narrow_weights_are_estimated_in_float32(key):
    layer = SpectralNorm((16, 16), rngs=nnx.Rngs(0))
    layer.kernel = nnx.Param(jax.random.normal(key, (16, 16)).astype(jnp.bfloat16))
    for _ in range(40):
        applied = layer.applied_kernel(train=True)
    assert applied.dtype == jnp.bfloat16
    assert layer.u[...].dtype == jnp.float32
    np.testing.assert_allclose(singular_values(applied)[0], 1.0, rtol=1e-2)


def test_it_is_the_layer_that_moves_and_not_the_weights(key):
    """Flax' own layer writes what it applies back into the parameters (google/flax#5576)."""
    network = network_of((4, 3))
    params, state = network.init(key)
    before = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    _, _, after = network.apply(before, state, jnp.ones((2, 4)), train=True, key=None)
    assert set(after["layer"]) == {"u", "v"}
    assert isinstance(SpectralNorm((4, 3), rngs=nnx.Rngs(0)), KernelLayer)


def test_power_iteration_finds_the_leading_pair_and_stops_gradients(key):
    matrix = jnp.diag(jnp.array([1.0, 3.0, 2.0]))
    u, v = jnp.ones(3) / 3**0.5, jnp.zeros(3)
    for _ in range(60):
        u, v = power_iteration(matrix, u, v)
    np.testing.assert_allclose(u, [0, 1, 0], atol=1e-6)
    gradient = jax.grad(lambda matrix: sum(part.sum() for part in power_iteration(matrix, u, v)))(matrix)
    assert not np.any(gradient)
    same = power_iteration(jnp.zeros((3, 3)), u, v)
    np.testing.assert_array_equal(same[0], u)
    np.testing.assert_array_equal(same[1], v)
