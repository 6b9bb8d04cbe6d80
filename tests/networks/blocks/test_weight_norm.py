import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks.blocks._orthogonal import orthogonal
from pliant.networks.blocks._weight_norm import Scaled, WeightNorm, column_norms, fresh_direction, fresh_scale

SHAPES = {"tall": (8, 6), "wide": (6, 8), "conv": (3, 3, 2, 4)}
LAYERS = [WeightNorm, Scaled]


def norms_of(kernel):
    return np.linalg.norm(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), axis=0)


def with_weights(layer, kernel, scale=None):
    """A copy of the layer with other weights, of any type and traced or not."""
    copy = nnx.merge(*nnx.split(layer))
    copy.kernel = nnx.Param(kernel)
    copy.scale = nnx.Param(layer.scale[...] if scale is None else scale)
    return copy


def inputs(key, shape):
    return jax.random.normal(key, (5, 6, 7, shape[2]) if len(shape) == 4 else (5, shape[0]))


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_starts_as_the_plain_layer(key, shape, make):
    layer = make(shape, gain=1.4, strides=2, rngs=nnx.Rngs(3))
    plain = orthogonal(1.4)(nnx.Rngs(3).params(), shape, jnp.float32)
    np.testing.assert_allclose(layer.applied_kernel(train=True), plain, atol=1e-6)
    np.testing.assert_allclose(layer.scale[...], norms_of(plain), rtol=1e-6)
    x = inputs(key, shape)
    if len(shape) == 2:
        np.testing.assert_allclose(layer(x), x @ plain, atol=1e-5)
    else:
        numbers = ("NHWC", "HWIO", "NHWC")
        wanted = jax.lax.conv_general_dilated(x, plain, (2, 2), "SAME", dimension_numbers=numbers)
        np.testing.assert_allclose(layer(x), wanted, atol=1e-5)


def test_weight_norm_by_hand():
    layer = WeightNorm((2, 2), rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.array([[3.0, 0.0], [4.0, 0.1]])
    layer.scale[...] = jnp.array([10.0, -2.0])
    layer.bias[...] = jnp.array([1.0, 0.5])
    np.testing.assert_allclose(layer.applied_kernel(train=True), [[6.0, 0.0], [8.0, -2.0]], rtol=1e-6)
    np.testing.assert_allclose(layer(jnp.array([[1.0, 0.5]])), [[11.0, -0.5]], rtol=1e-6)


def test_scaled_by_hand():
    layer = Scaled((2, 2), rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.array([[3.0, 0.0], [4.0, 0.1]])
    layer.scale[...] = jnp.array([10.0, -2.0])
    np.testing.assert_allclose(layer(jnp.array([[1.0, 0.5]])), [[50.0, -0.1]], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_only_the_direction_counts(shape):
    """The size of v changes nothing, and so its gradient is at right angles to it and falls with it."""
    layer = WeightNorm(shape, rngs=nnx.Rngs(0))
    direction = jax.random.normal(jax.random.key(1), shape)

    def value(kernel):
        return jnp.vdot(with_weights(layer, kernel).applied_kernel(train=True), direction)

    kernel = layer.kernel[...]
    np.testing.assert_allclose(value(5.0 * kernel), value(kernel), rtol=1e-5)
    gradient, far = jax.grad(value)(kernel), jax.grad(value)(5.0 * kernel)
    np.testing.assert_allclose(np.sum(np.asarray(gradient * kernel), axis=tuple(range(len(shape) - 1))), 0, atol=1e-5)
    np.testing.assert_allclose(far, gradient / 5.0, atol=1e-6)


@pytest.mark.parametrize("make", LAYERS)
def test_a_unit_without_weights_is_silent_and_its_gradient_finite(make):
    layer = make((3, 2), use_bias=False, rngs=nnx.Rngs(0))
    kernel = layer.kernel[...].at[:, 0].set(0.0)

    def value(kernel):
        return with_weights(layer, kernel)(jnp.ones((4, 3))).sum(axis=0)

    assert value(kernel)[0] == 0.0
    assert value(kernel)[1] != 0.0
    assert np.isfinite(jax.jacrev(value)(kernel)).all()


@pytest.mark.parametrize("make", LAYERS)
def test_rows_of_zeros_stay_zero(make):
    """So a unit whose readers are zero stays cut off."""
    layer = make((6, 4), rngs=nnx.Rngs(0))
    layer.kernel[...] = layer.kernel[...].at[2].set(0.0)
    applied = layer.applied_kernel(train=True)
    assert not np.any(applied[2])
    if make is WeightNorm:
        np.testing.assert_allclose(norms_of(applied), layer.scale[...], rtol=1e-5)


@pytest.mark.parametrize("make", LAYERS)
def test_narrow_weights_stay_narrow(make):
    layer = make((64, 3), rngs=nnx.Rngs(0))
    layer = with_weights(layer, layer.kernel[...].astype(jnp.bfloat16), layer.scale[...].astype(jnp.bfloat16))
    applied = layer.applied_kernel(train=True)
    assert applied.dtype == jnp.bfloat16
    np.testing.assert_allclose(norms_of(applied), layer.scale[...].astype(jnp.float32), rtol=1e-2)
    assert column_norms(layer.kernel[...]).dtype == jnp.float32


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fresh_draws_are_like_the_start(key, shape):
    layer = Scaled(shape, gain=1.4, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norms_of(layer.kernel[...]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(norms_of(fresh_direction(key, shape)), 1.0, rtol=1e-6)
    fan_in = int(np.prod(shape[:-1]))
    scale = fresh_scale(1.4, fan_in)(key, shape[-1:], jnp.float32)
    np.testing.assert_allclose(np.mean(np.square(scale)), np.mean(np.square(layer.scale[...])), rtol=1e-5)
    assert fresh_direction(key, shape, jnp.bfloat16).dtype == jnp.bfloat16
