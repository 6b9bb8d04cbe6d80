"""The check of the wiring passes true ones and finds each kind of lie."""

import jax
import jax.numpy as jnp
import pytest

from pliant.networks import ACTIVATIONS, mlp
from pliant.types import Feed, Head, HiddenLayer, Network, Slot, Wiring
from wiring_checks import assert_roles_are_complete, assert_wiring_is_true


def small(**options):
    return mlp((5,), 4, widths=(4, 4), **options)


def batch(key):
    return jax.random.normal(key, (32, 5))


def with_layer(network, **changes):
    """The network with a lie about its first layer."""
    first, *others = network.wiring.layers
    return network._replace(wiring=network.wiring._replace(layers=(first._replace(**changes), *others)))


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_true_wirings_pass(key, name, norm):
    assert_wiring_is_true(small(activation=name, norm=norm), batch(key))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readers": (Slot("dense_1/kernel", axis=-1),)}, "unit 0: heard although its readers are zero"),
        ({"readers": (Slot("head/kernel", axis=-2),)}, "heard although"),
        ({"readers": (Slot("dense_2/kernel", axis=-2),)}, "no leaves {'dense_2/kernel'}"),
        ({"feeds": (Feed(Slot("dense_0/kernel", axis=-2), jnp.zeros),)}, "4 units in Slot"),
        ({"feeds": (Feed(Slot("dense_1/bias", axis=-1), jnp.zeros),)}, "unit 0: its feeds do not change its features"),
        ({"feeds": (Feed(Slot("dense_1/kernel", axis=-2), jnp.zeros),)}, "its feeds do not change its features"),
        ({"feeds": ()}, "no feed has one of the roles"),
        ({"name": "dense_1"}, "two layers of one name"),
        ({"name": "dense_2"}, "no feature 'dense_2'"),
        ({"width": 3}, "3 units in Slot"),
    ],
)
def test_lies_about_a_layer_are_found(key, changes, message):
    with pytest.raises(AssertionError, match=message):
        assert_wiring_is_true(with_layer(small(), **changes), batch(key))


def test_norms_tie_the_units_before_them_together(key):
    with pytest.raises(AssertionError, match="unit 0: its feeds change the features of"):
        assert_wiring_is_true(small(norm="layer"), batch(key), through=("matrix", "bias"))


def test_sorted_units_are_not_elementwise(key):
    with pytest.raises(AssertionError, match="its feeds change the features of"):
        assert_wiring_is_true(with_layer(small(activation="maxmin"), elementwise=True), batch(key))


def test_doubled_features_have_two_tiles(key):
    network = small(activation="crelu")
    with pytest.raises(AssertionError, match="4 units in Slot"):
        assert_wiring_is_true(with_layer(network, readers=(Slot("dense_1/kernel", axis=-2),)), batch(key))


def toy(output, *, features=lambda h: h):
    """One hidden layer of two units, read by `output(h, weights)`."""

    def apply(params, state, inputs, *, train, key):
        h = inputs @ params["hidden"]
        return output(h, params["weights"]), {"hidden": features(h)}, state

    def init(key):
        return {"hidden": jax.random.normal(key, (5, 2)), "weights": jnp.ones((2, 3))}, {}

    feeds = (Feed(Slot("hidden", axis=-1), jax.nn.initializers.zeros),)
    layer = HiddenLayer("hidden", 2, feeds, (Slot("weights", axis=-2),), "identity", elementwise=True)
    layer = layer._replace(statistics=())
    return Network(init, apply, Wiring((layer,), {"hidden": "matrix", "weights": "head"}))


def test_a_true_toy_passes(key):
    assert_wiring_is_true(toy(lambda h, weights: h @ weights), batch(key))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (toy(lambda h, weights: h @ weights + h.sum(1, keepdims=True)), "unit 0: heard although"),
        (toy(lambda h, weights: h @ weights * weights.prod()), "unit 0: the next unit is cut off as well"),
        (toy(lambda h, weights: 0.0 * (h @ weights)), "unit 0: its feeds change nothing"),
        (toy(lambda h, weights: h @ weights, features=lambda h: h[:, ::-1]), r"change the features of \[1\]"),
        (toy(lambda h, weights: h @ weights, features=lambda h: h[:, :1]), "1 features of 2 units"),
    ],
)
def test_lies_of_a_network_are_found(key, network, message):
    with pytest.raises(AssertionError, match=message):
        assert_wiring_is_true(network, batch(key))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda roles: {path: role for path, role in roles.items() if path != "head/bias"}, "no role: {'head/bias'}"),
        (lambda roles: roles | {"dense_7/bias": "bias"}, "no leaf: {'dense_7/bias'}"),
        (lambda roles: roles | {"head/bias": "offset"}, "unknown roles: {'offset'}"),
        (lambda roles: roles | {"dense_1/kernel": "head"}, "no head's: {'dense_1/kernel'}"),
    ],
)
def test_lies_about_roles_are_found(changes, message):
    network = small()
    assert_roles_are_complete(network)
    wrong = network._replace(wiring=network.wiring._replace(roles=changes(network.wiring.roles)))
    with pytest.raises(AssertionError, match=message):
        assert_roles_are_complete(wrong)


def test_the_heads_input_is_a_feature(key):
    network = small()
    heads = {"output": Head(("head/kernel", "head/bias"), "dense_2")}
    wrong = network._replace(wiring=network.wiring._replace(heads=heads))
    with pytest.raises(AssertionError, match=r"no features \{'dense_2'\}"):
        assert_wiring_is_true(wrong, batch(key))
