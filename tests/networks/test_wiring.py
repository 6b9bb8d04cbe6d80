import jax
import jaxtyping
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS
from pliant.networks._wiring import activation_for, owned


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("norm", [None, "block/norm"])
def test_owned(use_bias, norm):
    ones = jax.nn.initializers.ones
    feeds, roles = owned("block/dense", ones, use_bias=use_bias, norm=norm)
    wanted = {"block/dense/kernel": "matrix"}
    wanted |= {"block/dense/bias": "bias"} if use_bias else {}
    wanted |= {"block/norm/scale": "norm", "block/norm/bias": "norm"} if norm else {}
    assert roles == wanted
    assert [feed.slot.path for feed in feeds] == list(wanted)
    assert all((feed.slot.axis, feed.slot.tiles) == (-1, 1) for feed in feeds)
    assert feeds[0].initializer is ones


def test_what_feeds_start_with(key):
    feeds, _ = owned("dense", jax.nn.initializers.ones, norm="norm")
    assert [float(feed.initializer(key, (1,), float)[0]) for feed in feeds] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_for(name):
    assert activation_for(name, (2, 4)) == ACTIVATIONS[name]
    assert activation_for(name, (), 0.5) == ACTIVATIONS[name]._replace(gain=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rleu", (4,)), "got the activation 'rleu'"),
        (("relu", (4, 0)), "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        (("maxmin", (4, 5)), "got width 5 with activation 'maxmin'; wanted widths that are multiples of 2. Choose 6"),
        (("relu", (4,), 0.0), "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
    ],
)
def test_refuses(arguments, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        activation_for(*arguments)
