import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import _jacobian as module
from pliant.diagnostics import input_output_jacobian, intermediate_jacobian, layer_jacobians
from pliant.errors import UserError
from pliant.networks import cnn, mlp, residual_mlp

few = settings(max_examples=3, deadline=None, database=None)


def function_of(network, params, state=None):
    return lambda x: network.apply(params, state or {}, x, train=False, key=None)[:2]


def made(network, key):
    return jax.jit(network.init)(key)


def linear(*kernels):
    """A deep linear network."""

    def function(x):
        features = {}
        for i, kernel in enumerate(kernels):
            x = features[f"layer_{i}"] = x @ kernel
        return x, features

    return function


def kernels_of(seed, *widths):
    draw = np.random.default_rng(seed)
    return [jnp.asarray(draw.standard_normal(pair), jnp.float32) for pair in itertools.pairwise(widths)]


@given(st.integers(0, 2**31))
@few
def test_of_a_linear_network_it_is_the_product_matrix(seed):
    kernels = kernels_of(seed, 3, 5, 4, 2)
    function = linear(*kernels)
    x = kernels_of(seed + 1, 6, 3)[0]
    first, second, third = (np.asarray(kernel).T for kernel in kernels)
    for found, wanted in (
        (input_output_jacobian(function, x), third @ second @ first),
        (intermediate_jacobian(function, x, "layer_0"), third @ second),
        (intermediate_jacobian(function, x, None, "layer_1"), second @ first),
        (intermediate_jacobian(function, x, "layer_1", "layer_1"), np.eye(4)),
        (intermediate_jacobian(function, x, "layer_2", "layer_1"), np.zeros((4, 2))),
    ):
        np.testing.assert_allclose(found, np.tile(wanted, (6, 1, 1)), rtol=1e-4, atol=1e-5)


def test_layer_by_layer_it_is_derivative_times_weights(key):
    """D W, and the chain rule: the product over the layers and the head is that of the whole network."""
    network = mlp((2, 2, 1), 3, widths=(5, 6))
    params, state = made(network, key)
    function = function_of(network, params, state)
    x = jax.random.normal(key, (7, 2, 2, 1))
    _, features = function(x)
    found = layer_jacobians(function, x, ("dense_0", "dense_1"))
    for name, jacobians in found.items():
        active = np.asarray(features[name]) > 0
        wanted = active[:, :, None] * np.asarray(params[name]["kernel"]).T
        np.testing.assert_allclose(jacobians, wanted, rtol=1e-5, atol=1e-6)
    chained = np.asarray(params["head"]["kernel"]).T @ found["dense_1"] @ found["dense_0"]
    np.testing.assert_allclose(input_output_jacobian(function, x), chained, rtol=1e-4, atol=1e-5)


def test_a_layer_norm_is_part_of_it(key):
    """Through a LayerNorm the mean over units and the way along its own input are lost."""
    network = mlp((4,), 2, widths=(4,), norm="layer", activation="identity")
    params, state = made(network, key)
    x = jax.random.normal(key, (3, 4))
    (found,) = layer_jacobians(function_of(network, params, state), x, ("dense_0",)).values()
    hidden = np.asarray(x @ params["dense_0"]["kernel"], np.float64)
    kernel = np.asarray(params["dense_0"]["kernel"], np.float64)
    for jacobian, h in zip(found, hidden, strict=True):
        centred = h - h.mean()
        scale = np.sqrt(h.var() + 1e-6)
        of_norm = (np.eye(4) - 1 / 4 - np.outer(centred, centred) / (4 * scale**2)) / scale
        np.testing.assert_allclose(jacobian, of_norm @ kernel.T, rtol=1e-3, atol=1e-4)


def test_through_convolutions_and_pooling(key):
    """The same as from a function that begins at the feature, and rows count all axes."""
    network = cnn((4, 4, 2), 3, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=(5,))
    params, state = made(network, key)
    x = jax.random.normal(key, (3, 4, 4, 2))
    function = function_of(network, params, state)
    found = jax.jit(lambda x: layer_jacobians(function, x, ("conv_0", "dense_0")))(x)
    assert {name: each.shape for name, each in found.items()} == {"conv_0": (3, 16, 32), "dense_0": (3, 5, 16)}
    active = np.asarray(jax.jit(function)(x)[1]["dense_0"]) > 0
    wanted = active[:, :, None] * np.asarray(params["dense_0"]["kernel"]).T
    np.testing.assert_allclose(found["dense_0"], wanted, rtol=1e-5, atol=1e-6)
    of_batch = jax.jit(jax.jacrev(lambda x: function(x)[1]["conv_0"].reshape(3, -1)))(x).reshape(3, 16, 3, 32)
    np.testing.assert_allclose(found["conv_0"], of_batch[np.arange(3), :, np.arange(3)], rtol=1e-5, atol=1e-6)


def test_what_goes_around_a_layer_stays_as_it_is(key):
    """The second block reads the first one's hidden units by way of the stream; the skip is not theirs."""
    network = residual_mlp((3,), 2, width=3, widths=(4, 5), activation="identity", norm="none")
    params, state = made(network, key)
    x = jax.random.normal(key, (2, 3))
    found = layer_jacobians(function_of(network, params, state), x, ("block_0", "block_1"))["block_1"]
    inside = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params["block_0"]) if leaf.shape == (4, 3)]
    inwards = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params["block_1"]) if leaf.shape == (3, 5)]
    wanted = np.asarray(inwards[0]).T @ np.asarray(inside[0]).T
    np.testing.assert_allclose(found, np.tile(wanted, (2, 1, 1)), rtol=1e-4, atol=1e-5)


def test_chunks_do_not_matter(key, monkeypatch):
    kernels = kernels_of(0, 3, 4, 2)

    def function(x):
        hidden = jnp.tanh(x @ kernels[0])
        return hidden @ kernels[1], {"hidden": hidden}

    x = jax.random.normal(key, (7, 3))
    wanted = intermediate_jacobian(function, x)
    for chunk in (1, 13, 6 * 3):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        np.testing.assert_allclose(intermediate_jacobian(function, x), wanted, rtol=1e-5, atol=1e-6)


def test_jit_and_vmap_over_seeds(key):
    params = [jnp.stack(kernels) for kernels in zip(kernels_of(0, 3, 4, 2), kernels_of(1, 3, 4, 2), strict=True)]
    x = jax.random.normal(key, (3, 3))

    def measure(kernels):
        def function(x):
            hidden = jnp.tanh(x @ kernels[0])
            return hidden @ kernels[1], {"hidden": hidden}

        return layer_jacobians(function, x, ("hidden",)), input_output_jacobian(function, x)

    mapped = jax.jit(jax.vmap(measure))(params)
    in_turn = jax.jit(lambda params: jax.lax.map(measure, params))(params)
    alone = [measure([kernel[seed] for kernel in params]) for seed in range(2)]
    wanted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    for found in (mapped, in_turn):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


def test_nan_in_nan_out():
    x = jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])
    found = np.asarray(input_output_jacobian(lambda x: (x**2, {}), x))
    assert np.isnan(found[0, 0, 0])
    np.testing.assert_array_equal(found[1], 2 * np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: input_output_jacobian(f, x[:0]), "got an empty batch; wanted at least one example"),
        (lambda f, x: layer_jacobians(f, x, ()), "got no layers; wanted at least one"),
        (lambda f, x: layer_jacobians(f, x, ("layer_2",)), "got the feature 'layer_2'; wanted one of layer_0, layer_1"),
        (lambda f, x: intermediate_jacobian(f, x, "layer"), "got the feature 'layer'.*Did you mean 'layer_1'"),
        (
            lambda _, x: intermediate_jacobian(lambda x: (x, {"same": x}), x, "same"),
            "got perturbations of same; wanted features that are computed",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call(linear(jnp.eye(2), jnp.eye(2)), jnp.ones((3, 2)))
