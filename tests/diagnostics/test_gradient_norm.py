import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import gradient_norm
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Rule
from subjects import measure, subject

few = settings(max_examples=15, deadline=None, database=None)


def test_golden():
    found = gradient_norm({"dense": {"bias": jnp.array([0.0, 12.0]), "kernel": jnp.array([[3.0, -4.0]])}})
    assert (float(found.l2), float(found.l1), float(found.zero_fraction)) == (13.0, 19.0, 0.25)
    assert {path: float(norm) for path, norm in found.by_leaf.items()} == {"dense/bias": 12.0, "dense/kernel": 5.0}


def test_no_gradient_at_all():
    found = gradient_norm({"w": jnp.zeros((2, 3)), "b": -jnp.zeros(3)})
    assert (float(found.l2), float(found.l1), float(found.zero_fraction)) == (0.0, 0.0, 1.0)


def test_small_is_not_zero():
    assert float(gradient_norm({"w": jnp.array([1e-30, 0.0])}).zero_fraction) == 0.5


def test_nan_in_nan_out():
    found = gradient_norm({"bad": jnp.array([jnp.nan, 0.0]), "good": jnp.array([1.0])})
    assert np.isnan([found.l2, found.l1, found.zero_fraction, found.by_leaf["bad"]]).all()
    assert float(found.by_leaf["good"]) == 1.0


def test_bfloat16_is_summed_in_float32():
    assert float(gradient_norm({"w": jnp.ones(1000, jnp.bfloat16)}).l1) == 1000.0


@given(st.integers(0, 2**31), st.floats(1e-2, 1e2), st.permutations(range(6)))
@few
def test_scale_and_order(seed, scale, order):
    w = np.maximum(np.random.default_rng(seed).standard_normal(6), 0).astype(np.float32)
    found, other = gradient_norm({"w": jnp.asarray(w)}), gradient_norm({"w": jnp.asarray(-scale * w[list(order)])})
    np.testing.assert_allclose(other.l2, scale * found.l2, rtol=1e-5)
    np.testing.assert_allclose(other.l1, scale * found.l1, rtol=1e-5)
    assert float(other.zero_fraction) == float(found.zero_fraction) == pytest.approx((w == 0).mean())
    assert float(found.l2) <= float(found.l1) * (1 + 1e-6)
    assert float(found.l1) <= 6**0.5 * float(found.l2) * (1 + 1e-6)


@pytest.mark.parametrize("nothing", [{}, {"w": jnp.ones((0, 2))}])
def test_nothing_to_measure_is_refused(nothing):
    with pytest.raises(UserError, match=r"got no gradients; wanted at least one array\. Pass the network's gradients"):
        gradient_norm(nothing)


def test_several_seeds(key):
    gradients = {"w": jax.random.normal(key, (3, 4, 2)), "b": jnp.zeros((3, 2))}
    together = jax.jit(jax.vmap(gradient_norm))(gradients)
    for seed in range(3):
        alone = gradient_norm(jax.tree.map(lambda leaf, seed=seed: leaf[seed], gradients))
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_allclose(a[seed], b, rtol=1e-6), together, alone)


def test_a_linear_model_by_hand(key):
    """Squared error of x·w against y: the gradient is 2(xw − y)x for one example with one output."""
    network = mlp((2,), 1, widths=())
    params, state = network.init(key)
    params["head"] = {"kernel": jnp.array([[1.0], [1.0]]), "bias": jnp.zeros(1)}
    x, y = jnp.array([[3.0, 0.0]]), jnp.array([[1.0]])
    numbers = measure("gradient-norm", subject(network, params, state, x, y)).numbers
    assert numbers == pytest.approx(
        {
            "probe_gradient_norm": 160**0.5,
            "probe_gradient_norm/head/bias": 4.0,
            "probe_gradient_norm/head/kernel": 12.0,
            "probe_gradient_l1": 16.0,
            "probe_gradient_zero_fraction": 1 / 3,
        },
        rel=1e-6,
    )


def test_clipping_comes_later(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    x = 100 * jax.random.normal(key, (8, 3))
    optimizer = optax.with_extra_args_support(optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1)))
    of = subject(network, params, state, x)
    clipped = measure("gradient-norm", of._replace(rule=Rule(optimizer, 4)))
    assert clipped.numbers == measure("gradient-norm", of).numbers
    assert clipped.numbers["probe_gradient_norm"] > 1e-2


def test_dead_units_leave_zeros(key):
    """Units 0 and 1 never fire: nothing arrives at what feeds them, nor at what reads them."""
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    params["dense_0"]["bias"] = jnp.array([-100.0, -100.0, 100.0, 100.0])
    targets = jnp.array([0, 1, 0, 0, 1, 0])
    numbers = measure("gradient-norm", subject(network, params, state, jax.random.normal(key, (6, 3)), targets)).numbers
    zeros = 2 * (3 + 1 + 2)
    assert numbers["probe_gradient_zero_fraction"] == pytest.approx(zeros / (3 * 4 + 4 + 4 * 2 + 2), rel=1e-6)


def test_a_layer_in_front_of_a_norm_that_doubles_gets_half_the_gradient(key):
    network = mlp((3,), 2, widths=(8,), norm="layer", use_bias=False)
    params, state = network.init(key)
    x = jax.random.normal(key, (8, 3))
    doubled = params | {"dense_0": jax.tree.map(lambda leaf: 2 * leaf, params["dense_0"])}
    before, after = (measure("gradient-norm", subject(network, p, state, x)).numbers for p in (params, doubled))
    metric = "probe_gradient_norm/dense_0/kernel"
    assert after[metric] == pytest.approx(before[metric] / 2, rel=1e-3)


def test_a_cnn(key):
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    params, state = network.init(key)
    found = measure("gradient-norm", subject(network, params, state, jax.random.normal(key, (4, 4, 4, 1))))
    parts = [value for metric, value in found.numbers.items() if metric.startswith("probe_gradient_norm/")]
    assert len(parts) == len(jax.tree.leaves(params))
    assert np.linalg.norm(parts) == pytest.approx(found.numbers["probe_gradient_norm"], rel=1e-5)
    assert found.arrays == {}
