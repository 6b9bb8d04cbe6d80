"""Layers and kernels of networks that come without a wiring, against what was built into them."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics._infer import infer
from pliant.diagnostics._returned import returned
from pliant.networks import cnn, mlp
from pliant.tracing import find_frozen
from pliant.types import Slot, by_path

KEY = jax.random.key(0)
W = {name: jnp.ones(shape) for name, shape in [("z", (6, 8)), ("m", (8, 7)), ("a", (7, 3)), ("s", (4, 8, 8))]}
X = jnp.ones((5, 6))


def inferred(apply, params, x):
    def function(params, x):
        found = returned(apply(params, x))
        return found.output, found.features

    return infer(function, params, x)


def layers(apply, params=W, x=X):
    return {layer.name: layer.width for layer in inferred(apply, params, x).wiring.layers}


def chain(params, x):
    first = jax.nn.relu(x @ params["z"])
    second = jnp.tanh(first @ params["m"])
    return first, second, second @ params["a"]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))])
def test_the_order_is_that_of_the_computation(wrap):
    @wrap
    def apply(params, x):
        first, second, output = chain(params, x)
        return output, {"a": second, "z": first}

    found = inferred(apply, W, X)
    assert [layer.name for layer in found.wiring.layers] == ["z", "a"]
    assert found.wiring.head_reads() == "a"
    assert found.wiring.roles == {"z": "matrix", "m": "matrix", "a": "head", "s": "other"}
    assert not found.notes


@pytest.mark.parametrize(
    "copy",
    [
        lambda h: h.astype(jnp.bfloat16),
        lambda h: h.T,
        lambda h: h[:, None],
        jax.lax.stop_gradient,
        jnp.array,
        lambda h: jax.lax.stop_gradient(h[None].astype(jnp.float16)).swapaxes(0, 1),
    ],
)
def test_a_copy_stands_for_the_layer(copy):
    def apply(params, x):
        first, second, output = chain(params, x)
        return output, {"second": second, "first": copy(first)}

    found = inferred(apply, W, X)
    assert {layer.name: layer.width for layer in found.wiring.layers} == {"first": 8, "second": 7}
    features = apply(W, X)[1]
    assert found.forms["first"].of(features).shape[::2] in {(5,), (5, 8)}
    assert found.forms["first"].of(features).shape[-1] == 8


def custom_vjp(params, x):
    network = jax.custom_vjp(chain)
    network.defvjp(lambda *a: (chain(*a), a), lambda a, _: a)
    return network(params, x)


def custom_jvp(params, x):
    network = jax.custom_jvp(chain)
    network.defjvp(lambda p, t: (chain(*p), chain(*t)))
    return network(params, x)


def branched(params, x):
    return jax.lax.cond(x.sum() > 0, chain, lambda *a: jax.tree.map(jnp.negative, chain(*a)), params, x)


def mapped(params, x):
    return jax.lax.map(lambda x: chain(params, x), x)


def vmapped(params, x):
    return jax.vmap(chain, in_axes=(None, 0))(params, x)


@pytest.mark.parametrize("network", [custom_vjp, custom_jvp, mapped, vmapped, branched])
def test_layers_inside_of_other_programs(network):
    def apply(params, x):
        first, second, output = network(params, x)
        return output, {"a": second, "b": first}

    if network is branched:  # of two branches, neither is the layer
        found = inferred(apply, W, X)
        assert set(found.notes) == {"a", "b"}
        assert not found.wiring.layers
    else:
        assert layers(apply) == {"b": 8, "a": 7}


def test_a_loop_over_layers_is_taken_apart():
    def apply(params, x):
        start = jax.nn.relu(x @ params["z"])
        last, all_of_them = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w),) * 2, start, params["s"])
        return last @ params["m"], {"loop": all_of_them, "start": start}

    found = inferred(apply, W, X)
    assert [layer.name for layer in found.wiring.layers] == ["start", *(f"loop/{i}" for i in range(4))]
    assert found.wiring.head_reads() == "loop/3"
    features = apply(W, X)[1]
    np.testing.assert_array_equal(found.forms["loop/2"].of(features), features["loop"][2])
    assert "holds several kernels, (4, 8, 8)" in found.notes["s"]
    assert found.wiring.roles["s"] == "other"


def test_a_loop_over_time_is_not():
    def apply(params, x):
        def step(state, x):
            state = jnp.tanh(x @ params["z"] + state @ params["s"][0])
            return state, state

        last, states = jax.lax.scan(step, jnp.zeros((len(x), 8)), x.swapaxes(0, 1))
        return last @ params["m"], {"states": states}

    found = inferred(apply, W, jnp.ones((5, 9, 6)))
    assert found.forms["states"].of(apply(W, jnp.ones((5, 9, 6)))[1]).shape == (5, 9, 8)
    assert found.wiring.roles["z"] == "matrix"


def test_what_is_no_hidden_layer():
    def apply(params, x):
        first, second, output = chain(params, x)
        critic = jax.nn.relu(x @ params["z"] * 2)
        features = {
            "logits": output,
            "policy": jax.nn.softmax(output),
            "critic": critic,
            "value": (critic @ params["m"])[:, 0],
            "value_1": (critic @ params["m"])[:, :1],
            "first": first,
            "again": first.T,
            "inputs": x,
            "flat": x.reshape(-1),
            "active": first > 0,
            "gram": first @ first.T,
            "mean": first.mean(),
            "constant": jnp.ones((5, 4)),
            "second": second,
        }
        return output + first.mean(axis=1, keepdims=True), features

    found = inferred(apply, W, X)
    assert [layer.name for layer in found.wiring.layers] == ["first", "second", "logits"]
    for name, why in {
        "policy": "nothing reads it",
        "critic": "the output does not depend on it",
        "value": "the output does not depend on it",
        "value_1": "the output does not depend on it",
        "again": "the same as first",
        "inputs": "the inputs themselves",
        "flat": "the inputs themselves",
        "active": "holds bool",
        "gram": "the output does not depend on it",
        "mean": "the output does not depend on it",
        "constant": "does not depend on the examples",
    }.items():
        assert why in found.notes[name]


def test_one_number_for_each_example_is_no_layer():
    def apply(params, x):
        first, _, output = chain(params, x)
        level = first.mean(axis=1)
        return output * level[:, None], {"level": level, "first": first}

    found = inferred(apply, W, X)
    assert [layer.name for layer in found.wiring.layers] == ["first"]
    assert found.notes["level"] == "not measured: no layer: one number for each example"


def test_two_layers_that_the_output_reads():
    def skips(params, x):
        first, second, output = chain(params, x)
        return output + first @ params["s"][0][:, :3], {"second": second, "first": first}

    def towers(params, x):
        left, right = jax.nn.relu(x @ params["z"]), jnp.tanh(x @ params["z"])
        return (left + right) @ params["s"][0][:, :3], {"right": right, "left": left}

    found = inferred(skips, W, X)
    assert found.wiring.head_reads() == "second"
    assert found.notes["ranks"] == "of second, the last layer; past it the output also reads first"
    assert inferred(towers, W, X).wiring.head_reads() == "left and right"


@pytest.mark.parametrize("make", [mlp, cnn])
def test_our_networks_are_found_as_they_declare_themselves(make):
    network = make((8, 8, 3), 3)
    params, state = jax.eval_shape(network.init, KEY)

    def apply(params, x):
        return network.apply(params, state, x, train=False, key=None)[:2]

    found = inferred(apply, params, jnp.ones((5, 8, 8, 3))).wiring
    assert [(layer.name, layer.width) for layer in found.layers] == [
        (layer.name, layer.width) for layer in network.wiring.layers
    ]
    assert found.head_reads() == network.wiring.head_reads()
    assert all(axes == (len(by_path(params)[path].shape) - 1,) for path, axes in found.output_axes.items())
    for layer, own in zip(found.layers, network.wiring.layers, strict=True):
        kernels = [feed.slot for feed in own.feeds if network.wiring.roles[feed.slot.path] == "matrix"]
        assert [feed.slot.path for feed in layer.feeds] == [slot.path for slot in kernels]
    for role in ("matrix", "head"):
        assert {path for path, each in found.roles.items() if each == role} == {
            path for path, each in network.wiring.roles.items() if each == role
        }


class Images(eqx.Module):
    """Channels first."""

    conv: eqx.nn.Conv2d
    last: eqx.nn.Conv2d
    dense: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self):
        self.conv, self.last = (eqx.nn.Conv2d(*sides, 3, key=KEY) for sides in ((3, 8), (8, 6)))
        self.dense, self.head = eqx.nn.Linear(6 * 4, 10, key=KEY), eqx.nn.Linear(10, 2, key=KEY)

    def __call__(self, x):
        first = jax.nn.relu(self.conv(x))
        second = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(self.last(first)))
        third = jax.nn.relu(self.dense(second.ravel()))
        return self.head(third), {"z": first, "y": second, "x": third}


def test_channels_first():
    arrays, rest = eqx.partition(Images(), eqx.is_array)
    x = jnp.ones((5, 3, 8, 8))

    def apply(arrays, x):
        return jax.vmap(eqx.combine(arrays, rest))(x)

    found = inferred(apply, arrays, x)
    assert {layer.name: layer.width for layer in found.wiring.layers} == {"z": 8, "y": 6, "x": 10}
    assert found.forms["z"].of(apply(arrays, x)[1]).shape == (5, 6, 6, 8)
    assert {path: axes for path, axes in found.wiring.output_axes.items() if "weight" in path} == dict.fromkeys(
        ["conv/weight", "last/weight", "dense/weight", "head/weight"], (0,)
    )
    assert found.wiring.roles["conv/bias"] == "other"  # of shape (8, 1, 1)
    assert found.wiring.roles["head/weight"] == "head"


class Tokens(nn.Module):
    """Channels last, attention, embeddings, norms."""

    @nn.compact
    def __call__(self, tokens):
        embedded = nn.Embed(11, 8)(tokens) + self.param("places", nn.initializers.ones, (1, 4, 8))
        convolved = nn.relu(nn.LayerNorm()(nn.Conv(8, (3,))(embedded)))
        attended = nn.MultiHeadDotProductAttention(2, qkv_features=6)(convolved)
        hidden = nn.gelu(nn.Dense(12)(attended))
        return nn.Dense(3)(hidden.mean(axis=1)), {"hidden": hidden, "attended": attended, "convolved": convolved}


def test_attention_and_embeddings():
    x = jnp.zeros((5, 4), jnp.int32)
    params = jax.eval_shape(Tokens().init, KEY, x)
    found = inferred(Tokens().apply, params, x)
    assert {layer.name: layer.width for layer in found.wiring.layers} == {"convolved": 8, "attended": 8, "hidden": 12}
    attention = "params/MultiHeadDotProductAttention_0"
    for name, axes in {"query": (1, 2), "key": (1, 2), "value": (1, 2), "out": (2,)}.items():
        assert found.wiring.output_axes[f"{attention}/{name}/kernel"] == axes
    roles = {role: {path for path, own in found.wiring.roles.items() if own == role} for role in ("head", "embed")}
    assert roles == {"head": {"params/Dense_1/kernel"}, "embed": {"params/Embed_0/embedding"}}
    assert found.wiring.roles["params/places"] == "other"
    assert found.wiring.roles[f"{attention}/query/bias"] == "other"
    assert not found.notes


def _attention(p, x):
    query, key, value = (jnp.einsum("btd,dhk->bthk", x, p[name]) for name in "qkv")
    bias = p["table"][jnp.arange(25).reshape(5, 5) % 9].transpose(2, 0, 1)  # of relative positions
    weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", query, key) + bias[None])
    heads = jnp.einsum("bhts,bshk->bthk", weights, value)
    x = x + jnp.einsum("bthk,hko->bto", heads, p["o"])
    return x.mean(1) @ p["out"], {"query": query, "weights": weights, "heads": heads, "x": x}


def _constant(p, x):
    hidden = jax.nn.relu(x @ p["a"]) @ jnp.eye(6, 7)
    return hidden.mean(1) @ p["out"][:7], {"hidden": hidden}


def _beside(p, x):
    """Tokens of two kinds."""
    both = jnp.concatenate([jax.nn.relu(x @ p["a"]), jnp.tanh(x[:, :2] @ p["b"])], 1)
    return jnp.sin(both).mean(1) @ p["out"][:6], {"both": both}


def _token(p, x):
    x = jnp.concatenate([jnp.broadcast_to(p["token"], (len(x), 1, 8)), x @ jnp.eye(8)], 1)
    return x[:, 0] @ p["out"], {"x": x}


def _branch(p, x):
    hidden = jax.lax.cond(x.sum() > 0, jax.nn.relu, jnp.tanh, x @ p["a"]) * 2
    return hidden.mean(1) @ p["out"][:6], {"hidden": hidden}


def _one_unit(p, x):
    hidden = jax.nn.relu(x @ p["a"][:, :1])
    return (hidden * x).mean(1) @ p["out"], {"hidden": hidden}


@pytest.mark.parametrize(
    ("apply", "units"),
    [
        (_attention, {"query": (2, 3), "weights": (1,), "heads": (2, 3), "x": (2,)}),
        (_constant, {"hidden": (2,)}),
        (_beside, {"both": (2,)}),
        (_token, {"x": (2,)}),
        (_branch, {"hidden": (2,)}),
        (_one_unit, {"hidden": (2,)}),
    ],
)
def test_units_that_no_kernel_makes_alone(apply, units):
    shapes = dict.fromkeys("qkv", (8, 2, 3)) | {"o": (2, 3, 8), "a": (8, 6), "b": (8, 6), "table": (9, 2)}
    params = {name: jnp.ones(shape) for name, shape in (shapes | {"token": (1, 1, 8), "out": (8, 3)}).items()}
    found = inferred(apply, params, jnp.ones((4, 5, 8)))
    assert {name: form.units for name, form in found.forms.items()} == units
    assert found.wiring.roles["table"] == "other"
    if apply is _attention:
        feeds = {layer.name: [feed.slot for feed in layer.feeds] for layer in found.wiring.layers}
        of_heads = [[Slot(name, 2, groups=2, across=1)] for name in "qv"]
        assert feeds == {"query": of_heads[0], "weights": [], "heads": of_heads[1], "x": [Slot("o", 2)]}


@pytest.mark.parametrize("linear", ["newton-schulz", "spectral-norm", "weight-norm"])
def test_kernels_that_are_applied_indirectly(linear):
    network = mlp((6,), 3, widths=(8, 5), linear=linear)
    params, state = network.init(KEY)
    found = inferred(lambda p, x: network.apply(p, state, x, train=False)[:2], params, X).wiring
    assert [layer.feeds[0].slot for layer in found.layers] == [Slot(f"dense_{i}/kernel", 1) for i in range(2)]
    assert found.output_axes["dense_0/kernel"] == (1,)


@pytest.mark.parametrize(
    ("product", "shape", "wanted"),
    [
        (lambda w, x: jnp.einsum("bi,oi->bo", x, w), (4, 6), (0,)),
        (lambda w, x: jnp.einsum("bi,ihk->bhk", x, w).reshape(5, -1), (6, 2, 3), (1, 2)),
        (lambda w, x: x @ w.reshape(6, 6), (6, 2, 3), (1, 2)),
        (lambda w, x: x @ w.transpose(2, 0, 1).reshape(6, 6), (2, 3, 6), (0, 1)),
        (lambda w, x: x @ (w / jnp.linalg.norm(w)).T, (4, 6), (0,)),
        (lambda w, x: x @ w.astype(jnp.bfloat16), (6, 4), (1,)),
        (lambda w, x: (x @ w) @ w.T, (6, 4), (1,)),
    ],
)
def test_the_layout_of_a_kernel(product, shape, wanted):
    found = inferred(lambda params, x: product(params["w"], x), {"w": jnp.ones(shape)}, X)
    assert found.wiring.output_axes.get("w") == wanted
    assert found.wiring.roles["w"] in ("head", "matrix")


def test_a_sum_of_products_is_one():
    def apply(params, x):
        return (x[:, :, None] * params["dense"][None]).sum(axis=1) + (x[:, :, None, None] * params["three"][None]).sum(
            (1, 2)
        )

    found = inferred(apply, {"dense": jnp.ones((6, 4)), "three": jnp.ones((6, 2, 4))}, X)
    assert found.wiring.roles == {"dense": "matrix", "three": "other"}
    assert "which axes of (6, 2, 4) are outputs is not known (read by mul): give wiring=" in found.notes["three"]


def test_units_that_cannot_be_told():
    def apply(params, x):
        squares = jnp.einsum("bi,bj->bij", x, x)
        return jnp.tanh(squares.reshape(5, 36)[:, :8] @ params["m"]) @ params["a"], {"squares": squares}

    found = inferred(apply, W, X)
    assert "which axes of (5, 6, 6) are units is not known: give wiring=" in found.notes["squares"]


def test_parameters_behind_stop_gradient():
    def apply(params, x):
        return jax.lax.stop_gradient(x @ params["z"]) @ params["m"] @ jax.lax.stop_gradient(params["a"])

    assert find_frozen(apply, W, X) == {"a", "z"}
    assert find_frozen(lambda p, x: jax.lax.stop_gradient(apply(p, x)), W, X) == set()


def test_a_layer_that_is_computed_again_for_the_features():
    """As where a module is called once, and its first layers again."""

    def apply(params, x):
        _, _, output = chain(params, x)
        first, second, _ = chain(params, x)
        return output, {"second": second, "first": first, "other": jax.nn.relu(x @ params["z"] + 1)}

    found = inferred(apply, W, X)
    assert [layer.name for layer in found.wiring.layers] == ["first", "second"]
    assert found.wiring.head_reads() == "second"
    assert "nothing reads it" in found.notes["other"]


def test_what_jax_stacks_is_no_loop_over_layers():
    """A primitive of JAX has the name that the graph once gave to what a loop puts together."""

    def function(params, x):
        hidden = jnp.tanh(x @ params["a"])
        pair = jnp.stack([hidden, jnp.ones_like(x[:, :3])])
        return pair.sum(0) @ params["b"], {"pair": pair}

    found = infer(function, {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))}, jnp.ones((5, 4)))
    assert "pair/0" not in found.forms
