from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from pliant.errors import UserError
from pliant.types import ROLES, Feed, Head, HiddenLayer, Slot, Traits, Wiring, leaf_path


class Pair(NamedTuple):
    left: float
    right: list


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"dense_0": {"bias": 0.0, "kernel": 0.0}}, ["dense_0/bias", "dense_0/kernel"]),
        ([1.0, {"w": 2.0}], ["0", "1/w"]),
        (Pair(1.0, [2.0, 3.0]), ["left", "right/0", "right/1"]),
        (1.0, [""]),
    ],
)
def test_leaf_path(tree, wanted):
    assert [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)] == wanted


def test_leaf_path_of_modules(key):
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(eqx.nn.MLP(2, 1, 3, 1, key=key), eqx.is_array))
    paths = [leaf_path(path) for path, _ in leaves]
    assert paths == ["layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias"]


PARAMS = {"hidden": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones((3, 1))}}
WIRING = Wiring((), {"hidden/kernel": "matrix", "hidden/bias": "bias", "head/kernel": "head"})


@pytest.mark.parametrize(
    ("roles", "wanted"),
    [
        (("matrix",), {"hidden/kernel"}),
        (("matrix", "head"), {"hidden/kernel", "head/kernel"}),
        (("norm",), set()),
        (ROLES, {"hidden/kernel", "hidden/bias", "head/kernel"}),
    ],
)
def test_mask_is_true_at_the_roles(roles, wanted):
    mask = WIRING.mask(PARAMS, *roles)
    assert jax.tree.structure(mask) == jax.tree.structure(PARAMS)
    assert {leaf_path(path) for path, take in jax.tree_util.tree_leaves_with_path(mask) if take} == wanted


def test_mask_refuses_an_unknown_leaf():
    params = PARAMS | {"extra": jnp.ones(2)}
    message = r"got the parameter 'extra'; wanted a leaf with a role: hidden/kernel, .*\. Use the wiring of the network"
    with pytest.raises(UserError, match=message):
        WIRING.mask(params, "matrix")


def zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)


def hidden(name, feeds=(), readers=(), **options):
    slots = tuple(Feed(Slot(path, -1), zeros) for path in feeds)
    return HiddenLayer(name, 4, slots, tuple(Slot(path, -2) for path in readers), "relu", elementwise=True, **options)


TOWERS = (
    hidden("trunk"),
    hidden("actor_0", branch="actor"),
    hidden("actor_1", branch="actor"),
    hidden("critic", branch="critic"),
)
HEADS = {"policy": Head((), "actor_1"), "value": Head((), "critic")}


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (0, []),
        (1, ["actor_1", "critic"]),
        (2, ["trunk", "actor_0", "actor_1", "critic"]),
        (9, ["trunk", "actor_0", "actor_1", "critic"]),
    ],
)
def test_last_layers_are_those_of_a_branch(number, wanted):
    assert [layer.name for layer in Wiring(TOWERS, {}, HEADS).last_layers(number)] == wanted


@pytest.mark.parametrize(
    ("heads", "wanted"),
    [
        (HEADS, [["trunk", "actor_0", "actor_1"], ["trunk", "critic"]]),
        (
            {"policy": Head((), "sum", branch="actor"), "value": Head((), "trunk")},
            [["trunk", "actor_0", "actor_1"], ["trunk"]],
        ),
        ({}, [["trunk"], ["trunk", "actor_0", "actor_1"], ["trunk", "critic"]]),
    ],
)
def test_chains_end_in_heads(heads, wanted):
    assert [[layer.name for layer in chain] for chain in Wiring(TOWERS, {}, heads).chains()] == wanted


def test_a_network_without_branches_is_one_chain():
    assert Wiring((), {}).chains() == [()]
    assert [len(chain) for chain in Wiring(TOWERS[:1], {}).chains()] == [1]


@pytest.mark.parametrize(
    ("layers", "roles", "wanted"),
    [
        ((), {}, {}),
        ((), {"v": "head"}, {"output": Head(("v",), None)}),
        ((), {"v": "head", "b": "bias"}, {"output": Head(None, None)}),
        ((hidden("h", ("w", "c"), ("v",)),), {"w": "matrix", "c": "bias", "v": "head"}, {"output": Head(("v",), "h")}),
        ((hidden("h", ("w",), ("down",)),), {"w": "matrix", "down": "matrix", "v": "head"}, {}),
        ((hidden("h", (), ("v",)), hidden("g", (), ("v",))), {"v": "head"}, {}),
    ],
)
def test_the_head_is_known_without_a_word_where_it_is_clear(layers, roles, wanted):
    assert Wiring(layers, roles).heads == wanted


def test_biases_of_layers_and_heads_with_one():
    roles = {
        "up": "matrix",
        "gate": "matrix",
        "b": "bias",
        "scale": "norm",
        "v": "head",
        "c": "bias",
        "down": "matrix",
        "d": "bias",
    }
    layers = (hidden("h", ("up", "gate", "b", "scale"), ("down",)),)
    wiring = Wiring(layers, roles, {"output": Head(("v", "c"), "h")}, biases={"down": "d"})
    assert wiring.biases == {"up": "b", "gate": "b", "v": "c", "down": "d"}
    assert wiring.bias_of("down") == "d"
    assert Wiring((), {"v": "head"}).bias_of("v") is None
    unclear = Wiring(layers, roles, {"output": Head(("v", "c"), "h")})
    with pytest.raises(UserError, match=r"the bias 'd', whose kernel .* or give biases={'down': ...}"):
        unclear.bias_of("down")
    two = (hidden("h", ("up", "gate", "b", "d")),)
    assert Wiring(two, roles, {}).biases == {}


def test_what_heads_read():
    towers = Wiring(TOWERS, {}, HEADS)
    assert [towers.head_reads(name) for name in ("policy", "value")] == ["actor_1", "critic"]
    assert Wiring(TOWERS, {}, {"policy": Head((), "trunk"), "value": Head((), "trunk")}).head_reads() == "trunk"
    assert Wiring((), {}).head_reads() is None
    with pytest.raises(UserError, match=r"got a network with the outputs policy, value, which .* Say output='policy'"):
        towers.head_reads()
    with pytest.raises(UserError, match=r"got the output 'polcy'; wanted one of policy, value.*Did you mean 'policy'"):
        towers.head_reads("polcy")
    with pytest.raises(UserError, match=r"got a wiring that does not say what the head reads; .* Give it heads="):
        Wiring(TOWERS[:1], {}).head_reads()


def test_the_leaves_of_the_heads():
    assert Wiring((), {}, {"output": Head(())}).head_leaves == Wiring((), {"w": "matrix"}).head_leaves == frozenset()
    two = {"policy": Head(("v", "b")), "value": Head(("u",))}
    assert Wiring((), {"v": "head", "b": "bias", "u": "head"}, two).head_leaves == {"v", "b", "u"}
    with pytest.raises(
        UserError, match=r"got a wiring that does not say which of the biases b are the head's; .* Give it"
    ):
        _ = Wiring((), {"v": "head", "b": "bias"}).head_leaves
    with pytest.raises(UserError, match="got a wiring that does not say what the head reads"):
        _ = Wiring((hidden("h"),), {"v": "head"}).head_leaves


def test_the_old_name_is_refused():
    message = r"got the head's input 'h'; .* Write heads={'output': Head\(\('v',\), reads='h'\)}, with the head's bias"
    with pytest.raises(UserError, match=message):
        Wiring((), {"v": "head"}, head_input="h")
    with pytest.raises(UserError, match=r"got wiring.head_input; .* Write wiring.head_reads\(\)"):
        _ = Wiring((), {"v": "head"}).head_input


def test_wirings_are_replaced_as_tuples_are():
    wiring = Wiring(TOWERS, {}, HEADS)._replace(layers=TOWERS[:1])
    assert isinstance(wiring, Wiring)
    assert (wiring.heads, wiring.layers) == (HEADS, TOWERS[:1])


@pytest.mark.parametrize(
    ("name", "own", "wanted"),
    [
        ("crelu", None, Traits(outputs=2, silences=True, is_kinked=True)),
        ("swish", None, Traits()),
        ("squared-relu", Traits(silences=True), Traits(silences=True)),
        ("unknown", None, Traits(silences=True)),
    ],
)
def test_traits_follow_the_name_unless_given(name, own, wanted):
    assert HiddenLayer("h", 4, (), (), name, True, activation_traits=own).traits == wanted
