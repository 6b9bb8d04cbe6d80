import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from one_update import parts
from pliant import diagnostics
from pliant.errors import UserError
from pliant.networks import mlp, orthogonal, side_by_side, with_heads
from pliant.penalties import effective_rank
from pliant.types import Forward, Wiring

PARAMS = {"bias": jnp.array([5.0, 5.0]), "kernel": jnp.array([[1.0, 2.0], [-2.0, 4.0]])}


def forward(**features):
    return Forward(None, None, features, None, None, None)


@jax.jit
def rank_and_gradient(features):
    """The effective rank, and its gradient."""
    penalty = effective_rank(1.0, l2_strength=0.0)
    value, gradient = jax.value_and_grad(lambda x: penalty.loss(PARAMS, (), forward(last=x))[0])(features)
    return -value, -gradient


def by_svd(matrix):
    """The same in float64, with the derivative of the definition: −erank (ln p + H) / Σσ along u vᵀ."""
    u, sigma, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    present = sigma > 1e-9 * sigma[0]
    u, sigma, v = u[:, present], sigma[present], v[present]
    p = sigma / sigma.sum()
    entropy = -(p * np.log(p)).sum()
    return np.exp(entropy), np.exp(entropy) * (u * (-(np.log(p) + entropy) / sigma.sum())) @ v


def test_golden():
    """(3, 1) has p = (¾, ¼); the mean is over two layers, and half of μ‖θ‖² over the chosen weights."""
    features = forward(first=jnp.eye(4), second=jnp.eye(4), third=jnp.diag(jnp.array([3.0, 1.0])))
    penalty = effective_rank(0.5, l2_strength=0.1, mask={"bias": False, "kernel": True})
    assert penalty.init(PARAMS) == ()
    value, state = penalty.loss(PARAMS, (), features)
    np.testing.assert_allclose(value, 0.05 * 25 - 0.5 * (4 + 1.7547654) / 2, rtol=1e-5)
    assert state == ()
    gradient = jax.grad(lambda params: penalty.loss(params, (), features)[0])(PARAMS)
    np.testing.assert_allclose(gradient["kernel"], 0.1 * PARAMS["kernel"], rtol=1e-6)
    assert not np.any(gradient["bias"])


@pytest.mark.parametrize("shape", [(32, 8), (8, 32), (12, 12), (1, 5), (4, 3, 3, 6)])
def test_it_is_what_the_diagnostic_measures(key, shape):
    features = jax.nn.relu(jax.random.normal(key, shape) + 0.3)
    value, _ = rank_and_gradient(features)
    np.testing.assert_allclose(
        value, diagnostics.effective_rank(np.asarray(features).reshape(-1, shape[-1])), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_gradient_by_finite_differences(key, shape):
    features = np.asarray(jax.random.normal(key, shape), np.float64)
    _, gradient = rank_and_gradient(jnp.asarray(features, jnp.float32))
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-5
        slope = diagnostics.effective_rank(features + step) - diagnostics.effective_rank(features - step)
        np.testing.assert_allclose(gradient[index], slope / 2e-5, atol=2e-5)


@pytest.mark.parametrize("least", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_gradient_of_ill_conditioned_features(key, shape, least):
    """A Gram matrix would lose singular values below 3·10⁻⁴ of the largest."""
    left, right = jax.random.split(key)
    u, v = orthogonal(1.0)(left, (shape[0], 12)), orthogonal(1.0)(right, (shape[1], 12))
    features = (u * jnp.geomspace(1.0, least, 12)[None]) @ v.T
    value, gradient = rank_and_gradient(features)
    wanted, slope = by_svd(features)
    np.testing.assert_allclose(value, wanted, rtol=1e-4)
    np.testing.assert_allclose(gradient, slope, atol=2e-3 * np.abs(slope).max())


@pytest.mark.parametrize("features", [jnp.eye(5), 3.0 * jnp.eye(5, 7), jnp.diag(jnp.array([2.0, 2.0, 1.0, 1.0]))])
def test_gradient_at_equal_singular_values(features):
    """Where the derivative of a singular vector is infinite."""
    value, gradient = rank_and_gradient(features)
    wanted, slope = by_svd(features)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 6), (6, 16), (300, 20)])
def test_gradient_with_dead_units_and_equal_examples(key, shape):
    """Directions that are not there have no slope, where that of the logarithm is infinite."""
    features = jax.random.normal(key, shape).at[:, :3].set(0.0).at[0].set(0.0).at[1].set(0.0)
    value, gradient = rank_and_gradient(features)
    wanted, slope = by_svd(features)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-4)


def test_features_of_zeros_have_rank_and_gradient_zero():
    value, gradient = rank_and_gradient(jnp.zeros((4, 3)))
    assert float(value) == 0.0
    assert not np.any(gradient)


def test_what_is_not_a_number_is_not_hidden():
    value, _ = rank_and_gradient(jnp.full((4, 3), jnp.nan))
    assert np.isnan(value)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_does_not_matter(key, factor):
    features = jax.random.normal(key, (9, 5))
    value, gradient = rank_and_gradient(features)
    scaled, scaled_gradient = rank_and_gradient(factor * features)
    np.testing.assert_allclose(scaled, value, rtol=1e-5)
    np.testing.assert_allclose(factor * scaled_gradient, gradient, rtol=1e-3, atol=1e-5)


def test_ascent_revives_a_rank(key):
    features = jax.random.normal(key, (16, 1)) + 0.01 * jax.random.normal(key, (16, 6))
    before, _ = rank_and_gradient(features)
    after = jax.lax.fori_loop(0, 200, lambda _, x: x + 0.05 * rank_and_gradient(x)[1], features)
    assert float(before) < 1.3
    assert float(rank_and_gradient(after)[0]) > 4


def test_layers_are_the_last_two_in_order_or_those_named(key):
    ones = jnp.ones((3, 3))
    features = forward(dense_9=jnp.eye(3), dense_10=ones, dense_11=ones)
    penalty = effective_rank(1.0, l2_strength=0.0)
    np.testing.assert_allclose(penalty.loss(PARAMS, (), features)[0], -1.0, rtol=1e-6)
    named = effective_rank(1.0, l2_strength=0.0, layers=("dense_9", "dense_11"))
    np.testing.assert_allclose(named.loss(PARAMS, (), features)[0], -2.0, rtol=1e-6)
    with pytest.raises(UserError, match="got the layer 'dense_8'; wanted one of dense_10, dense_11, dense_9"):
        effective_rank(layers=("dense_8",)).loss(PARAMS, (), features)


def test_the_method_is_about_what_the_head_reads_and_the_layer_before(key):
    network = mlp((3,), 2, widths=(5,) * 12)
    features = {f"dense_{i}": jax.nn.relu(jax.random.normal(jax.random.fold_in(key, i), (16, 5))) for i in range(12)}
    params = {"head": {"bias": jnp.ones(2), "kernel": jnp.ones((5, 2))}}
    penalty = effective_rank(1.0, l2_strength=0.0, wiring=network.wiring)
    ranks = [diagnostics.effective_rank(np.asarray(features[name])) for name in ("dense_10", "dense_11")]
    shuffled = forward(**dict(sorted(features.items())))  # as a dict comes back from a compiled program
    np.testing.assert_allclose(penalty.loss(params, (), shuffled)[0], -np.mean(ranks), rtol=1e-5)
    small = parts("effective-rank", network, strength=0.0, l2_strength=2.0).penalty
    gradient = jax.grad(lambda params: small.loss(params, (), shuffled)[0])(params)
    np.testing.assert_allclose(gradient["head"]["kernel"], 2.0 * params["head"]["kernel"], rtol=1e-6)
    assert not np.any(gradient["head"]["bias"])
    with pytest.raises(UserError, match="got the effective rank of features on a network without hidden layers"):
        effective_rank(wiring=Wiring((), {"head/kernel": "head"}))


def test_strengths_of_zero_are_exactly_zero(key):
    penalty = effective_rank(0.0, l2_strength=0.0)

    def loss(params, features):
        return penalty.loss(params, (), forward(last=features))[0]

    value, gradients = jax.value_and_grad(loss, (0, 1))(PARAMS, jnp.zeros((4, 3)).at[0].set(1.0))
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_narrow_types_are_computed_in_float32(key):
    features = jax.random.normal(key, (9, 5)).astype(jnp.bfloat16)
    value, gradient = rank_and_gradient(features)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(value, by_svd(features.astype(jnp.float32))[0], rtol=1e-5)


def test_vmap_is_a_loop(key):
    features = jax.random.normal(key, (3, 9, 5))
    values, gradients = jax.jit(jax.vmap(rank_and_gradient))(features)
    for seed in range(3):
        value, gradient = rank_and_gradient(features[seed])
        np.testing.assert_allclose(values[seed], value, rtol=1e-5)
        np.testing.assert_allclose(gradients[seed], gradient, atol=1e-5)


MANY_LAYERS = """
import pliant.penalties, jax, jax.numpy as jnp
from pliant.types import Forward
jax.config.update("jax_num_cpu_devices", 2)
layers = tuple("abcdef")
penalty = pliant.penalties.effective_rank(layers=layers)
def gradient(x):
    forward = lambda x: Forward(None, None, {name: x + i for i, name in enumerate(layers)}, None, None, None)
    return jax.grad(lambda x: penalty.loss(x, (), forward(x))[0])(x)
x = jax.random.normal(jax.random.key(0), (4, 64, 64))
print(jax.block_until_ready(jax.jit(jax.vmap(gradient))(x)).shape)
"""


@pytest.mark.exact
def test_many_layers_in_one_program_do_not_wait_for_ever():
    """In a process of its own: the failure is a deadlock of batched decompositions inside XLA:CPU."""
    done = subprocess.run([sys.executable, "-c", MANY_LAYERS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "(4, 64, 64)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch the reward"),
        ({"l2_strength": -1.0}, "got l2_strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch the penalty"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        effective_rank(**options)


def test_mask_that_selects_nothing_is_refused():
    with pytest.raises(UserError, match="got a mask that selects none of 2 parameter leaves"):
        effective_rank(mask={"bias": False, "kernel": False}).init(PARAMS)


def test_ranks_of_every_branch_are_added():
    parts = {"policy": mlp((3,), 2, widths=(5, 4)), "value": mlp((3,), 1, widths=(6,))}
    network = side_by_side(parts, {"policy": "actor", "value": "critic"})
    params, _ = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (8, 3))

    def value(wiring, features, **chosen):
        penalty = effective_rank(1.0, l2_strength=0.0, wiring=wiring, **chosen)
        return float(penalty.loss(params, (), Forward(x, None, features, None, None, None))[0])

    features = network.apply(params, {}, x, train=False)[1]
    of_actor = value(network.wiring, features, layers=("actor/dense_0", "actor/dense_1"))
    of_critic = value(network.wiring, features, layers=("critic/dense_0",))
    np.testing.assert_allclose(value(network.wiring, features), of_actor + of_critic, rtol=1e-5)
    trunk = with_heads(mlp((3,), 2, widths=(5, 4)), {"policy": 2, "value": 1})
    features = trunk.apply(*trunk.init(jax.random.key(0)), x, train=False)[1]
    assert value(trunk.wiring, features) == value(None, features)
