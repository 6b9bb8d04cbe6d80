import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import dead, dormant, firing_rates
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
RATES = jnp.zeros((200, 3)).at[0, 1].set(1e6).at[:100, 2].set(1.0)


def measured(network, params, state, inputs):
    return measure("dead", subject(network, params, state, inputs)).numbers


def test_golden_rates():
    np.testing.assert_allclose(firing_rates(RATES), [0.0, 0.005, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("min_rate", "wanted"), [(0.0, 1), (0.004, 1), (0.005, 2), (0.01, 2), (0.5, 3), (1.0, 3)])
def test_golden_fraction(min_rate, wanted):
    found = dead({"one": RATES}, min_rate)
    np.testing.assert_allclose([found.pooled, found.by_layer["one"]], [wanted / 3, wanted / 3], rtol=1e-6)


def test_a_rare_loud_unit_is_dead_and_a_quiet_busy_one_is_not():
    """The other way round than for dormancy."""
    x = jnp.zeros((200, 2)).at[17, 0].set(1e6).at[:, 1].set(1e-6)
    assert dead({"one": x}).pooled == dormant({"one": x}).pooled == 0.5
    assert firing_rates(x).tolist() == [np.float32(0.005), 1.0]


def test_negative_is_silent():
    assert firing_rates(jnp.array([[-1.0, 0.0, 1.0]])).tolist() == [0.0, 0.0, 1.0]


def test_positions_are_examples():
    x = jnp.zeros((2, 2, 2, 2)).at[0, 1, 0, 0].set(1.0)
    np.testing.assert_allclose(firing_rates(x), [1 / 8, 0.0])


def test_units_behind_crelu_are_counted_once():
    """Unit 0 speaks through one half or the other and unit 1 through its second; unit 2 does not at all."""
    x = jnp.array([[1.0, 0.0, 0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 2.0, 0.0, 0.0]])
    assert firing_rates(x, 3).tolist() == [1.0, 0.5, 0.0]
    found = dead({"one": x, "two": jnp.ones((2, 2))}, num_units={"one": 3})
    np.testing.assert_allclose(found.pooled, 1 / 5, rtol=1e-6)


@given(st.floats(1e-3, 1e3), st.permutations(range(6)), st.integers(0, 2**31))
@few
def test_scale_and_order_do_not_matter(scale, order, seed):
    x = jnp.asarray(np.maximum(np.random.default_rng(seed).standard_normal((8, 6)) - 1, 0), jnp.float32)
    rates = np.asarray(firing_rates(x))
    np.testing.assert_array_equal(firing_rates(scale * x), rates)
    np.testing.assert_array_equal(firing_rates(x[::-1, jnp.array(order)]), rates[list(order)])
    fractions = [float(dead({"one": x}, min_rate).pooled) for min_rate in (0.0, 0.2, 0.5, 1.0)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_zeros_are_all_dead():
    assert float(dead({"one": jnp.zeros((4, 3))}, 0.0).pooled) == 1.0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(bad):
    found = dead({"bad": jnp.ones((2, 3)).at[0, 1].set(bad), "good": jnp.array([[0.0, 1.0]])})
    assert np.isnan(found.pooled)
    assert np.isnan(found.by_layer["bad"])
    assert float(found.by_layer["good"]) == 0.5
    np.testing.assert_array_equal(firing_rates(jnp.array([[jnp.nan, 1.0]])), [np.nan, 1.0])


@pytest.mark.parametrize("shapes", [{}, {"one": (0, 3)}, {"one": (2, 3), "two": (2, 0)}])
def test_nothing_to_measure_is_refused(shapes):
    with pytest.raises(UserError, match=r"got features of . layers, or an empty batch; wanted at least one hidden"):
        dead({name: jnp.ones(shape) for name, shape in shapes.items()})


def test_refuses():
    with pytest.raises(UserError, match=r"got activations of shape \(0, 3\); wanted at least one example"):
        firing_rates(jnp.ones((0, 3)))
    with pytest.raises(UserError, match=r"got min_rate=1.5; wanted a number in \[0, 1\]"):
        dead({"one": jnp.ones((1, 1))}, 1.5)


def test_compiled_and_over_seeds_it_is_the_same(key):
    x = jax.nn.relu(jax.random.normal(key, (3, 4, 5)) - 1)
    wanted = [float(dead({"one": each}, 0.25).pooled) for each in x]
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda each: dead({"one": each}, 0.25).pooled))(x), wanted)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_known_silent_units_are_found(key, activation):
    """Units 1 and 5 of the first layer never fire, and 2 on one of 200 examples; the second layer always does."""
    network = mlp((1,), 2, widths=(8, 4), activation=activation)
    params, state = network.init(key)
    kernel = jnp.ones((1, 8)).at[0, jnp.array([1, 5])].set(0.0)
    params["dense_0"] = {"kernel": kernel, "bias": 5 * kernel[0]}
    params["dense_1"]["bias"] = params["dense_1"]["bias"] + 500.0
    rare = jnp.zeros((200, 1)).at[3].set(1.0)
    params["dense_0"]["bias"] = params["dense_0"]["bias"].at[2].set(0.0)
    found = measured(network, params, state, rare)
    wanted = {"dead_fraction": 3 / 12, "dead_fraction/dense_0": 3 / 8, "dead_fraction/dense_1": 0.0}
    assert found == pytest.approx(wanted | {"never_active_fraction": 2 / 12})


def test_a_channel_is_a_unit(key):
    network = cnn((6, 6, 1), 2, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=(5,))
    params, state = network.init(key)
    params["conv_0"]["bias"] = jnp.array([-99.0, 1.0, 99.0, 99.0])
    params["dense_0"]["bias"] = jnp.array([-9e4, 9e4, 9e4, 9e4, 9e4])
    found = measured(network, params, state, jax.random.normal(key, (3, 6, 6, 1)))
    assert found["never_active_fraction"] == pytest.approx(2 / 9)
    assert found["dead_fraction/conv_0"] == 0.25


@pytest.mark.parametrize(
    "options", [{"activation": name} for name in ("tanh", "gelu", "leaky-relu", "maxmin", "fourier")] + [{"widths": ()}]
)
def test_no_number_where_nothing_is_ever_silent(key, options):
    network = mlp((3,), 2, **({"widths": (4,)} | options))
    params, state = network.init(key)
    found = measured(network, params, state, jnp.ones((4, 3)))
    assert set(found) == {"dead_fraction", "never_active_fraction"}
    assert np.isnan(list(found.values())).all()


def test_a_gated_unit_is_silent_at_0_only(key):
    """The second unit is always negative: so is what its gate lets through."""
    network = mlp((1,), 1, widths=(3,))

    def gated(params, state, inputs, *, train, key):
        return inputs, {"dense_0": jnp.array([[0.0, -1.0, 2.0]] * len(inputs))}, state

    params, state = network.init(key)
    found = measured(network._replace(apply=gated), params, state, jnp.ones((4, 1)))
    assert found["dead_fraction"] == pytest.approx(1 / 3)
