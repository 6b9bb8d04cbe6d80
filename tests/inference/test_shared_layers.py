"""Layers that are used several times, and kernels that are used elsewhere as well."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.types import Slot

relu = jax.nn.relu
RANDOM = np.random.default_rng(0)
PAIRS = jnp.asarray(RANDOM.normal(size=(3, 2, 4)), jnp.float32)
TOKENS = jnp.arange(10).reshape(2, 5)


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


def _params(**shapes):
    random = np.random.default_rng(1)
    return {name: jnp.asarray(random.normal(size=shape) / 2, jnp.float32) for name, shape in shapes.items()}


def _towers(p, x):
    def tower(x):
        return relu(relu(x @ p["a"] + p["b"]) @ p["c"]) @ p["out"]

    return tower(x[:, 0]) * tower(x[:, 1])


def _distance(p, x):
    first, second = (relu(relu(x[:, i] @ p["a"] + p["b"]) @ p["c"]) for i in range(2))
    return jnp.abs(first - second) @ p["out"]


def _repeated(p, x):
    """Blocks of one set of parameters, as in ALBERT."""

    def block(x, _):
        return x + relu(x @ p["a"] + p["b"]) @ p["c"], None

    return jax.lax.scan(block, x[:, 0], None, length=3)[0] @ p["out"]


def _other_bias(p, x):
    def tower(x, bias):
        return relu(x @ p["a"] + bias) @ p["out"]

    return tower(x[:, 0], p["b"]) * tower(x[:, 1], p["d"])


def _other_reader(p, x):
    return relu(x[:, 0] @ p["a"]) @ p["out"] * (relu(x[:, 1] @ p["a"]) @ p["c"])


def _recurrent(p, x):
    h, total = jnp.zeros((len(x), 6)), 0.0
    for i in range(2):
        h = jnp.tanh(x[:, i] @ p["a"] + h @ p["c"])
        total = total + h @ p["out"]
    return total


@pytest.mark.parametrize("apply", [_towers, pytest.param(_distance, marks=pytest.mark.whole)])
def test_towers_that_share_all_parameters_are_one(apply):
    params = _params(a=(4, 6), b=(6,), c=(6, 5), out=(5, 2))
    inferred = pliant.infer_wiring(apply, params, PAIRS)
    first, second = inferred.wiring.layers
    assert [feed.slot for feed in first.feeds] == [Slot("a", 1), Slot("b", 0)]
    assert (first.name, first.width, first.activation, first.readers) == ("a", 6, "relu", (Slot("c", 0),))
    assert (second.name, second.readers) == ("c", (Slot("out", 0),))
    assert inferred.wiring.heads["output"].reads == "c"
    assert not inferred.notes
    features = inferred.forward(params, PAIRS)[1]
    both = [relu(PAIRS[:, i] @ params["a"] + params["b"]) for i in range(2)]
    np.testing.assert_allclose(features["a"], jnp.concatenate(both), rtol=1e-5)


def test_blocks_that_share_all_parameters_are_one():
    params = _params(a=(4, 6), b=(6,), c=(6, 4), out=(4, 2))
    inferred = pliant.infer_wiring(_repeated, params, PAIRS)
    (layer,) = inferred.wiring.layers
    assert (layer.name, layer.readers) == ("a", (Slot("c", 0),))
    assert inferred.forward(params, PAIRS)[1]["a"].shape == (9, 6)


def test_a_unit_is_dormant_only_if_it_is_in_every_use():
    params = _params(a=(4, 6), b=(6,), c=(6, 5), out=(5, 2))
    x = jnp.stack([jnp.ones((8, 4)), -jnp.ones((8, 4))], 1)
    kernel = jnp.ones((4, 6)).at[:, 1].set(-1.0)  # unit 1 fires in the second tower only
    params |= {"a": kernel, "b": jnp.zeros(6).at[0].set(-9.0), "c": jnp.abs(params["c"])}
    plastic = pliant.attach("redo", _towers, params, x, threshold=0.0, every=1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    after, _, info = plastic.update(zeros, plastic.init(params, jax.random.key(0)), params, x)
    assert int(info["units_reset"]) == 1
    assert jnp.flatnonzero((after["c"] == 0).all(1)).tolist() == [0]
    np.testing.assert_array_equal(after["a"][:, 1:], kernel[:, 1:])


@pytest.mark.parametrize(
    ("apply", "shapes"),
    [
        (_other_bias, {"a": (4, 6), "b": (6,), "d": (6,), "out": (6, 2)}),
        (_other_reader, {"a": (4, 6), "c": (6, 2), "out": (6, 2)}),
        (_recurrent, {"a": (4, 6), "c": (6, 6), "out": (6, 2)}),
        (lambda p, x: relu(x[:, 0] @ p["a"]) @ p["a"].T, {"a": (4, 6)}),
    ],
    ids=["another bias", "another reader", "recurrence", "autoencoder"],
)
def test_layers_that_share_a_part_are_refused(apply, shapes):
    inferred = pliant.infer_wiring(apply, _params(**shapes), PAIRS)
    assert inferred.wiring.layers == ()
    assert "a is used again elsewhere" in inferred.notes["a"]


class _Language(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8, name="embed")
        x = embed(tokens)
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2)(y, y)
        x = x + nn.Dense(8, name="down")(nn.gelu(nn.Dense(12, name="up")(nn.LayerNorm()(x))))
        return embed.attend(nn.LayerNorm()(x))


def _plain_language(p, tokens):
    x = p["embed"][tokens] + p["position"]
    x = x + jax.nn.gelu(x @ p["up"]) @ p["down"]
    return x @ p["embed"].T


def _linen():
    network = _Language()
    return network.apply, network.init(jax.random.key(0), TOKENS)


def _plain():
    return _plain_language, _params(embed=(11, 8), position=(5, 8), up=(8, 12), down=(12, 8))


@pytest.mark.parametrize("made", [pytest.param(_linen, marks=pytest.mark.whole), _plain])
def test_a_head_that_is_tied_to_the_embedding(made):
    apply, params = made()
    wiring = pliant.infer_wiring(apply, params, TOKENS).wiring
    (layer,) = wiring.layers
    assert (layer.name, layer.width) == ("up", 12)
    assert wiring.heads["output"].leaves == ()
    embeddings = {path for path, role in wiring.roles.items() if role == "embed"}
    assert embeddings == {path for path in wiring.roles if "embed" in path or "position" in path}
    assert not {path for path, role in wiring.roles.items() if role in ("head", "other")}
