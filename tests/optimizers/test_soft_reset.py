import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.optimizers import soft_reset
from strict_types import unchecked

START = {"kernel": jnp.array([[1.0, -2.0], [0.3, 0.7]]), "scale": jnp.array([1.0, 1.0])}
NOW = {"kernel": jnp.array([[3.0, 0.1], [-0.9, 2.0]]), "scale": jnp.array([2.0, 0.5])}
GRADIENT = {"kernel": jnp.array([[0.7, -1.1], [0.0, 5.0]]), "scale": jnp.array([-0.2, 0.3])}


def _update(tx, params=NOW, state=None):
    return tx.update(GRADIENT, state or tx.init(START), params)


def test_gamma_one_is_sgd_to_the_bit():
    updates, _ = _update(soft_reset(0.03, gamma=1.0, spread=0.1))
    wanted, _ = optax.sgd(0.03).update(GRADIENT, optax.sgd(0.03).init(START), NOW)
    jax.tree.map(np.testing.assert_array_equal, updates, wanted)


@pytest.mark.parametrize(("toward", "share"), [("start", 1.0), ("zero", 0.0)])
def test_gamma_zero_is_the_start_and_one_large_step(toward, share):
    updates, _ = _update(soft_reset(0.1, gamma=0.0, spread=0.5, toward=toward))
    moved = optax.apply_updates(NOW, updates)
    for name, leaf in moved.items():
        np.testing.assert_allclose(leaf, share * START[name] - 0.1 * 4 * GRADIENT[name], rtol=1e-5, atol=1e-6)


def test_golden():
    """γ = ½, s = ½: halfway back, and a step of η (¼ + ¾ · 4)."""
    updates, state = _update(soft_reset(0.1, gamma=0.5, spread=0.5))
    wanted = -0.5 * (NOW["kernel"] - START["kernel"]) - 0.325 * GRADIENT["kernel"]
    np.testing.assert_allclose(updates["kernel"], wanted, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state.start, START)
    assert int(state.count) == 1
    drifts = [0.5 * (NOW[name] - START[name]) for name in START]
    np.testing.assert_allclose(state.info["drift_norm"], sum((drift**2).sum() for drift in drifts) ** 0.5, rtol=1e-6)


def test_without_a_gradient_the_distance_shrinks_by_gamma():
    tx = soft_reset(0.1, gamma=0.9)
    state, params = tx.init(START), NOW
    for _ in range(5):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, NOW), state, params)
        params = optax.apply_updates(params, updates)
    for name, leaf in params.items():
        np.testing.assert_allclose(leaf - START[name], 0.9**5 * (NOW[name] - START[name]), rtol=1e-4, atol=1e-6)


def test_what_the_mask_leaves_out_gets_sgd():
    updates, _ = _update(soft_reset(0.1, gamma=0.5, mask={"kernel": True, "scale": False}))
    np.testing.assert_array_equal(updates["scale"], -0.1 * GRADIENT["scale"])
    assert np.any(np.asarray(updates["kernel"] != -0.1 * GRADIENT["kernel"]))


def test_it_follows_a_schedule():
    tx = soft_reset(optax.linear_schedule(0.1, 0.0, 2), gamma=1.0)
    first, state = _update(tx)
    second, _ = _update(tx, state=state)
    np.testing.assert_allclose(second["kernel"], first["kernel"] / 2, rtol=1e-6)


def test_extra_arguments_and_narrow_types():
    tx = soft_reset(jnp.float32(0.1), gamma=jnp.float32(0.9))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (GRADIENT, NOW))
    updates, _ = tx.update(narrow[0], tx.init(narrow[1]), narrow[1], step=3, key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def test_memory_without_a_start():
    assert soft_reset(0.1, toward="zero").init(START).start == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "got learning_rate=-1.0; wanted a finite number ≥ 0"),
        ({"gamma": 1.5}, r"got gamma=1.5; wanted a number in \[0, 1\]\. Use 1 for plain SGD"),
        ({"spread": 0.0}, r"got spread=0.0; wanted a number in \[1e-06, 1\]\. Use 1 to leave the learning rate"),
        ({"toward": "init"}, "got toward='init'; wanted 'start' or 'zero'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(soft_reset)(**({"learning_rate": 0.1} | options))


def test_parameters_are_needed():
    tx = soft_reset(0.1)
    with pytest.raises(UserError, match=r"got update\(gradients, state\); wanted update\(gradients, state, params\)"):
        tx.update(GRADIENT, tx.init(START))
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        soft_reset(0.1, mask={"kernel": False, "scale": False}).init(START)


def test_trees_with_nothing_at_a_place():
    """As Equinox has them."""
    params = {"kernel": NOW["kernel"], "none": None}
    tx = soft_reset(0.1, gamma=0.5)
    updates, state = tx.update({"kernel": GRADIENT["kernel"], "none": None}, tx.init(params), params)
    assert updates["none"] is None
    assert float(state.info["drift_norm"]) == 0.0  # they are at the start


def test_drift_of_bfloat16_is_computed_in_float32():
    """In bfloat16 γ itself would be 1, and nothing would drift."""
    tx = soft_reset(0.0, gamma=0.999)
    state = tx.init(jnp.ones(1, jnp.bfloat16))
    updates, state = tx.update(jnp.zeros(1, jnp.bfloat16), state, jnp.full(1, 256.0, jnp.bfloat16))
    np.testing.assert_allclose(state.info["drift_norm"], 0.255, rtol=1e-5)
    np.testing.assert_allclose(np.float32(updates), -0.255, rtol=4e-3)
