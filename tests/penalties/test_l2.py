import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from one_update import MLP, by_role, params_of, parts
from pliant.errors import UserError
from pliant.networks import vit
from pliant.penalties import l2
from strict_types import unchecked

PARAMS = {"bias": jnp.array([1.0, -1.0]), "kernel": jnp.arange(6.0).reshape(3, 2) - 2.5}


def value_and_gradient(penalty, params=PARAMS):
    state = penalty.init(params)
    return jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(params)


def test_golden():
    """Halved, squared, summed: the gradient is λθ."""
    value, gradient = value_and_gradient(l2(0.5), jnp.array([1.0, -2.0]))
    assert float(value) == 1.25
    np.testing.assert_array_equal(gradient, [0.5, -1.0])


def test_all_leaves_count():
    value, gradient = value_and_gradient(l2(0.1))
    np.testing.assert_allclose(value, 0.05 * (2 + 2 * (2.5**2 + 1.5**2 + 0.5**2)), rtol=1e-6)
    jax.tree.map(lambda found, leaf: np.testing.assert_allclose(found, 0.1 * leaf, rtol=1e-6), gradient, PARAMS)


def test_adam_without_a_task_first_moves_by_a_whole_learning_rate():
    _, gradient = value_and_gradient(l2(1e-3))
    tx = optax.adam(0.1, eps=0.0)
    updates, _ = tx.update(gradient, tx.init(PARAMS))
    jax.tree.map(lambda u, leaf: np.testing.assert_allclose(u, -0.1 * np.sign(leaf), rtol=1e-5), updates, PARAMS)


def test_sgd_multiplies_by_one_minus_rate_times_strength():
    _, gradient = value_and_gradient(l2(0.3))
    updates, _ = optax.sgd(0.1).update(gradient, optax.sgd(0.1).init(PARAMS))
    after = optax.apply_updates(PARAMS, updates)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old * (1 - 0.03), rtol=1e-6), after, PARAMS)


def test_mask():
    value, gradient = value_and_gradient(l2(2.0, mask={"bias": True, "kernel": False}))
    assert float(value) == 2.0
    assert not np.any(gradient["kernel"])


def test_strength_zero_is_exactly_zero():
    value, gradient = value_and_gradient(l2(0.0))
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_bfloat16_is_summed_in_float32():
    """1 + 300 · 2⁻¹⁰: every term would be lost beside 1."""
    params = jnp.array([1.0] + 300 * [2.0**-5], jnp.bfloat16)
    value, gradient = value_and_gradient(l2(2.0), params)
    np.testing.assert_allclose(value, 1 + 300 * 2.0**-10, rtol=1e-6)
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16


def test_negative_strength_is_refused():
    with pytest.raises(UserError, match=r"got strength=-0.1; wanted a finite number ≥ 0. Use 0 to switch"):
        l2(-0.1)


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves; wanted at least one"):
        l2(0.1, mask={"bias": False, "kernel": False}).init(PARAMS)


@pytest.mark.parametrize(("parameters", "spared"), [("all", ()), ("kernels", ("bias", "norm"))])
def test_what_the_method_pulls(parameters, spared):
    penalty, params = parts("l2", strength=0.3, parameters=parameters).penalty, params_of(MLP)
    gradients = jax.grad(lambda params: penalty.loss(params, penalty.init(params), None)[0])(params)
    wanted = by_role(MLP, params)
    for role, leaves in by_role(MLP, gradients).items():
        for gradient, leaf in zip(leaves, wanted[role], strict=True):
            np.testing.assert_allclose(gradient, 0 * leaf if role in spared else 0.3 * leaf, rtol=1e-5)


def test_a_mask_goes_before_the_wiring():
    only_biases = lambda params: MLP.wiring.mask(params, "bias")  # noqa: E731
    penalty, params = l2(0.3, wiring=MLP.wiring, mask=only_biases), params_of(MLP)
    wanted = sum(float((leaf**2).sum()) for leaf in by_role(MLP, params)["bias"])
    np.testing.assert_allclose(penalty.loss(params, (), None)[0], 0.15 * wanted, rtol=1e-5)


def test_unknown_parameters_are_refused():
    with pytest.raises(UserError, match="got parameters='biases'; wanted 'kernels' or 'all'"):
        unchecked(l2)(parameters="biases")


def test_embeddings_are_kernels():
    network = vit((4, 4, 1), 2, width=4, num_heads=1, num_blocks=1, mlp_width=4)
    penalty, params = parts("l2", network).penalty, params_of(network)
    moves = jax.grad(lambda params: penalty.loss(params, penalty.init(params), None)[0])(params)
    assert np.any(moves["patch"]["kernel"])
    assert not np.any(moves["patch"]["bias"])
