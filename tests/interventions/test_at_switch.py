import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions._at_switch import at_switch, drawn, norm_moved
from pliant.keys import seed_keys
from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp
from pliant.training import init_state, switch_task
from pliant.types import Fresh, Learned, leaf_path

START = Learned({"w": jnp.array([3.0, 4.0])}, {}, ())
FRESH = Fresh(lambda key: ({"w": jax.random.normal(key, (2,))}, {"mean": jnp.zeros(1)}), lambda params: ())


def _zeroed(key, learned, state, fresh):
    return learned._replace(params=jax.tree.map(jnp.zeros_like, learned.params))


@pytest.mark.parametrize(
    ("every_tasks", "acts"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (3, [3, 6]), (0, []), (jnp.int32(2), [2, 4, 6])]
)
def test_it_acts_at_every_nth_switch(every_tasks, acts):
    switch = jax.jit(at_switch(_zeroed, every_tasks), static_argnums=4)
    for index in range(1, 7):
        after, state, info = switch(jax.random.key(0), index, START, (), FRESH)
        assert float(info["norm_moved"]) == (5.0 if index in acts else 0.0)
        np.testing.assert_array_equal(after.params["w"], [0.0, 0.0] if index in acts else [3.0, 4.0])
        assert state == ()


def test_an_unbatched_index_keeps_a_branch_under_vmap():
    @jax.jit
    def switched(params, index, every_tasks):
        def one(weights):
            learned = START._replace(params={"w": weights})
            return at_switch(_zeroed, every_tasks)(jax.random.key(0), index, learned, (), FRESH)[0].params["w"]

        return jax.vmap(one)(params)

    assert "stablehlo.case" in switched.lower(jnp.ones((3, 2)), 1, 1).as_text()
    assert not switched(jnp.ones((3, 2)), 1, 1).any()
    assert switched(jnp.ones((3, 2)), 1, 2).all()


def test_draws_have_the_types_of_the_parameters():
    params, network = drawn(jax.random.key(0), {"w": jnp.zeros(2, jnp.bfloat16)}, FRESH)
    assert params["w"].dtype == jnp.bfloat16
    assert network.keys() == {"mean"}


def test_norms_are_taken_in_float32():
    narrow = {"w": jnp.full(3, 256.0, jnp.bfloat16)}
    found = norm_moved(narrow, {"w": jnp.full(3, 258.0, jnp.bfloat16)})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 2 * 3**0.5, rtol=1e-6)


def test_a_negative_period_is_refused():
    with pytest.raises(UserError, match=r"got every_tasks=-1; wanted a finite number ≥ 0\. Use 1 for every switch"):
        at_switch(_zeroed, -1)


NETWORK = mlp((3,), 2, widths=(4, 4), norm="layer")
HEAD = {"head/kernel", "head/bias"}
LAST = HEAD | {"dense_1/kernel", "dense_1/bias", "norm_1/scale", "norm_1/bias"}
ALL = LAST | {"dense_0/kernel", "dense_0/bias", "norm_0/scale", "norm_0/bias"}
NORMS = {f"norm_{i}/{name}" for i in (0, 1) for name in ("scale", "bias")}
TOUCHED = {
    "full-reset": ALL,
    "reset-distill": ALL,
    "head-reset": HEAD,
    "last-k-reset": LAST,
    "optimizer-reset": set(),
    "shrink-perturb": ALL - NORMS,
}


def _switched(name, **values):
    method = METHODS[name]
    parts = build(method, NETWORK.wiring, defaults(method) | values)
    keys = seed_keys(0)
    state = init_state(NETWORK, parts, keys.network)
    state = state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    return state, switch_task(NETWORK, parts, state, keys, 1)[0]


def _changed(before, after):
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after)), strict=True)
    return {leaf_path(path) for (path, old), (_, new) in pairs if not np.array_equal(old, new)}


@pytest.mark.parametrize("name", TOUCHED)
def test_what_a_switch_touches(name):
    before, after = _switched(name)
    assert _changed(before.params, after.params) == TOUCHED[name]
    before, after = _switched(name, **METHODS[name].off)
    assert not _changed(before.params, after.params)
