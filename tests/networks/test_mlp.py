import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, NETWORKS, mlp
from pliant.types import leaf_path
from wiring_checks import assert_wiring_is_true


def output(network, params, state, x):
    return network.apply(params, state, x, train=False, key=None)[0]


def paths(params):
    return {leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}


def test_registered():
    assert NETWORKS["mlp"] is mlp


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_shapes(key, name):
    network = mlp((4, 4, 2), 3, widths=(6, 8), activation=name)
    params, state = jax.eval_shape(network.init, key)
    apply = functools.partial(network.apply, train=True, key=key)
    out, features, new_state = jax.eval_shape(apply, params, state, jnp.zeros((5, 4, 4, 2)))
    expansion = ACTIVATIONS[name].expansion
    assert out.shape == (5, 3)
    assert {name: layer.shape for name, layer in features.items()} == {
        "dense_0": (5, 6 * expansion),
        "dense_1": (5, 8 * expansion),
    }
    assert params["dense_0"]["kernel"].shape == (32, 6)
    assert params["dense_1"]["kernel"].shape == (6 * expansion, 8)
    assert params["head"]["kernel"].shape == (8 * expansion, 3)
    assert state == new_state == {}


def test_computes_what_it_says(key):
    network = mlp((4,), 3, widths=(6,), activation="tanh", norm="layer")
    params, state = network.init(key)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = jax.random.normal(key, (5, 4))
    out, features, _ = network.apply(params, state, x, train=False, key=None)
    z = np.asarray(x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"][None], np.float64)
    z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-6)
    hidden = np.tanh(z * np.asarray(params["norm_0"]["scale"]) + np.asarray(params["norm_0"]["bias"]))
    np.testing.assert_allclose(features["dense_0"], hidden, atol=2e-6)
    wanted = hidden @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(out, wanted, atol=5e-6)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("widths", [(6, 4), (6,), ()])
def test_every_leaf_has_a_role(key, norm, use_bias, widths):
    network = mlp((4,), 3, widths=widths, norm=norm, use_bias=use_bias)
    params, _ = jax.eval_shape(network.init, key)
    roles = network.wiring.roles
    assert set(roles) == paths(params)
    for path, role in roles.items():
        module, name = path.split("/")
        wanted = "norm" if "norm" in module else "bias" if name == "bias" else "head" if module == "head" else "matrix"
        assert role == wanted
    assert ("head/bias" in roles) == use_bias
    assert ("norm_0/scale" in roles) == (norm == "layer" and bool(widths))


def test_empty_widths_are_a_linear_model(key):
    network = mlp((4,), 3, widths=())
    params, state = network.init(key)
    x = jax.random.normal(key, (5, 4))
    out, features, _ = network.apply(params, state, x, train=False, key=None)
    np.testing.assert_allclose(out, x @ params["head"]["kernel"], rtol=1e-6)
    assert features == {}
    assert network.wiring.layers == ()


@pytest.mark.parametrize(("options", "hidden"), [({}, 2**0.5), ({"activation": "maxmin"}, 1.0), ({"gain": 0.7}, 0.7)])
def test_kernels_start_orthogonal_and_biases_zero(key, options, hidden):
    params, _ = mlp((12,), 4, widths=(8, 10), **options).init(key)
    for module, gain in (("dense_0", hidden), ("dense_1", hidden), ("head", 1.0)):
        sigma = np.linalg.svd(params[module]["kernel"], compute_uv=False)
        np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=2e-6)
        assert not np.any(params[module]["bias"])


def test_seeds_differ_and_repeat():
    network = mlp((4,), 3, widths=(6,))
    a, b, c = (network.init(jax.random.key(seed))[0]["dense_0"]["kernel"] for seed in (0, 1, 0))
    np.testing.assert_array_equal(a, c)
    assert np.all(a != b)


def test_layers_do_not_start_alike(key):
    params, _ = mlp((6,), 6, widths=(6, 6)).init(key)
    assert np.all(params["dense_0"]["kernel"] != params["dense_1"]["kernel"])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_wiring_is_true(key, name, norm, use_bias):
    network = mlp((5,), 2, widths=(4, 6), activation=name, norm=norm, use_bias=use_bias)
    assert_wiring_is_true(network, jax.random.normal(key, (32, 5)))


@pytest.mark.parametrize("linear", ["newton-schulz", "cans", "spectral-norm", "spectral-norm-first"])
@pytest.mark.parametrize("name", ["relu", "crelu", "maxmin"])
def test_wiring_of_layers_that_are_normalised_as_a_whole_is_true(key, name, linear):
    """The columns of a kernel are orthogonalised or divided together: a bias is all that a unit has for itself."""
    network = mlp((5,), 2, widths=(4, 6), activation=name, linear=linear)
    assert_wiring_is_true(network, jax.random.normal(key, (32, 5)), through=("bias",))


@pytest.mark.parametrize("linear", ["weight-norm", "scaled"])
@pytest.mark.parametrize("name", ["relu", "crelu", "maxmin"])
@pytest.mark.parametrize("through", [None, ("other",), ("matrix",)])
def test_wiring_of_layers_with_scales_is_true(key, name, linear, through):
    network = mlp((5,), 2, widths=(4, 6), activation=name, linear=linear)
    assert_wiring_is_true(network, jax.random.normal(key, (32, 5)), through=through)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wiring_knows_the_activation(name):
    layers = mlp((5,), 2, widths=(4, 6), activation=name).wiring.layers
    assert [(layer.name, layer.width) for layer in layers] == [("dense_0", 4), ("dense_1", 6)]
    assert all(layer.activation == name for layer in layers)
    assert all(layer.elementwise == (name != "maxmin") for layer in layers)
    assert all(layer.readers[0].tiles == ACTIVATIONS[name].expansion for layer in layers)
    assert [layer.readers[0].path for layer in layers] == ["dense_1/kernel", "head/kernel"]


def test_units_own_kernel_bias_and_norm():
    layer = mlp((5,), 2, widths=(4, 6), norm="layer").wiring.layers[1]
    wanted = ["dense_1/kernel", "dense_1/bias", "norm_1/scale", "norm_1/bias"]
    assert [feed.slot.path for feed in layer.feeds] == wanted


def test_wiring_knows_what_the_head_reads():
    assert mlp((5,), 2, widths=(4, 6)).wiring.head_reads() == "dense_1"
    assert mlp((5,), 2, widths=()).wiring.head_reads() is None


@pytest.mark.parametrize("linear", ["newton-schulz", "cans"])
def test_orthogonal_layers_apply_orthogonal_kernels(key, linear):
    network = mlp((8,), 3, widths=(8, 6), activation="identity", linear=linear, gain=0.5, linear_iterations=9)
    params, state = network.init(key)
    assert set(state) == ({"dense_0", "dense_1"} if linear == "newton-schulz" else set())
    noise = jax.random.normal(key, (8, 8))
    params["dense_0"]["kernel"] += 0.05 * noise
    out, features, _ = network.apply(params, state, jnp.eye(8), train=False, key=None)
    for name, before in (("dense_0", np.eye(8)), ("dense_1", np.asarray(features["dense_0"]))):
        u, _, vt = np.linalg.svd(np.asarray(params[name]["kernel"], np.float64), full_matrices=False)
        np.testing.assert_allclose(features[name], before @ (0.5 * u @ vt), atol=2e-5)
    np.testing.assert_allclose(out, features["dense_1"] @ params["head"]["kernel"], atol=1e-6)


def test_orthogonal_layers_start_at_one_and_plain_ones_at_the_gain(key):
    network = mlp((12,), 4, widths=(8, 8), linear="newton-schulz")
    params, state = network.init(key)
    for module in ("dense_0", "dense_1", "head"):
        np.testing.assert_allclose(np.linalg.svd(params[module]["kernel"], compute_uv=False), 1.0, rtol=2e-6)
    drawn = network.wiring.layers[0].feeds[0].initializer(key, (12, 8), jnp.float32)
    np.testing.assert_allclose(np.linalg.svd(drawn, compute_uv=False), 1.0, rtol=2e-6)
    x = jax.random.normal(key, (5, 12))
    output = network.apply(params, state, x, train=False, key=None)[0]
    plain = mlp((12,), 4, widths=(8, 8), gain=1.0).apply(params, {}, x, train=False, key=None)[0]
    np.testing.assert_allclose(output, plain, atol=1e-4)


@pytest.mark.parametrize("linear", ["newton-schulz", "cans"])
def test_orthogonal_networks_do_not_stretch(key, linear):
    """With an orthogonal head no direction grows, whatever the raw weights are."""
    network = mlp((10,), 4, widths=(12, 8, 8), activation="maxmin", linear=linear)
    params, state = network.init(key)
    for i in range(3):
        noise = jax.random.normal(jax.random.fold_in(key, i), params[f"dense_{i}"]["kernel"].shape)
        params[f"dense_{i}"]["kernel"] += noise
    x = jax.random.normal(key, (16, 10))
    step = jax.jit(lambda state: network.apply(params, state, x, train=True, key=None)[2])
    for _ in range(20):
        state = step(state)
    jacobian = jax.jacfwd(lambda x: network.apply(params, state, x[None], train=False, key=None)[0][0])
    jacobians = jax.jit(jax.vmap(jacobian))(x)
    norms = np.linalg.svd(jacobians, compute_uv=False)[:, 0]
    assert norms.max() < 1 + 1e-3
    assert norms.min() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
        ({"activation": "maxmin", "widths": (8, 7)}, r"got width 7 with activation 'maxmin'; wanted .* of 2. Choose 8"),
        ({"widths": (8, 0)}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
        ({"norm": "batch"}, "got norm='batch'; wanted 'none' or 'layer'. Leave it out"),
        ({"linear": "can"}, r"got the linear layer 'can'; .*Did you mean 'cans'\? Leave it out for 'plain'"),
        ({"linear_iterations": 0}, "got linear_iterations=0; wanted a finite number ≥ 1. Use 7"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        mlp((5,), 2, **options)


def test_refuses_no_outputs():
    with pytest.raises(UserError, match="got num_outputs=0; wanted a finite number ≥ 1"):
        mlp((5,), 0)
