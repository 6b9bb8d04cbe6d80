import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import MLP, by_role, params_of
from pliant.errors import UserError
from pliant.interventions import clear_moments, pull_to_init
from pliant.methods import METHODS, build, defaults, find
from pliant.types import Learned

START = {"bias": jnp.array([1.0, -1.0]), "kernel": jnp.arange(6.0).reshape(3, 2)}
NOW = jax.tree.map(lambda leaf: leaf + 0.5, START)
KEY = jax.random.key(0)


def pulled(method, params, *, start=START, opt_state=()):
    state = method.init(Learned(start, {}, ()))
    return method.update(KEY, 1, Learned(params, {}, opt_state), state, None)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("strength", [0.3, jnp.float32(0.3)])
def test_the_distance_shrinks_by_one_minus_two_rates(strength):
    learned, _, info = pulled(pull_to_init(learning_rate=0.1, strength=strength), NOW)
    for leaf, start in zip(jax.tree.leaves(learned.params), jax.tree.leaves(START), strict=True):
        np.testing.assert_allclose(leaf - start, np.full(leaf.shape, 0.5 * (1 - 2 * 0.1 * 0.3)), rtol=1e-5)
    np.testing.assert_allclose(info["norm_moved"], 0.06 * 0.5 * 8**0.5, rtol=1e-5)


def test_nothing_at_the_start():
    learned, _, info = pulled(pull_to_init(learning_rate=0.1), START)
    same(learned.params, START)
    assert float(info["norm_moved"]) == 0.0


def test_never_beyond_the_start():
    learned, _, _ = pulled(pull_to_init(learning_rate=1.0, strength=1e6), NOW)
    same(learned.params, START)


@pytest.mark.parametrize("off", [{"learning_rate": 0.0}, {"learning_rate": 0.1, "strength": 0.0}])
def test_strength_zero_leaves_every_bit(off):
    odd = {"bias": jnp.array([-0.0, 1e-30]), "kernel": 1e30 * START["kernel"]}
    learned, _, info = pulled(pull_to_init(**off), odd)
    same(jax.tree.map(jnp.signbit, learned.params), jax.tree.map(jnp.signbit, odd))
    same(learned.params, odd)
    assert float(info["norm_moved"]) == 0.0


def test_mask():
    learned, _, info = pulled(pull_to_init(learning_rate=0.5, mask={"bias": True, "kernel": False}, strength=0.5), NOW)
    same(learned.params["kernel"], NOW["kernel"])
    np.testing.assert_allclose(learned.params["bias"], START["bias"] + 0.25)
    np.testing.assert_allclose(info["norm_moved"], 0.25 * 2**0.5, rtol=1e-6)


def test_the_start_is_a_copy_that_stays():
    """Also when the optimizer's state is made anew, as at a switch of tasks: the anchor is no part of it."""
    method, tx = pull_to_init(learning_rate=0.1), optax.adam(0.1)
    params = jax.tree.map(jnp.copy, START)
    state = method.init(Learned(params, {}, tx.init(params)))
    jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)(params)
    learned, after, _ = method.update(KEY, 1, Learned(NOW, {}, tx.init(NOW)), state, None)
    same(after, START)
    assert not np.array_equal(learned.params["bias"], NOW["bias"])


def test_moments_are_left_alone():
    tx = optax.adam(0.1)
    opt_state = tx.update(NOW, tx.init(NOW))[1]
    learned, state, _ = pulled(pull_to_init(learning_rate=0.1), NOW, opt_state=opt_state)
    same(learned.optimizer, opt_state)
    everywhere = {"bias": jnp.ones(2, bool), "kernel": jnp.ones((3, 2), bool)}
    same(clear_moments(state, everywhere), START)


def test_keeps_bfloat16():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (START, NOW))
    learned, _, info = pulled(pull_to_init(learning_rate=0.5, strength=1.0), narrow[1], start=narrow[0])
    same(learned.params, narrow[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(learned.params)} == {jnp.dtype(jnp.bfloat16)}
    assert info["norm_moved"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.1, "strength": -0.1}, r"got strength=-0.1; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"learning_rate": -0.1}, r"got learning_rate=-0.1; wanted a finite number ≥ 0. Use the optimizer's"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        pull_to_init(**options)


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        pulled(pull_to_init(learning_rate=0.1, mask={"bias": False, "kernel": False}), NOW)


def test_the_method_leaves_norms_out_and_follows_the_learning_rate():
    method, start = METHODS["l2-init-decoupled"], params_of(MLP)
    values = defaults(method, 0.1) | {"strength": 1.0}
    now = jax.tree.map(lambda leaf: leaf + 0.5, start)
    for rate, left in ((None, 0.4), (0.5, 0.45)):  # of 0.5, after a share of 2 · 0.1, or of half as much
        learned, _, _ = pulled(build(method, MLP.wiring, values, rate=rate).intervention, now, start=start)
        distances = by_role(MLP, jax.tree.map(jnp.subtract, learned.params, start))
        for role, leaves in distances.items():
            for leaf in leaves:
                np.testing.assert_allclose(leaf, np.full(leaf.shape, 0.5 if role == "norm" else left), rtol=1e-5)


def test_the_method_goes_behind_any_optimizer():
    values = defaults(find("sgd+l2-init-decoupled"), 0.1)
    assert (values["learning_rate"], values["momentum"], "l2_init_decoupled_learning_rate" in values) == (
        0.1,
        0.0,
        False,
    )
