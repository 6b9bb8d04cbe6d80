import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import dormancy_scores, dormant, is_dormant
from pliant.errors import UserError
from pliant.networks import mlp
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
GOLDEN = jnp.array([[0.0, 1.0, -3.0], [0.0, -1.0, 3.0]])


def measured(network, params, state, inputs):
    return measure("dormant", subject(network, params, state, inputs)).numbers


def test_golden_scores():
    np.testing.assert_allclose(dormancy_scores(GOLDEN), [0.0, 0.75, 2.25], rtol=1e-6)


@pytest.mark.parametrize(("threshold", "wanted"), [(0.0, 1), (0.025, 1), (0.74, 1), (0.75, 2), (3.0, 3)])
def test_golden_fraction(threshold, wanted):
    found = dormant({"one": GOLDEN}, threshold)
    np.testing.assert_allclose([found.pooled, found.by_layer["one"]], [wanted / 3, wanted / 3], rtol=1e-6)
    assert int(is_dormant(GOLDEN, threshold).sum()) == wanted


def test_absolute_values_come_before_the_mean():
    alternating = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(dormancy_scores(alternating), [1.0, 1.0], rtol=1e-6)
    in_space = jnp.stack([alternating, -alternating]).reshape(1, 2, 2, 2)
    np.testing.assert_allclose(dormancy_scores(in_space), [1.0, 1.0], rtol=1e-6)


def test_space_is_averaged_like_the_batch(key):
    x = jax.random.normal(key, (3, 4, 5, 6))
    np.testing.assert_allclose(dormancy_scores(x), dormancy_scores(x.reshape(60, 6)), rtol=1e-6)


def test_a_silent_layer_is_all_dormant():
    assert float(dormant({"one": jnp.zeros((4, 3))}).pooled) == 1.0
    np.testing.assert_array_equal(dormancy_scores(jnp.zeros((4, 3))), np.zeros(3))


def test_a_rare_loud_unit_is_alive():
    x = jnp.ones((1000, 2)).at[:, 0].set(0.0).at[17, 0].set(1e6)
    assert is_dormant(x).tolist() == [False, True]


def test_pooled_counts_units_and_not_layers():
    features = {"narrow": jnp.array([[0.0, 1.0]]), "wide": jnp.ones((1, 8))}
    found = dormant(features)
    np.testing.assert_allclose(found.pooled, 1 / 10, rtol=1e-6)
    assert {name: float(value) for name, value in found.by_layer.items()} == {"narrow": 0.5, "wide": 0.0}


@given(st.floats(1e-3, 1e3), st.permutations(range(6)), st.integers(0, 2**31))
@few
def test_scale_and_order_do_not_matter(scale, order, seed):
    x = jnp.asarray(np.maximum(np.random.default_rng(seed).standard_normal((8, 6)), 0), jnp.float32)
    x = x.at[:, 2].set(0.0)
    scores = np.asarray(dormancy_scores(x))
    np.testing.assert_allclose(dormancy_scores(scale * x), scores, rtol=1e-5)
    np.testing.assert_allclose(dormancy_scores(x[:, jnp.array(order)]), scores[list(order)], rtol=1e-5)
    np.testing.assert_allclose(dormancy_scores(x[::-1]), scores, rtol=1e-5)
    np.testing.assert_allclose(scores.mean(), 1.0, rtol=1e-5)
    assert float(dormant({"one": scale * x}, 0.0).pooled) == float(dormant({"one": x}, 0.0).pooled)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(bad):
    found = dormant({"bad": jnp.ones((2, 3)).at[0, 1].set(bad), "good": jnp.array([[0.0, 1.0]])})
    assert np.isnan(found.pooled)
    assert np.isnan(found.by_layer["bad"])
    assert float(found.by_layer["good"]) == 0.5


@pytest.mark.parametrize("shapes", [{}, {"one": (0, 3)}, {"one": (2, 3), "two": (2, 0)}])
def test_nothing_to_measure_is_refused(shapes):
    features = {name: jnp.ones(shape) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=r"got features of . layers, or an empty batch; wanted at least one hidden"):
        dormant(features)


def test_units_behind_crelu_are_counted_once():
    """Unit 0 speaks through its second half only; unit 2 does not at all."""
    x = jnp.array([[0.0, 2.0, 0.0, 3.0, 0.0, 0.0]])
    assert is_dormant(x, 0.0, num_units=3).tolist() == [False, False, True]
    np.testing.assert_allclose(dormancy_scores(x, 3), [1.8, 1.2, 0.0], rtol=1e-6)
    found = dormant({"one": x, "two": jnp.ones((1, 2))}, num_units={"one": 3})
    np.testing.assert_allclose(found.pooled, 1 / 5, rtol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_known_silent_units_are_found(key, activation):
    """Units 1 and 5 of the first layer never fire; behind CReLU, unit 6 does, although it is always negative."""
    network = mlp((3,), 2, widths=(8, 4), activation=activation)
    params, state = network.init(key)
    params["dense_0"]["bias"] = params["dense_0"]["bias"] + 5.0
    params["dense_1"]["bias"] = params["dense_1"]["bias"] + 50.0
    silent = jnp.isin(jnp.arange(8), jnp.array([1, 5]))
    params["dense_0"] = {
        "kernel": jnp.where(silent[None], 0.0, params["dense_0"]["kernel"]),
        "bias": jnp.where(silent, 0.0, params["dense_0"]["bias"]),
    }
    if activation == "crelu":
        params["dense_0"]["bias"] = params["dense_0"]["bias"].at[6].set(-5.0)
    found = measured(network, params, state, jax.random.normal(key, (32, 3)) / 10)
    np.testing.assert_allclose(found["dormant_fraction"], 2 / 12, rtol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_a_network_of_zeros_is_all_dormant(key, activation):
    network = mlp((3,), 2, widths=(4, 4), activation=activation)
    params, state = network.init(key)
    params = jax.tree.map(jnp.zeros_like, params)
    found = measured(network, params, state, jnp.ones((4, 3)))
    pooled = ("dormant_fraction", "dormant_exact_fraction", "dormant_loose_fraction")
    assert found == dict.fromkeys((*pooled, "dormant_fraction/dense_0", "dormant_fraction/dense_1"), 1.0)


def test_the_numbers_of_a_run_are_at_three_thresholds(key):
    """The units say 0, 0.0195, 0.078 and 3.9 times their mean, and the layer behind them always the same."""
    network = mlp((1,), 2, widths=(4, 2))
    params, state = network.init(key)
    params["dense_0"]["kernel"] = jnp.array([[0.0, 0.005, 0.02, 1.0]])
    params["dense_1"] = {"kernel": jnp.zeros((4, 2)), "bias": jnp.ones(2)}
    wanted = {"dormant_exact_fraction": 1 / 6, "dormant_fraction": 2 / 6, "dormant_loose_fraction": 3 / 6}
    wanted |= {"dormant_fraction/dense_0": 2 / 4, "dormant_fraction/dense_1": 0.0}
    assert measured(network, params, state, jnp.ones((4, 1))) == pytest.approx(wanted)


@pytest.mark.parametrize("options", [{"activation": "maxmin"}, {"widths": ()}])
def test_no_number_where_no_unit_owns_an_output(key, options):
    network = mlp((3,), 2, **({"widths": (4,)} | options))
    params, state = network.init(key)
    found = measured(network, params, state, jnp.ones((4, 3)))
    assert set(found) == {"dormant_fraction", "dormant_exact_fraction", "dormant_loose_fraction"}
    assert np.isnan(list(found.values())).all()


def test_scaling_the_weights_in_front_of_a_norm_does_not_matter(key):
    network = mlp((3,), 2, widths=(16, 16), norm="layer")
    params, state = network.init(key)
    params["dense_1"]["bias"] = params["dense_1"]["bias"] + 0.01
    x = jax.random.normal(key, (32, 3))
    features = [
        network.apply(p, state, x, train=False, key=None)[1]["dense_1"]
        for p in (params, params | {"dense_1": jax.tree.map(lambda leaf: 10 * leaf, params["dense_1"])})
    ]
    np.testing.assert_allclose(dormancy_scores(features[0]), dormancy_scores(features[1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_silent_layer_of_low_precision_is_all_dormant(dtype):
    """In float16 10⁻⁹ is 0, so that a silent layer's scores would be 0/0."""
    layer = jnp.zeros((4, 3), dtype)
    assert dormancy_scores(layer).tolist() == [0.0, 0.0, 0.0]
    assert dormant({"layer": layer}).pooled == 1.0
    assert dormancy_scores(jnp.full((9999, 2), 16.0, dtype), relative=False).tolist() == [16.0, 16.0]


@pytest.mark.parametrize("threshold", [np.nan, -1.0])
def test_thresholds_are_checked(threshold):
    with pytest.raises(UserError, match=r"got threshold=.*; wanted a finite number ≥ 0"):
        dormant({"layer": GOLDEN}, threshold)
