from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from pliant.errors import UserError
from pliant.types import ROLES, Fresh, Learned, Method, Slot, Wiring, leaf_path


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


def test_defaults_do_nothing():
    method = Method("adam", "nothing", "none", optimizer=lambda wiring: wiring)
    assert (method.penalty, method.intervention, dict(method.network), method.boundary_aware) == (None, None, {}, False)
    assert Slot("kernel", -1).tiles == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: Learned({}, {}, ()).network, r"Learned\.network; wanted Learned\.statistics, its new name"),
        (lambda: Fresh(None, None).network, r"Fresh\.network; wanted Fresh\.init_network, its new name"),
        (lambda: Fresh(None, None).optimizer, r"Fresh\.optimizer; wanted Fresh\.init_optimizer, its new name"),
    ],
)
def test_old_names_of_fields_are_refused_with_the_new_one(old, new):
    with pytest.raises(UserError, match=new):
        old()
