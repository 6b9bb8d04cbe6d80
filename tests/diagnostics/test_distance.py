import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, distance, weight_norm
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=15, deadline=None, database=None)
START = {"dense": {"bias": jnp.array([0.0]), "kernel": jnp.array([[6.0, 8.0]])}}
MOVED = {"dense": {"bias": jnp.array([-12.0]), "kernel": jnp.array([[9.0, 4.0]])}}


def test_golden():
    found = distance(MOVED, START)
    assert float(found.total) == 13.0
    np.testing.assert_allclose(found.relative, 1.3, rtol=1e-6)
    np.testing.assert_allclose(found.rms, 13 / 3**0.5, rtol=1e-6)
    assert {path: float(norm) for path, norm in found.by_leaf.items()} == {"dense/bias": 12.0, "dense/kernel": 5.0}


def test_nothing_moved():
    found = distance(START, START)
    assert [float(value) for value in jax.tree.leaves(found)] == [0.0] * 5


def test_relative_to_zeros_is_nan():
    zeros = jax.tree.map(jnp.zeros_like, START)
    found = distance(START, zeros)
    assert float(found.total) == 10.0
    assert np.isnan(found.relative)
    assert float(distance(zeros, START).relative) == 1.0


def test_nan_in_nan_out():
    broken = {"dense": START["dense"] | {"bias": jnp.array([jnp.nan])}}
    for found in (distance(broken, START), distance(START, broken)):
        assert np.isnan([found.total, found.relative, found.rms, found.by_leaf["dense/bias"]]).all()
        assert float(found.by_leaf["dense/kernel"]) == 0.0


def test_bfloat16_is_subtracted_in_float32():
    start = {"w": jnp.full(2, 256.0, jnp.bfloat16)}
    found = distance({"w": jnp.full(2, 1.0, jnp.bfloat16)}, start)
    np.testing.assert_allclose(found.total, 255 * 2**0.5, rtol=1e-6)


@given(st.integers(0, 2**31), st.floats(1e-2, 1e2))
@few
def test_it_is_a_distance(seed, scale):
    draws = np.random.default_rng(seed).standard_normal((3, 4, 3)).astype(np.float32)
    a, b, c = ({"w": jnp.asarray(draw)} for draw in draws)
    np.testing.assert_allclose(distance(a, b).total, distance(b, a).total, rtol=1e-5)
    assert float(distance(a, c).total) <= (float(distance(a, b).total) + float(distance(b, c).total)) * (1 + 1e-5)
    np.testing.assert_allclose(distance(a, b).total, weight_norm({"w": a["w"] - b["w"]}).total, rtol=1e-6)
    scaled = distance(*({"w": scale * each["w"]} for each in (a, b)))
    np.testing.assert_allclose(scaled.total, scale * distance(a, b).total, rtol=1e-4)
    np.testing.assert_allclose(scaled.relative, distance(a, b).relative, rtol=1e-4)


@pytest.mark.parametrize("nothing", [{}, {"w": jnp.ones((0, 2))}])
def test_nothing_to_measure_is_refused(nothing):
    with pytest.raises(
        UserError, match=r"got no parameters; wanted at least one array\. Pass the network's parameters"
    ):
        distance(nothing, nothing)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (
            {"dense": {"bias": jnp.zeros(1), "kernel": jnp.zeros((2, 2))}},
            r"got 'dense/kernel' of shape \(1, 2\) and \(2, 2",
        ),
        (
            {"dense": {"kernel": jnp.zeros((1, 2))}},
            r"got 'dense/bias' of shape \(1,\) and None; wanted the same leaves of",
        ),
        (START | {"head": jnp.zeros(2)}, r"got 'head' of shape None and \(2,\); .* Pass two moments of one network"),
    ],
)
def test_parameters_that_do_not_match_are_refused(initial, message):
    with pytest.raises(UserError, match=message):
        distance(MOVED, initial)


def test_several_seeds(key):
    params, initial = (jax.random.normal(each, (3, 4, 2)) for each in jax.random.split(key))
    together = jax.jit(jax.vmap(distance))({"w": params}, {"w": initial})
    for seed in range(3):
        alone = distance({"w": params[seed]}, {"w": initial[seed]})
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_allclose(a[seed], b, rtol=1e-6), together, alone)


def small_cnn():
    return cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))


@pytest.mark.parametrize(("make", "shape"), [(lambda: mlp((3,), 2, widths=(4,)), (3,)), (small_cnn, (4, 4, 1))])
def test_a_layer_that_moved_is_found(key, make, shape):
    network = make()
    params, state = network.init(key)
    moved = params | {"dense_0": jax.tree.map(lambda leaf: leaf + 1.0, params["dense_0"])}
    found = measure(
        "distance-from-init", subject(network, moved, state, jnp.ones((2, *shape)), initial=(params, state))
    )
    size = params["dense_0"]["kernel"].size + params["dense_0"]["bias"].size
    assert found.numbers["distance_from_init"] == pytest.approx(size**0.5, rel=1e-5)
    start = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    assert found.numbers["distance_from_init_relative"] == pytest.approx(size**0.5 / start, rel=1e-5)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found.numbers["distance_from_init_rms"] == pytest.approx((size / count) ** 0.5, rel=1e-5)
    by_leaf = {metric: value for metric, value in found.numbers.items() if metric.startswith("distance_from_init/")}
    assert len(by_leaf) == len(jax.tree.leaves(params))
    assert {metric for metric, value in by_leaf.items() if value > 0} == {
        "distance_from_init/dense_0/kernel",
        "distance_from_init/dense_0/bias",
    }
    assert found.arrays == {}


def test_it_needs_the_start():
    assert DIAGNOSTICS["distance-from-init"].needs == ("initial",)
