import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, NETWORKS, activation, mlp, takes_texts, vit
from pliant.networks.blocks._attention import dropping
from pliant.networks.blocks._layer_activation import LayerActivation, activation_roles, key_stream
from pliant.types import Text, leaf_path
from wiring_checks import assert_roles_are_complete

NEW = ("smooth-leaky", "rational", "aid")
SMALL = {
    "mlp": {"widths": (4, 4)},
    "residual-mlp": {"widths": (4, 6)},
    "moe-mlp": {"widths": (4,), "num_experts": 2},
    "cnn": {"channels": (2,), "kernel_sizes": (3,), "strides": (2,), "pool": (1,), "widths": (4,)},
    "resnet18": {"width": 4, "num_blocks": (1,)},
    "vit": {"width": 4, "num_blocks": 1, "num_heads": 2, "mlp_width": 4},
    "t5": {"width": 4, "num_heads": 2, "head_width": 2, "mlp_width": 4, "dropout": 0.0},
}
PLACES = {
    "mlp": {"activation_0", "activation_1"},
    "residual-mlp": {"block_0/activation", "block_1/activation"},
    "moe-mlp": {f"{name}_activation" for name in ("dense_0", "expert_0", "expert_1", "mixture")},
    "cnn": {"conv_activation_0", "dense_activation_0"},
    "resnet18": {"stem_activation", "block_0/activation_0", "block_0/activation_1"},
    "vit": {"block_0/mlp/activation"},
    "t5": {"encoder/block_0/mlp/activation", "decoder/block_0/mlp/activation"},
}


def made(name, act):
    shape = (5, 4) if takes_texts(NETWORKS[name]) else (4, 4, 1)
    return NETWORKS[name](shape, 3, activation=act, **SMALL[name])


def inputs_of(name):
    draw = np.random.default_rng(0)
    if takes_texts(NETWORKS[name]):
        return Text(*(jnp.asarray(draw.integers(1, 3, (6, length)), jnp.int32) for length in (5, 4)))
    return jnp.asarray(draw.normal(size=(6, 4, 4, 1)), jnp.float32)


def run(name, act, *, train, key=None):
    network = made(name, act)
    params, state = network.init(jax.random.key(0))
    return network.apply(params, state, inputs_of(name), train=train, key=key)[0]


def test_every_network_with_the_option_is_here():
    """Those that build on another (lyle-cnn, kumar-cnn, octax-cnn, t5-pretrained) hand it on."""
    having = {name for name, factory in NETWORKS.items() if "activation" in inspect.signature(factory).parameters}
    assert having - {"lyle-cnn", "kumar-cnn", "octax-cnn", "t5-pretrained"} == set(SMALL)


def test_plain_functions_leave_no_trace():
    for name in set(ACTIVATIONS) - {"rational"}:
        assert not jax.tree.leaves(nnx.state(LayerActivation(activation(name))))
        assert activation_roles("here", activation(name)) == {}


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_learns_its_own(name):
    network = made(name, "rational")
    assert_roles_are_complete(network)
    params, state = network.init(jax.random.key(0))
    leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    learned = {path for path in leaves if path.endswith(("/numerator", "/denominator"))}
    assert learned == {f"{place}/{part}" for place in PLACES[name] for part in ("numerator", "denominator")}
    assert all(network.wiring.roles[path] == "other" for path in learned)
    assert not any(feed.slot.path in learned for layer in network.wiring.layers for feed in layer.feeds)

    def loss(params):
        return jnp.sum(network.apply(params, state, inputs_of(name), train=True, key=jax.random.key(1))[0] ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    moved = {leaf_path(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if bool(leaf.any())}
    assert learned <= moved


@pytest.mark.parametrize("name", SMALL)
def test_chance_is_for_training_only(name):
    same, other = (run(name, "aid", train=True, key=jax.random.key(seed)) for seed in (1, 2))
    assert bool((same != other).any())
    np.testing.assert_array_equal(run(name, "aid", train=True, key=jax.random.key(1)), same)
    still = run(name, "aid", train=False)
    np.testing.assert_array_equal(run(name, "aid", train=False, key=jax.random.key(1)), still)
    with pytest.raises(UserError, match="got an activation that draws, in training without a key; wanted a key"):
        run(name, "aid", train=True)


@pytest.mark.parametrize("act", NEW)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_derivatives(name, act):
    """Forward mode, and gradients of gradients either way, under jit, with two seeds at once."""
    network, inputs = made(name, act), inputs_of(name)
    params, states = zip(*(network.init(jax.random.key(seed)) for seed in range(2)), strict=True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

    def loss(params, key):
        return jnp.sum(network.apply(params, states[0], inputs, train=True, key=key)[0] ** 2)

    def curvature(params, key, mode):
        def along(params):
            return sum(leaf.sum() for leaf in jax.tree.leaves(jax.grad(loss)(params, key)))

        if mode == "backward":
            return jax.grad(along)(params)
        return jax.jvp(lambda params: jax.grad(loss)(params, key), (params,), (jax.tree.map(jnp.ones_like, params),))[1]

    keys = jax.random.split(jax.random.key(3), 2)
    backward, forward = (
        jax.jit(jax.vmap(lambda params, key, mode=mode: curvature(params, key, mode)))(stacked, keys)
        for mode in ("backward", "forward")
    )
    alone = curvature(params[1], keys[1], "backward")
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(alone))
    for a, b, c in zip(*map(jax.tree.leaves, (backward, forward, alone)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale)
        np.testing.assert_allclose(a[1], c, rtol=1e-3, atol=1e-4 * scale)


def test_layers_draw_apart(key):
    """Behind identical layers, what passes is not the same."""
    network = mlp((16,), 2, widths=(16, 16), activation="aid", use_bias=False)
    params, state = network.init(key)
    x = jnp.ones((8, 16))
    params["dense_0"]["kernel"] = params["dense_1"]["kernel"] = jnp.eye(16)
    _, features, _ = network.apply(params, state, x, train=True, key=key)
    first = np.asarray(features["dense_0"]) != 0
    heard = np.asarray(features["dense_1"])[first] != 0
    assert 0.7 < first.mean() < 0.99
    assert 0.7 < heard.mean() < 0.99


def test_dropout_keeps_its_draws(key):
    """Chance in the activations comes from other keys than dropout's."""
    next_key = key_stream(key, train=True)
    bits = [np.asarray(jax.random.key_data(next_key())) for _ in range(3)]
    counted = [np.asarray(jax.random.key_data(jax.random.fold_in(key, i))) for i in range(3)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(bits + counted, 2))
    x = jnp.ones((4, 64))
    drop = dropping(0.5, train=True, key=key)
    kept = np.asarray(drop(x)) != 0
    passed = np.asarray(ACTIVATIONS["aid"].apply(x, 0.5, key=bits_to_key(bits[0]))) != 0
    assert 0.3 < (kept == passed).mean() < 0.7


def bits_to_key(bits):
    return jax.random.wrap_key_data(jnp.asarray(bits))


def test_dropout_and_chance_go_together(key):
    network = vit((4, 4, 1), 3, activation="aid", dropout=0.2, **SMALL["vit"])
    params, state = network.init(key)
    outputs = [network.apply(params, state, inputs_of("vit"), train=True, key=jax.random.key(i))[0] for i in (0, 1)]
    assert bool((outputs[0] != outputs[1]).any())


def test_no_key_in_evaluation(key):
    assert key_stream(key, train=False)() is None
    assert key_stream(None, train=False)() is None
