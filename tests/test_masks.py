import functools

import equinox as eqx
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from pliant.errors import UserError
from pliant.masks import select
from pliant.types import Wiring

PARAMS = {"bias": np.ones(3), "kernel": np.ones((4, 3)), "scale": np.ones(())}
LAYERS = {"hidden": {"bias": np.ones(3), "kernel": np.ones((4, 3))}, "head": {"kernel": np.ones((3, 1))}}
HIDDEN = {"hidden": {"bias": False, "kernel": True}, "head": {"kernel": False}}


def kernels_of(params):
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)


def test_none_selects_by_the_number_of_axes():
    assert select(None, PARAMS) == {"bias": True, "kernel": True, "scale": True}
    assert select(None, PARAMS, min_axes=1) == {"bias": True, "kernel": True, "scale": False}
    assert select(None, PARAMS, min_axes=2) == {"bias": False, "kernel": True, "scale": False}


def test_a_pytree_is_taken_as_it_is():
    mask = {"bias": True, "kernel": False, "scale": False}
    assert select(mask, PARAMS) == mask


@pytest.mark.parametrize("true", [True, np.True_, np.array(True), jnp.array(True)])
def test_a_prefix_selects_what_is_below(true):
    mask = {"hidden": true, "head": np.False_}
    assert select(mask, LAYERS) == {"hidden": {"bias": True, "kernel": True}, "head": {"kernel": False}}
    assert select(mask, LAYERS, min_axes=2) == HIDDEN
    assert select(true, LAYERS, min_axes=2) == select(None, LAYERS, min_axes=2)


def test_a_function_is_called_with_the_parameters():
    wiring = Wiring((), {"bias": "bias", "kernel": "matrix", "scale": "norm"})
    found = select(lambda params: wiring.mask(params, "bias", "norm"), PARAMS)
    assert found == {"bias": True, "kernel": False, "scale": True}


class Chooser:
    def __call__(self, params):
        return kernels_of(params)


class Module(eqx.Module):
    threshold: jax.Array

    def __call__(self, params):
        return kernels_of(params)


FUNCTIONS = {
    "function": kernels_of,
    "prefix": lambda params: dict.fromkeys(params, True) | {"bias": False, "scale": False},
    "jitted": jax.jit(kernels_of),
    "partial": functools.partial(lambda ndim, params: jax.tree.map(lambda leaf: leaf.ndim == ndim, params), 2),
    "pytree": jax.tree_util.Partial(lambda ndim, params: jax.tree.map(lambda leaf: leaf.ndim == ndim, params), 2),
    "pytree of a boolean": jax.tree_util.Partial(lambda flag, params: kernels_of(params), True),
    "object": Chooser(),
    "module": Module(np.ones(2)),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_all_kinds_also_inside_compiled_programs(kind):
    wanted = {"bias": False, "kernel": True, "scale": False}
    assert select(FUNCTIONS[kind], PARAMS) == wanted

    def traced(params):
        assert select(FUNCTIONS[kind], params) == wanted
        return params

    jax.eval_shape(traced, PARAMS)


def test_a_compiled_function_of_the_numbers_is_refused():
    function = jax.jit(lambda params: jax.tree.map(lambda leaf: (leaf > 0.5).all(), params))
    with pytest.raises(UserError, match="got a mask that depends on the numbers at 'bias'; wanted a function of sh"):
        select(function, PARAMS)


@pytest.mark.parametrize(
    "mask", [{"bias": False, "kernel": False, "scale": False}, lambda params: jax.tree.map(lambda _: False, params)]
)
def test_nothing_selected_is_refused(mask):
    with pytest.raises(UserError, match="got a mask that selects none of 3 parameter leaves; wanted at least one leaf"):
        select(mask, PARAMS)


def test_no_kernels_is_refused():
    with pytest.raises(UserError, match=r"none of 1 parameter leaves.*Check the mask: True at the leaves"):
        select(None, {"bias": np.ones(3)}, min_axes=2)


def test_a_vector_that_is_named_is_refused():
    with pytest.raises(UserError, match=r"of shape \(3,\); wanted a dense .* the mask is True at 'bias'"):
        select({"bias": True, "kernel": True, "scale": False}, PARAMS, min_axes=2)


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        ({"hidden": True}, "without an entry for 'head/kernel'"),
        ({"hidden": {"kernel": True}, "head": False}, "without an entry for 'hidden/bias'"),
        ({"hidden": True, "head": None}, "without an entry for 'head/kernel'"),
        ({"hidden": True, "head": True, "tail": False}, "with an entry for 'tail', which"),
        ({"hidden": {"kernel": {"deep": True}, "bias": True}, "head": True}, "without an entry for 'hidden/kernel'"),
        (lambda params: None, "without an entry for 'head/kernel'"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, what):
    with pytest.raises(UserError, match=f"got a mask {what}"):
        select(mask, LAYERS)


@pytest.mark.parametrize("leaf", [1, 1.0, "yes", np.ones(2, bool), np.array(1)])
def test_leaves_other_than_booleans_are_refused(leaf):
    with pytest.raises(UserError, match=r"got a mask with .* at 'head'; wanted True or False at every leaf"):
        select({"hidden": True, "head": leaf}, LAYERS)


def test_containers_may_be_of_other_types():
    mask = {"hidden": True, "head": {"kernel": False}}
    frozen = select(mask, flax.core.freeze(LAYERS), min_axes=2)
    assert isinstance(frozen, flax.core.FrozenDict)
    assert flax.core.unfreeze(frozen) == HIDDEN
    assert select(flax.core.freeze(mask), LAYERS, min_axes=2) == HIDDEN
    assert jax.tree.leaves(select([True, False], (np.ones(2), np.ones(3)))) == [True, False]


def test_flax_states_before_and_after_their_variables_are_opened():
    """What `nnx.Optimizer` hands to `init` has variables, what it hands to `update` has none."""
    closed = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    opened = nnx.as_pure(closed)
    masks = [jax.tree.map(lambda leaf: leaf.ndim == 2, closed), {"bias": False, "kernel": True}]
    for mask in masks:
        for params in (closed, opened):
            assert jax.tree.leaves(select(mask, params, min_axes=2)) == [False, True]


def test_a_pytree_that_can_be_called_is_a_pytree(key):
    params = eqx.filter(eqx.nn.Linear(3, 2, key=key), eqx.is_array)
    mask = jax.tree.map(lambda leaf: leaf.ndim == 2, params)
    assert callable(mask)
    assert jax.tree.leaves(select(mask, params)) == [True, False]
    with pytest.raises(UserError, match="got a mask with 1 at 'weight'"):
        select(jax.tree.map(lambda leaf: 1, params), params)


def test_masks_made_of_whole_models_fit_their_arrays(key):
    model = eqx.nn.MLP(3, 2, width_size=4, depth=1, key=key)
    mask = jax.tree.map(lambda leaf: eqx.is_array(leaf) and leaf.ndim == 2, model)
    assert jax.tree.leaves(select(mask, eqx.filter(model, eqx.is_array))) == [True, False, True, False]


def test_leaves_that_are_not_there_are_left_out():
    params = {"hidden": {"bias": None, "kernel": np.ones((4, 3))}, "head": optax.MaskedNode()}
    wanted = {"hidden": {"bias": None, "kernel": True}, "head": optax.MaskedNode()}
    for mask in (None, True, {"hidden": True, "head": {"kernel": True}}, HIDDEN):
        assert select(mask, params, min_axes=2) == wanted


def test_what_has_no_numbers_to_change_is_not_selected():
    params = {
        "empty": np.ones((0, 3)),
        "ids": np.ones((2, 3), int),
        "key": jax.random.key(0),
        "kernel": np.ones((2, 3)),
    }
    assert select(None, params) == {"empty": False, "ids": False, "key": False, "kernel": True}
    assert select(True, {"empty": np.ones((0, 3))}) == {"empty": False}


def test_biases_and_scales_with_several_axes_are_not_kernels():
    attention = {"query": {"bias": np.ones((2, 4)), "kernel": np.ones((8, 2, 4))}}
    norm = {"norm": {"bias": np.ones((2, 4)), "scale": np.ones((2, 4))}}
    wanted = {"query": {"bias": False, "kernel": True}, "norm": {"bias": False, "scale": False}}
    assert select(None, attention | norm, min_axes=2) == wanted
