import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import slot_mask
from pliant.networks import ACTIVATIONS, NETWORKS, mlp
from pliant.types import leaf_path

ELEMENTWISE = [name for name, activation in ACTIVATIONS.items() if activation.elementwise]


def output(network, params, state, x):
    return network.apply(params, state, x, train=False, key=None)[0]


def paths(params):
    return {leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}


def replaced(params, path, leaf):
    module, name = path.split("/")
    return params | {module: params[module] | {name: leaf}}


def leaf_of(params, path):
    module, name = path.split("/")
    return params[module][name]


def test_registered():
    assert NETWORKS["mlp"] is mlp


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_shapes(key, name):
    network = mlp((4, 4, 2), 3, widths=(6, 8), activation=name)
    params, state = jax.eval_shape(network.init, key)
    apply = functools.partial(network.apply, train=True, key=None)
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


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_unit_speaks_to_its_readers_only(key, name, norm, use_bias):
    """With the declared readers' rows at zero the output is independent of a unit's feeds, and of no other unit's.

    LayerNorm's statistics tie the units of a layer together in front of the norm, so with it only the norm's own scale
    and offset are changed.
    """
    network = mlp((5,), 2, widths=(4, 3), activation=name, norm=norm, use_bias=use_bias)
    params, state = network.init(key)
    x = jax.random.normal(key, (32, 5))
    compute = jax.jit(lambda params: output(network, params, state, x))
    own = "norm_" if norm == "layer" else "dense_"

    def perturbed(params, layer, unit):
        flags = jnp.arange(layer.width) == unit
        feeds = [feed.slot for feed in layer.feeds if feed.slot.path.startswith(own)]
        assert len(feeds) == (2 if norm == "layer" else 1 + use_bias)
        for slot in feeds:
            leaf = leaf_of(params, slot.path)
            params = replaced(params, slot.path, jnp.where(slot_mask(slot, flags, leaf), leaf + 0.9, leaf))
        return params

    for layer in network.wiring.layers:
        for unit in range(layer.width):
            cut = params
            for slot in layer.readers:
                rows = slot_mask(slot, jnp.arange(layer.width) == unit, leaf_of(cut, slot.path))
                cut = replaced(cut, slot.path, jnp.where(rows, 0.0, leaf_of(cut, slot.path)))
            before = compute(cut)
            for other in range(layer.width):
                changed = not np.array_equal(compute(perturbed(cut, layer, other)), before)
                assert changed == (other != unit), f"{layer.name}: unit {other} with {unit} cut off"
            assert not np.array_equal(compute(perturbed(params, layer, unit)), compute(params))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wiring_knows_the_activation(name):
    layers = mlp((5,), 2, widths=(4, 6), activation=name).wiring.layers
    assert [(layer.name, layer.width) for layer in layers] == [("dense_0", 4), ("dense_1", 6)]
    assert all(layer.activation == name for layer in layers)
    assert all(layer.elementwise == (name != "maxmin") for layer in layers)
    assert all(layer.readers[0].tiles == (2 if name == "crelu" else 1) for layer in layers)
    assert [layer.readers[0].path for layer in layers] == ["dense_1/kernel", "head/kernel"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
        ({"activation": "maxmin", "widths": (8, 7)}, r"got width 7 with activation 'maxmin'; wanted .* of 2. Choose 8"),
        ({"widths": (8, 0)}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
        ({"norm": "batch"}, "got norm='batch'; wanted 'none' or 'layer'. Leave it out"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        mlp((5,), 2, **options)


def test_refuses_no_outputs():
    with pytest.raises(UserError, match="got a layer of width 0"):
        mlp((5,), 0)
