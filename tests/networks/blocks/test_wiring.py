import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, NETWORKS, takes_texts
from pliant.networks.blocks._wiring import activation_for, multiplied, owned, require_sizes


@pytest.fixture
def unchecked(monkeypatch):
    """Without the tests' type checker, which would be first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


FACTORIES = [name for name in NETWORKS if not takes_texts(NETWORKS[name])]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("norm", [None, "block/norm"])
def test_owned(use_bias, norm):
    ones = jax.nn.initializers.ones
    feeds, roles, *_ = owned("block/dense", ones, use_bias=use_bias, norm=norm)
    wanted = {"block/dense/kernel": "matrix"}
    wanted |= {"block/dense/bias": "bias"} if use_bias else {}
    wanted |= {"block/norm/scale": "norm", "block/norm/bias": "norm"} if norm else {}
    assert roles == wanted
    assert [feed.slot.path for feed in feeds] == list(wanted)
    assert all((feed.slot.axis, feed.slot.tiles) == (-1, 1) for feed in feeds)
    assert feeds[0].initializer is ones


def test_what_feeds_start_with(key):
    feeds, *_ = owned("dense", jax.nn.initializers.ones, norm="norm")
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


@pytest.mark.parametrize("shape", [(0, 8, 1), (8, 8, 0), (8, -8, 1), (8, 8.0, 1), 8, None])
@pytest.mark.parametrize("name", FACTORIES)
def test_networks_refuse_inputs_without_a_size(unchecked, name, shape):
    with pytest.raises(UserError, match=r"got inputs of shape .*; wanted (whole numbers ≥ 1|images)"):
        NETWORKS[name](shape, 3)


@pytest.mark.parametrize("number", [0, -1, 2.5, float("nan")])
@pytest.mark.parametrize("name", FACTORIES)
def test_networks_refuse_outputs_without_a_size(unchecked, name, number):
    with pytest.raises(UserError, match=r"got num_outputs=.*; wanted a (finite|whole) number ≥ 1"):
        NETWORKS[name]((16, 16, 1), number)


@pytest.mark.parametrize(("batch", "dtype"), [(0, jnp.float32), (1, jnp.bfloat16)])
@pytest.mark.parametrize("name", FACTORIES)
def test_networks_take_few_examples_of_any_type(name, batch, dtype):
    """Traced only."""
    network = NETWORKS[name]((16, 16, 1), 3)

    def output(key):
        params, state = network.init(key)
        narrow = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return network.apply(narrow, state, jnp.zeros((batch, 16, 16, 1), dtype), train=True, key=key)[0]

    found = jax.eval_shape(output, jax.random.key(0))
    assert (found.shape, found.dtype) == ((batch, 3), dtype)


def test_sizes_may_be_numpys(unchecked):
    require_sizes((np.int64(8), np.int32(8), 1), np.int64(3), images=True)


@pytest.mark.parametrize("widths", [8, (8, 2.5), None])
def test_widths_are_whole(unchecked, widths):
    with pytest.raises(UserError, match=r"got layers of widths .*; wanted a whole number for each. Give a tuple"):
        multiplied(widths, 1.0)
