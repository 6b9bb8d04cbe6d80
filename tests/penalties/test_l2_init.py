import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import MLP, by_role, params_of, parts
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.penalties import l2_init
from strict_types import unchecked

START = {"bias": jnp.array([1.0, -1.0]), "kernel": jnp.arange(6.0).reshape(3, 2)}
NOW = jax.tree.map(lambda leaf: leaf + 0.5, START)


def value_and_gradient(penalty, start, now):
    state = penalty.init(start)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(now)


def test_golden():
    """The squared norm, summed: not the norm, not halved, not averaged."""
    value, gradient = value_and_gradient(l2_init(0.5), jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]))
    assert float(value) == 2.5
    np.testing.assert_array_equal(gradient, [1.0, 2.0])


def test_golden_of_the_l1_norm():
    value, gradient = value_and_gradient(
        l2_init(0.5, norm="l1"), jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, -2.0, 3.0])
    )
    assert float(value) == 2.5
    np.testing.assert_array_equal(gradient, [0.5, -0.5, 0.0])


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_nothing_at_the_start(norm):
    value, gradient = value_and_gradient(l2_init(1.0, norm=norm), START, START)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_all_leaves_count():
    value, gradient = value_and_gradient(l2_init(0.1), START, NOW)
    np.testing.assert_allclose(value, 0.1 * 8 * 0.25, rtol=1e-6)
    assert all(np.all(np.asarray(leaf) == np.float32(0.1)) for leaf in jax.tree.leaves(gradient))


def test_sgd_shrinks_the_distance_by_one_minus_two_rates():
    rate, strength = 0.1, 0.3
    _, gradient = value_and_gradient(l2_init(strength), START, NOW)
    updates, _ = optax.sgd(rate).update(gradient, optax.sgd(rate).init(NOW))
    moved = optax.apply_updates(NOW, updates)
    for leaf, start in zip(jax.tree.leaves(moved), jax.tree.leaves(START), strict=True):
        np.testing.assert_allclose(leaf - start, 0.5 * (1 - 2 * rate * strength) * np.ones(leaf.shape), rtol=1e-5)


def test_bfloat16_is_summed_in_float32():
    """1 + 300 · 2⁻¹⁰: every term would be lost beside 1."""
    now = jnp.array([1.0] + 300 * [2.0**-5], jnp.bfloat16)
    value, gradient = value_and_gradient(l2_init(1.0), jnp.zeros_like(now), now)
    np.testing.assert_allclose(value, 1 + 300 * 2.0**-10, rtol=1e-6)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_strength_zero_is_exactly_zero(norm):
    value, gradient = value_and_gradient(l2_init(0.0, norm=norm), START, NOW)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_state_is_a_copy_that_stays():
    params = jax.tree.map(jnp.copy, START)
    penalty = l2_init(0.1)
    state = penalty.init(params)
    jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)(params)
    value, after = penalty.loss(NOW, state, None)
    jax.tree.map(np.testing.assert_array_equal, after, START)
    assert float(value) > 0


def test_mask_leaves_norms_out(key):
    network = mlp((3,), 2, widths=(4,), norm="layer")
    start, _ = network.init(key)
    now = jax.tree.map(lambda leaf: leaf + 1.0, start)
    penalty = l2_init(1.0, mask=lambda params: network.wiring.mask(params, "matrix", "head", "bias"))
    value, gradient = value_and_gradient(penalty, start, now)
    np.testing.assert_allclose(value, 3 * 4 + 4 + 4 * 2 + 2, rtol=1e-6)
    assert not np.any(gradient["norm_0"]["scale"])
    np.testing.assert_allclose(gradient["head"]["kernel"], 2.0, rtol=1e-6)


def test_negative_strength_is_refused():
    with pytest.raises(UserError, match=r"got strength=-0.1; wanted a finite number ≥ 0. Use 0 to switch"):
        l2_init(-0.1)


def test_unknown_norm_is_refused():
    with pytest.raises(UserError, match="got norm='linf'; wanted 'l2' or 'l1'"):
        unchecked(l2_init)(norm="linf")


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves; wanted at least one"):
        l2_init(0.1, mask={"bias": False, "kernel": False}).init(START)


@pytest.mark.parametrize("name", ["l2-init", "wasserstein-init"])
def test_methods_leave_norms_out(name):
    penalty, start = parts(name, strength=1.0).penalty, params_of(MLP)
    state, now = penalty.init(start), jax.tree.map(lambda leaf: leaf + 0.5, start)
    gradients = by_role(MLP, jax.grad(lambda params: penalty.loss(params, state, None)[0])(now))
    assert {role for role, leaves in gradients.items() if any(map(np.any, leaves))} == {"matrix", "head", "bias"}
