import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.isometry import gram_deviation, gram_deviation_gradient
from pliant.optimizers import add_isometry_step
from pliant.penalties import gram

PARAMS = {"bias": jnp.ones(3), "head": 2 * jnp.ones((3, 2)), "kernel": jnp.diag(jnp.array([2.0, 1.0, 0.5]))}
ONLY_KERNEL = {"bias": False, "head": False, "kernel": True}


def value_and_gradient(penalty, params=PARAMS):
    state = penalty.init(params)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(params)


def test_golden():
    value, gradient = value_and_gradient(gram(0.1, mask=ONLY_KERNEL))
    np.testing.assert_allclose(value, 0.95625, rtol=1e-6)
    np.testing.assert_allclose(gradient["kernel"], 0.1 * np.diag([24.0, 0.0, -1.5]), rtol=1e-6, atol=1e-7)
    assert not np.any(gradient["head"])
    assert not np.any(gradient["bias"])


def test_kernels_are_summed_and_vectors_left_out_by_default():
    value, gradient = value_and_gradient(gram(0.5))
    wanted = 0.5 * (gram_deviation(PARAMS["kernel"]) + gram_deviation(PARAMS["head"]))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    assert np.all(np.asarray(gradient["head"]) != 0)
    assert not np.any(gradient["bias"])


@pytest.mark.parametrize("rectangular", ["none", "fan"])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (2, 2, 1, 3)])
def test_gradient_is_the_decoupled_one(key, shape, rectangular):
    kernel = jax.random.normal(key, shape) / 2
    _, found = value_and_gradient(gram(0.2, gain=1.3, rectangular=rectangular), kernel)
    wanted, _ = gram_deviation_gradient(kernel, 1.3, rectangular)
    np.testing.assert_allclose(found, 0.2 * wanted, rtol=1e-5, atol=1e-6)


def test_sgd_on_the_penalty_is_the_isometry_step(key):
    kernel = jax.random.normal(key, (4, 3)) / 2
    _, gradient = value_and_gradient(gram(0.1), kernel)
    coupled, _ = optax.sgd(1e-2).update(gradient, optax.sgd(1e-2).init(kernel))
    tx = add_isometry_step(1e-3, every=1)
    decoupled, _ = tx.update(jnp.zeros_like(kernel), tx.init(kernel), kernel)
    np.testing.assert_allclose(coupled, decoupled, rtol=1e-5, atol=1e-8)


def test_strength_zero_is_exactly_zero():
    value, gradient = value_and_gradient(gram(0.0))
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_state_is_handed_through():
    penalty = gram(0.1)
    value, state = penalty.loss(PARAMS, penalty.init(PARAMS), None)
    assert state == ()
    assert value.shape == ()
    assert value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Use 1 for isometry"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        gram(**options)


def test_unknown_rectangular_is_refused_when_built(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=r"got rectangular='Fan'; wanted 'none' or 'fan'\. Leave it out"):
        gram(0.1, rectangular="Fan")


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 3 parameter leaves"):
        gram(0.1, mask=jax.tree.map(lambda _: False, PARAMS)).init(PARAMS)
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        gram(0.1).init({"bias": jnp.ones(3)})
