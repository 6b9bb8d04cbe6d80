"""Networks of other libraries, and what their authors do with them."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import pliant
from pliant.types import Slot, Wiring

IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(3)(nn.gelu(nn.Dense(6)(x.reshape(len(x), -1))))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = nn.Dense(8)(x) + nn.MultiHeadDotProductAttention(2)(y, y)
        return nn.Dense(3)((x + nn.Dense(8)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x))))).mean(1))


class EquinoxCNN(eqx.Module):
    conv: eqx.nn.Conv2d
    linear: eqx.nn.Linear
    activation: callable = jax.nn.relu

    def __call__(self, x):
        return self.linear(self.activation(self.conv(x)).reshape(-1))


class NnxMLP(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(8, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.silu(self.norm(self.a(x))))


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_linen_with_batch_statistics():
    network = LinenCNN()
    variables = network.init(jax.random.key(0), IMAGES)
    inferred = pliant.infer_wiring(network.apply, variables, IMAGES)
    conv, dense = inferred.wiring.layers
    assert conv.readers == (Slot("params/Dense_1/kernel", 0, tiles=16),)
    assert [slot.path for slot in conv.statistics] == ["batch_stats/BatchNorm_0/mean", "batch_stats/BatchNorm_0/var"]
    assert {"batch_stats/BatchNorm_0/mean", "batch_stats/BatchNorm_0/var"} <= inferred.wiring.frozen
    assert (dense.name, dense.activation) == ("Dense_1", "gelu")
    assert inferred.wiring.roles["params/BatchNorm_0/scale"] == "norm"


def test_a_transformer_block():
    network, x = LinenBlock(), jnp.ones((2, 5, 8))
    inferred = pliant.infer_wiring(network.apply, network.init(jax.random.key(0), x), x)
    assert [(layer.width, layer.activation) for layer in inferred.wiring.layers] == [(12, "gelu")]


def test_equinox_modules():
    first, second = jax.random.split(jax.random.key(0))
    network = EquinoxCNN(eqx.nn.Conv2d(3, 4, 3, padding=1, key=first), eqx.nn.Linear(256, 2, key=second))
    inferred = pliant.infer_wiring(lambda net, x: jax.vmap(net)(x), network, IMAGES.transpose(0, 3, 1, 2))
    (layer,) = inferred.wiring.layers
    assert (layer.name, layer.axis, layer.readers) == ("conv", 1, (Slot("linear/weight", 1, repeats=64),))


def test_nnx_split_and_merged():
    graph, state = nnx.split(NnxMLP(nnx.Rngs(0)))
    (layer,) = pliant.infer_wiring(lambda state, x: nnx.merge(graph, state)(x), state, jnp.ones((4, 8))).wiring.layers
    assert (layer.name, layer.activation) == ("a", "silu")
    assert len(layer.statistics) == 2


def test_haiku():
    hk = pytest.importorskip("haiku")
    network = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2, name="head")(jnp.tanh(hk.Linear(5)(x)))))
    x = jnp.ones((4, 3))
    (layer,) = pliant.infer_wiring(network.apply, network.init(jax.random.key(0), x), x).wiring.layers
    assert (layer.width, layer.activation, layer.readers) == (5, "tanh", (Slot("head/w", 0),))


def test_stacked_kernels_are_left_out_with_a_note():
    shapes = {"up": (3, 8, 12), "down": (3, 12, 8), "head": (8, 2)}
    params = {name: jax.random.normal(jax.random.key(0), shape) for name, shape in shapes.items()}

    def apply(params, x):
        def body(x, kernels):
            return x + jax.nn.relu(x @ kernels[0]) @ kernels[1], None

        return jax.lax.scan(body, x, (params["up"], params["down"]))[0] @ params["head"]

    inferred = pliant.infer_wiring(apply, params, jnp.ones((4, 8)))
    assert inferred.wiring.layers == ()
    assert "holds several kernels" in inferred.notes["up"]


def test_a_gate_with_one_kernel():
    shapes = {"w": (8, 12), "v": (6, 4), "head": (4, 2)}
    params = {name: jax.random.normal(jax.random.key(0), shape) for name, shape in shapes.items()}

    def apply(params, x):
        gate, up = jnp.split(x @ params["w"], 2, -1)
        return jnp.tanh((jax.nn.silu(gate) * up) @ params["v"]) @ params["head"]

    first, _ = pliant.infer_wiring(apply, params, jnp.ones((4, 8))).wiring.layers
    assert (first.width, first.activation) == (6, "silu")
    assert [feed.slot for feed in first.feeds] == [Slot("w", 1, tiles=2)]


def test_what_the_user_states_must_be_true():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 4)), "c": jnp.ones((4, 2))}

    def apply(params, x):
        return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]

    found = pliant.infer_wiring(apply, params, jnp.ones((4, 3))).wiring
    wrong = found.layers[0]._replace(readers=(Slot("c", 0),))
    with pytest.raises(ValueError, match="got the hidden layer 'a' in wiring=, of which"):
        pliant.infer_wiring(apply, params, jnp.ones((4, 3)), Wiring((wrong,), {}))
    with pytest.raises(ValueError, match="got the hidden layer 'z'"):
        pliant.infer_wiring(apply, params, jnp.ones((4, 3)), Wiring((wrong._replace(name="z"),), {}))
    roles = pliant.infer_wiring(apply, params, jnp.ones((4, 3)), Wiring((), {"a": "embed"})).wiring.roles
    assert roles["a"] == "embed"
