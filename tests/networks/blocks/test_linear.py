import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._linear import LINEAR_KINDS, Linear, linear_layers, through
from pliant.networks.blocks._newton_schulz import OrthogonalConv, OrthogonalDense
from pliant.networks.blocks._spectral_norm import SpectralNorm
from pliant.networks.blocks._weight_norm import Scaled, WeightNorm
from pliant.types import leaf_path

CLASSES = {
    "newton-schulz": OrthogonalDense,
    "cans": OrthogonalDense,
    "spectral-norm": SpectralNorm,
    "weight-norm": WeightNorm,
    "scaled": Scaled,
}


def singular_values(kernel):
    return np.linalg.svd(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), compute_uv=False)


def choose(linear, num_layers=3, **options):
    given = {"gain": None, "default_gain": 1.4, "iterations": 4, "use_bias": True} | options
    return linear_layers(linear, num_layers, **given)


def test_kinds_are_those_of_the_annotation():
    assert LINEAR_KINDS[0] == "plain"
    assert set(CLASSES) | {"plain", "delta-orthogonal", "spectral-norm-first"} == set(LINEAR_KINDS)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_layer_is_of_the_kind_asked_for(kind):
    linear = Linear(kind, gain=0.7, iterations=8, use_bias=False)
    layer = linear.dense(5, 3, rngs=nnx.Rngs(0))
    assert isinstance(layer, CLASSES[kind])
    assert layer.bias is None
    np.testing.assert_allclose(singular_values(layer.applied_kernel(train=False)), 0.7, rtol=2e-3)
    image = linear.conv(2, 4, (3, 3), strides=2, padding="VALID", rngs=nnx.Rngs(0))
    assert isinstance(image, OrthogonalConv if CLASSES[kind] is OrthogonalDense else CLASSES[kind])
    assert through(image, jnp.ones((1, 7, 7, 2)), train=False).shape == (1, 3, 3, 4)
    np.testing.assert_allclose(singular_values(image.applied_kernel(train=False)), 0.7, rtol=2e-3)
    if kind in ("newton-schulz", "cans"):
        assert (layer.kind, layer.iterations, image.kind, image.iterations) == (kind, 8, kind, 8)


def test_plain_layers_apply_their_kernels(key):
    linear = Linear("plain", gain=0.7, iterations=4, use_bias=True)
    layer, x = linear.dense(5, 3, rngs=nnx.Rngs(0)), jax.random.normal(key, (6, 5))
    assert isinstance(layer, nnx.Linear)
    np.testing.assert_allclose(singular_values(layer.kernel[...]), 0.7, rtol=2e-6)
    np.testing.assert_array_equal(through(layer, x, train=True), layer(x))
    image = linear.conv(2, 4, (3, 3), strides=2, padding="VALID", rngs=nnx.Rngs(0))
    assert type(image) is KernelLayer
    assert through(image, jnp.ones((1, 7, 7, 2)), train=True).shape == (1, 3, 3, 4)


@pytest.mark.parametrize("kind", ["newton-schulz", "spectral-norm"])
def test_through_says_whether_this_is_training(key, kind):
    layer = Linear(kind, gain=1.0, iterations=4, use_bias=True).dense(5, 3, rngs=nnx.Rngs(0))
    layer.kernel[...] = layer.kernel[...] + jax.random.normal(key, (5, 3))
    before = layer.u[...]
    through(layer, jnp.ones((1, 5)), train=False)
    np.testing.assert_array_equal(layer.u[...], before)
    through(layer, jnp.ones((1, 5)), train=True)
    assert np.any(layer.u[...] != before)


@pytest.mark.parametrize(
    ("kind", "gain"),
    [
        ("plain", 1.4),
        ("delta-orthogonal", 1.4),
        ("weight-norm", 1.4),
        ("scaled", 1.4),
        ("cans", 1.0),
        ("newton-schulz", 1.0),
        ("spectral-norm", 1.0),
    ],
)
def test_the_gain_is_the_activations_unless_it_is_for_ever(kind, gain):
    assert choose(kind) == (Linear(kind, gain, 4, True),) * 3
    assert choose(kind, gain=0.5) == (Linear(kind, 0.5, 4, True),) * 3


def test_the_first_dense_layer_is_normalised_and_the_others_plain():
    normal, plain = Linear("spectral-norm", 1.0, 4, True), Linear("plain", 1.4, 4, True)
    assert choose("spectral-norm-first") == (normal, plain, plain)
    assert choose("spectral-norm-first", first_dense=1) == (plain, normal, plain)
    for gained in choose("spectral-norm-first", gain=0.5):
        assert gained.gain == 0.5


@pytest.mark.parametrize("kind", ["weight-norm", "scaled"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: mlp((9,), 3, widths=(6, 8), **options),
        lambda **options: cnn(
            (7, 6, 2), 3, channels=(4, 2), kernel_sizes=(3, 2), strides=(1, 2), pool=(2, 1), widths=(9,), **options
        ),
    ],
    ids=["mlp", "cnn"],
)
@pytest.mark.parametrize("use_bias", [True, False])
def test_networks_with_scales_start_as_the_plain_one(key, make, kind, use_bias):
    network, plain = make(linear=kind, use_bias=use_bias), make(use_bias=use_bias)
    params, state = network.init(key)
    assert state == {}
    before, _ = plain.init(key)
    np.testing.assert_array_equal(params["head"]["kernel"], before["head"]["kernel"])
    x = jax.random.normal(key, (5, 7, 6, 2) if "conv_0" in params else (5, 9))
    wanted = plain.apply(before, {}, x, train=False, key=None)[0]
    np.testing.assert_allclose(network.apply(params, {}, x, train=False, key=None)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["weight-norm", "scaled"])
def test_a_units_scale_is_its_own_and_drawn_anew_with_it(key, kind):
    network = cnn(
        (7, 6, 2), 3, channels=(4, 40), kernel_sizes=(3, 2), strides=(1, 2), pool=(2, 1), widths=(9, 12), linear=kind
    )
    params, _ = network.init(key)
    for layer in network.wiring.layers:
        paths = [feed.slot.path.split("/")[1] for feed in layer.feeds]
        assert paths == ["kernel", "bias", "scale"]
        assert network.wiring.roles[layer.feeds[2].slot.path] == "other"
        leaves = params[layer.name]
        for feed, name in zip(layer.feeds, paths, strict=True):
            fresh = feed.initializer(key, leaves[name].shape, leaves[name].dtype)
            np.testing.assert_allclose(np.linalg.norm(fresh), np.linalg.norm(leaves[name]), rtol=1e-5)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_every_leaf_has_a_role_and_state_is_none_of_them(key, kind):
    network = mlp((5,), 2, widths=(4, 6), linear=kind)
    params, state = jax.eval_shape(network.init, key)
    assert {leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)} == set(network.wiring.roles)
    names = {"newton-schulz": 2, "spectral-norm": 2, "spectral-norm-first": 1}
    assert len(state) == names.get(kind, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose("spectral"), "got the linear layer 'spectral'; wanted one of .* Leave it out for 'plain'"),
        (lambda: choose("cans", iterations=0), "got linear_iterations=0; wanted a finite number ≥ 1. Use 7"),
        (
            lambda: choose("spectral-norm-first", 2, first_dense=2),
            "got linear='spectral-norm-first' without dense hidden layers; wanted a first one to .* Give widths",
        ),
        (lambda: mlp((5,), 2, widths=(), linear="spectral-norm-first"), "without dense hidden layers"),
        (lambda: cnn((9, 9, 1), 2, widths=(), linear="spectral-norm-first"), "without dense hidden layers"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(UserError, match=message):
        call()
