"""The wiring of networks whose author did not state it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.errors import UserError
from pliant.types import Slot


def _params(random, **shapes):
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_a_plain_mlp(random):
    params = _params(random, w1=(3, 6), b1=(6,), w2=(6, 5), b2=(5,), w3=(5, 2), b3=(2,))

    def apply(params, x):
        h = jax.nn.relu(x @ params["w1"] + params["b1"][None])
        h = jnp.tanh(h @ params["w2"] + params["b2"][None])
        return h @ params["w3"] + params["b3"][None]

    inferred = pliant.infer_wiring(apply, params, jnp.ones((4, 3)))
    first, second = inferred.wiring.layers
    assert (first.name, first.width, first.activation) == ("w1", 6, "relu")
    assert [feed.slot for feed in first.feeds] == [Slot("w1", 1), Slot("b1", 0)]
    assert first.readers == (Slot("w2", 0),)
    assert (second.activation, second.readers) == ("tanh", (Slot("w3", 0),))
    assert inferred.wiring.heads["output"].leaves == ("w3", "b3")
    assert inferred.wiring.heads["output"].reads == "w2"
    assert inferred.wiring.biases == {"w1": "b1", "w2": "b2", "w3": "b3"}
    assert inferred.wiring.roles == {
        "w1": "matrix", "b1": "bias", "w2": "matrix", "b2": "bias", "w3": "head", "b3": "bias"
    }  # fmt: skip
    assert not inferred.notes


@pytest.mark.parametrize("is_channels_first", [False, True])
def test_a_convolution_behind_a_flatten(random, is_channels_first):
    layout = ("NCHW", "OIHW", "NCHW") if is_channels_first else ("NHWC", "HWIO", "NHWC")
    kernel = (4, 1, 3, 3) if is_channels_first else (3, 3, 1, 4)
    params = _params(random, conv=kernel, bias=(4,), head=(36, 2))

    def apply(params, x):
        bias = params["bias"][None, :, None, None] if is_channels_first else params["bias"][None, None, None]
        h = jax.nn.relu(
            jax.lax.conv_general_dilated(x, params["conv"], (2, 2), "SAME", dimension_numbers=layout) + bias
        )
        return h.reshape(len(h), -1) @ params["head"]

    x = jnp.ones((5, 1, 6, 6) if is_channels_first else (5, 6, 6, 1))
    (layer,) = pliant.infer_wiring(apply, params, x).wiring.layers
    assert layer.axis == (1 if is_channels_first else -1)
    assert layer.readers == (Slot("head", 0, repeats=9) if is_channels_first else Slot("head", 0, tiles=9),)


def test_forward_returns_the_features_for_any_batch(random):
    params = _params(random, w1=(3, 6), w2=(6, 2))

    def apply(params, x):
        return jax.nn.silu(x @ params["w1"]) @ params["w2"]

    inferred = pliant.infer_wiring(apply, params, jnp.ones((4, 3)))
    x = jnp.asarray(random.normal(size=(1, 3)), jnp.float32)
    output, features = jax.jit(inferred.forward)(params, x)
    np.testing.assert_allclose(output, apply(params, x), rtol=1e-6)
    np.testing.assert_allclose(features["w1"], jax.nn.silu(x @ params["w1"]), rtol=1e-6)
    gradient = jax.grad(lambda params: inferred.forward(params, x)[1]["w1"].sum())(params)
    assert jnp.any(gradient["w1"] != 0)
    assert "w1" in str(inferred)


@pytest.mark.parametrize(
    ("apply", "params", "message"),
    [
        (lambda params, x: x, {"n": 3}, r"got params without floating-point arrays; wanted parameters"),
        (
            lambda params, x: x @ params if x.sum() > 0 else x,
            jnp.ones((3, 1)),
            r"got an `apply` that cannot be traced: T",
        ),
        (
            lambda params, x: {}["w"],
            jnp.ones((3, 1)),
            r"got an `apply` that cannot be traced: KeyError: 'w'; wanted a fu",
        ),
    ],
)
def test_what_cannot_be_followed_at_all_is_refused(apply, params, message):
    with pytest.raises(UserError, match=message):
        pliant.infer_wiring(apply, params, jnp.ones((4, 3)))
