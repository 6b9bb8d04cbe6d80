import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import is_linearized, linearized, saturated
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
LINES = jnp.array([[0.0, 1.0, 3.0, -1.0, -1.0], [0.0, 0.0, 2.0, -2.0, 1.0]])


def measured(network, params, state, inputs):
    return measure("saturated", subject(network, params, state, inputs)).numbers


@pytest.mark.parametrize(("tolerance", "wanted"), [(0.0, 0), (0.004, 1), (0.01, 3), (0.6, 5), (1.0, 5)])
def test_golden_saturation(tolerance, wanted):
    tanh = {"one": jnp.array([[0.0, 0.995, -0.5], [-0.998, -0.992, 0.7]])}
    np.testing.assert_allclose(saturated(tanh, tolerance=tolerance).pooled, wanted / 6, rtol=1e-6)


def test_a_sigmoid_has_other_bounds():
    sigmoid = {"one": jnp.array([[0.0, 0.5, 0.995, 0.98]])}
    assert float(saturated(sigmoid, low=0.0).pooled) == 0.5


@given(st.integers(0, 2**31), st.permutations(range(6)))
@few
def test_sign_and_order_do_not_matter(seed, order):
    x = jnp.asarray(np.tanh(5 * np.random.default_rng(seed).standard_normal((8, 6))), jnp.float32)
    found = float(saturated({"one": x}).pooled)
    assert float(saturated({"one": -x[::-1, jnp.array(order)]}).pooled) == found
    assert found == pytest.approx(np.mean(np.abs(np.asarray(x)) > 0.99))
    assert float(saturated({"one": (x + 1) / 2}, low=0.0, tolerance=0.005).pooled) == pytest.approx(found, abs=0.03)


def test_golden_lines():
    """Unit 1 is cut once; 2 is never; 3 is on the other side of a leaky kink; 4 crosses it."""
    assert is_linearized(LINES).tolist() == [False, False, True, True, False]
    np.testing.assert_allclose(linearized({"one": LINES}).pooled, 2 / 5, rtol=1e-6)


def test_units_behind_crelu_are_counted_once():
    """Unit 0 is always positive, unit 1 always negative, unit 2 both."""
    x = jnp.array([[1.0, 0.0, 1.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0, 3.0, 2.0]])
    assert is_linearized(x, 3).tolist() == [True, True, False]
    found = linearized({"one": x, "two": jnp.zeros((2, 2))}, {"one": 3})
    np.testing.assert_allclose(found.pooled, 2 / 5, rtol=1e-6)
    assert {name: float(value) for name, value in found.by_layer.items()} == pytest.approx({"one": 2 / 3, "two": 0.0})


@given(st.floats(1e-3, 1e3), st.integers(0, 2**31), st.permutations(range(6)))
@few
def test_scale_and_order_do_not_matter_and_examples_only_take_away(scale, seed, order):
    x = jnp.asarray(np.maximum(np.random.default_rng(seed).standard_normal((4, 6)) + 1, 0), jnp.float32)
    flags = np.asarray(is_linearized(x))
    np.testing.assert_array_equal(is_linearized(scale * x[::-1, jnp.array(order)]), flags[list(order)])
    assert not (flags & ~np.asarray(is_linearized(x[:2]))).any()


def test_zeros_are_neither():
    zeros = {"one": jnp.zeros((4, 3))}
    assert float(saturated(zeros).pooled) == float(linearized(zeros).pooled) == 0.0


@pytest.mark.parametrize("function", [saturated, linearized])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(function, bad):
    found = function({"bad": jnp.ones((2, 3)).at[0, 1].set(bad), "good": jnp.array([[0.0, 1.0]])})
    assert np.isnan(found.pooled)
    assert np.isnan(found.by_layer["bad"])
    assert float(found.by_layer["good"]) == 0.5
    assert not is_linearized(jnp.array([[jnp.nan]]))


@pytest.mark.parametrize("function", [saturated, linearized])
@pytest.mark.parametrize("shapes", [{}, {"one": (0, 3)}, {"one": (2, 3), "two": (2, 0)}])
def test_nothing_to_measure_is_refused(function, shapes):
    with pytest.raises(UserError, match=r"got features of . layers, or an empty batch; wanted at least one hidden"):
        function({name: jnp.ones(shape) for name, shape in shapes.items()})


def test_refuses():
    one = {"one": jnp.ones((1, 1))}
    with pytest.raises(UserError, match=r"got low=1.0, high=0.0; wanted low < high"):
        saturated(one, low=1.0, high=0.0)
    with pytest.raises(UserError, match=r"got tolerance=0.6; wanted a number in \[0, 0.5\]"):
        saturated(one, low=0.0, tolerance=0.6)
    with pytest.raises(UserError, match="or an empty batch"):
        is_linearized(jnp.ones((0, 2)))


@pytest.mark.parametrize("function", [saturated, linearized])
def test_compiled_and_over_seeds_it_is_the_same(key, function):
    x = jnp.tanh(3 * jax.random.normal(key, (3, 2, 8)))
    wanted = [float(function({"one": each}).pooled) for each in x]
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda each: function({"one": each}).pooled))(x), wanted)


def test_driven_tanh_units_are_found(key):
    """One of four units in front and one of two behind are far out, on either side."""
    network = mlp((3,), 2, widths=(4, 2), activation="tanh")
    params, state = network.init(key)
    params["dense_0"]["bias"] = jnp.array([9.0, 0.0, 0.0, 0.0])
    params["dense_1"]["bias"] = jnp.array([-20.0, 0.0])
    found = measured(network, params, state, jax.random.normal(key, (16, 3)) / 10)
    wanted = {"saturated_fraction": 2 / 6, "saturated_fraction/dense_0": 1 / 4, "saturated_fraction/dense_1": 1 / 2}
    assert found == pytest.approx(wanted | {"linearized_fraction": np.nan}, nan_ok=True)


@pytest.mark.parametrize(
    ("activation", "bias", "wanted"),
    [
        ("relu", 9.0, 1 / 4),
        ("relu", -9.0, 0),
        ("leaky-relu", -9.0, 1 / 4),
        ("aid", -9.0, 1 / 4),
        ("crelu", -9.0, 1 / 4),
    ],
)
def test_units_on_one_side_of_the_kink_are_found(key, activation, bias, wanted):
    network = mlp((3,), 2, widths=(4,), activation=activation)
    params, state = network.init(key)
    params["dense_0"]["bias"] = params["dense_0"]["bias"].at[1].set(bias)
    found = measured(network, params, state, jax.random.normal(key, (64, 3)))
    wanted = {"linearized_fraction": wanted, "linearized_fraction/dense_0": wanted, "saturated_fraction": np.nan}
    assert found == pytest.approx(wanted, nan_ok=True)


def test_a_channel_is_a_unit(key):
    network = cnn((6, 6, 1), 2, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(3,))
    params, state = network.init(key)
    params["conv_0"]["bias"] = params["conv_0"]["bias"].at[2].set(99.0)
    params["dense_0"]["bias"] = jnp.array([1e4, -1e4, 1e4])
    found = measured(network, params, state, jax.random.normal(key, (8, 6, 6, 1)))
    assert found["linearized_fraction"] == pytest.approx(3 / 7)


def test_sines_of_any_phase_are_beyond_by_chance(key):
    network = mlp((1,), 2, widths=(8,), activation="fourier", gain=100.0)
    params, state = network.init(key)
    found = measured(network, params, state, jax.random.uniform(key, (512, 1)) * 10)
    assert found["saturated_fraction"] == pytest.approx(1 - 2 / np.pi * np.arcsin(0.99), abs=0.01)
    assert np.isnan(found["linearized_fraction"])


@pytest.mark.parametrize("options", [{"activation": "gelu"}, {"activation": "maxmin"}, {"widths": ()}])
def test_no_number_without_bounds_and_kinks(key, options):
    network = mlp((3,), 2, **({"widths": (4,)} | options))
    params, state = network.init(key)
    found = measured(network, params, state, jnp.ones((4, 3)))
    assert set(found) == {"saturated_fraction", "linearized_fraction"}
    assert np.isnan(list(found.values())).all()
