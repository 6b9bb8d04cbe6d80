import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from pliant.errors import UserError
from pliant.masks import select
from pliant.types import Wiring

PARAMS = {"bias": jnp.ones(3), "kernel": jnp.ones((4, 3)), "scale": jnp.ones(())}


def test_none_selects_by_the_number_of_axes():
    assert select(None, PARAMS) == {"bias": True, "kernel": True, "scale": True}
    assert select(None, PARAMS, min_axes=1) == {"bias": True, "kernel": True, "scale": False}
    assert select(None, PARAMS, min_axes=2) == {"bias": False, "kernel": True, "scale": False}


def test_a_pytree_is_taken_as_it_is():
    mask = {"bias": True, "kernel": False, "scale": False}
    assert select(mask, PARAMS, min_axes=2) == mask


def test_a_function_is_called_with_the_parameters():
    wiring = Wiring((), {"bias": "bias", "kernel": "matrix", "scale": "norm"})
    found = select(lambda params: wiring.mask(params, "bias", "norm"), PARAMS)
    assert found == {"bias": True, "kernel": False, "scale": True}


@pytest.mark.parametrize(
    "mask", [{"bias": False, "kernel": False, "scale": False}, lambda params: jax.tree.map(lambda _: False, params)]
)
def test_nothing_selected_is_refused(mask):
    with pytest.raises(UserError, match="got a mask that selects none of 3 parameter leaves; wanted at least one leaf"):
        select(mask, PARAMS)


def test_no_kernels_is_refused():
    with pytest.raises(UserError, match=r"none of 1 parameter leaves.*Check the mask: True at the leaves"):
        select(None, {"bias": jnp.ones(3)}, min_axes=2)


def test_a_pytree_that_can_be_called_is_a_pytree(key):
    params = eqx.filter(eqx.nn.Linear(3, 2, key=key), eqx.is_array)
    mask = jax.tree.map(lambda leaf: leaf.ndim == 2, params)
    assert callable(mask)
    assert jax.tree.leaves(select(mask, params)) == [True, False]
