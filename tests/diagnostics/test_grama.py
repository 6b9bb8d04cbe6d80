import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import (
    dead,
    dormancy_scores,
    dormant,
    gradient_scores,
    grama,
    incoming_gradients,
    is_dormant,
    zero_gradient,
)
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Feed, HiddenLayer, Slot, Wiring
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
GOLDEN = jnp.array([[0.0, 1.0, -3.0], [0.0, -1.0, 1.0]])  # means of 0, 1 and 2


def measured(network, params, state, inputs, targets=None):
    return measure("grama", subject(network, params, state, inputs, targets)).numbers


def test_golden_scores():
    np.testing.assert_allclose(gradient_scores(GOLDEN), [0.0, 1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(gradient_scores(GOLDEN.T, axis=0), [0.0, 1.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize(("threshold", "wanted"), [(0.0, 1), (0.01, 1), (0.99, 1), (1.0, 2), (2.0, 3)])
def test_golden_fraction(threshold, wanted):
    found = grama({"one": GOLDEN}, threshold)
    np.testing.assert_allclose([found.pooled, found.by_layer["one"]], [wanted / 3, wanted / 3], rtol=1e-6)


def test_gradients_that_cancel_in_the_batch_do_not_in_its_examples():
    of_examples = jnp.array([[[1.0, 1.0]], [[-1.0, 1.0]]])
    assert float(zero_gradient({"one": of_examples.mean(axis=0)}).pooled) == 0.5
    assert float(zero_gradient({"one": of_examples}).pooled) == 0.0
    assert float(grama({"one": of_examples.mean(axis=0)}).pooled) == 0.5
    assert float(grama({"one": of_examples}).pooled) == 0.0


def test_pooled_counts_units_and_not_layers():
    gradients = {"narrow": jnp.array([[0.0, 1.0]]), "wide": jnp.ones((1, 8))}
    for found in (grama(gradients), zero_gradient(gradients)):
        np.testing.assert_allclose(found.pooled, 1 / 10, rtol=1e-6)
        assert {name: float(value) for name, value in found.by_layer.items()} == {"narrow": 0.5, "wide": 0.0}


@given(st.sampled_from([1e-12, 1.0, 1e12]), st.permutations(range(6)), st.integers(0, 2**31))
@few
def test_scale_and_order_do_not_matter(scale, order, seed):
    x = jnp.asarray(np.random.default_rng(seed).standard_normal((8, 6)), jnp.float32).at[:, 2].set(0.0)
    scores = np.asarray(gradient_scores(x))
    np.testing.assert_allclose(scores.mean(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(gradient_scores(-scale * x[::-1, jnp.array(order)]), scores[list(order)], rtol=1e-5)
    np.testing.assert_allclose(gradient_scores(x.reshape(2, 4, 6)), scores, rtol=1e-5)
    assert float(zero_gradient({"one": scale * x}).pooled) == pytest.approx(1 / 6)


def test_a_layer_without_any_gradient_does_not_learn():
    zeros = {"one": jnp.zeros((4, 3))}
    assert float(grama(zeros).pooled) == float(zero_gradient(zeros).pooled) == 1.0
    np.testing.assert_array_equal(gradient_scores(jnp.zeros((4, 3))), np.zeros(3))


@pytest.mark.parametrize("function", [grama, zero_gradient])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(function, bad):
    found = function({"bad": jnp.ones((2, 3)).at[0, 1].set(bad), "good": jnp.array([[0.0, 1.0]])})
    assert np.isnan(found.pooled)
    assert np.isnan(found.by_layer["bad"])
    assert float(found.by_layer["good"]) == 0.5
    assert np.isnan(gradient_scores(jnp.array([[jnp.nan, 1.0]]))).all()


@pytest.mark.parametrize("function", [grama, zero_gradient])
@pytest.mark.parametrize("shapes", [{}, {"one": (0, 3)}])
def test_nothing_to_measure_is_refused(function, shapes):
    with pytest.raises(UserError, match=r"got gradients of . layers, or an empty kernel; wanted at least one hidden"):
        function({name: jnp.ones(shape) for name, shape in shapes.items()})


def test_refuses():
    with pytest.raises(UserError, match=r"got a gradient of shape \(0, 3\); wanted at least one weight"):
        gradient_scores(jnp.ones((0, 3)))
    wiring = Wiring((HiddenLayer("hidden", 3, (), (), "unknown", elementwise=True),), {})
    with pytest.raises(UserError, match="got a wiring of 1 hidden layers that names no kernel of theirs; wanted"):
        incoming_gradients(wiring, {})


def test_all_kernels_of_a_unit_count_and_its_bias_does_not():
    feeds = tuple(Feed(Slot(path, -1), jax.nn.initializers.ones) for path in ("gate", "up", "bias"))
    layer = HiddenLayer("mlp", 2, feeds, (), "gelu", elementwise=True)
    wiring = Wiring((layer,), {"gate": "matrix", "up": "matrix", "bias": "bias"})
    gradients = {"gate": jnp.zeros((1, 2)), "up": jnp.array([[3.0, 4.0], [5.0, 6.0]]), "bias": jnp.ones(2)}
    found = incoming_gradients(wiring, gradients)
    assert {name: kernel.tolist() for name, kernel in found.items()} == {"mlp": [[0.0, 0.0], [3.0, 4.0], [5.0, 6.0]]}


@pytest.mark.parametrize("function", [grama, zero_gradient])
def test_compiled_and_over_seeds_it_is_the_same(key, function):
    x = jnp.maximum(jax.random.normal(key, (3, 2, 8)) - 1, 0)
    wanted = [float(function({"one": each}).pooled) for each in x]
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda each: function({"one": each}).pooled))(x), wanted)


def test_the_numbers_of_a_run_are_those_of_the_gradients(key):
    network = mlp((3,), 2, widths=(8, 4))
    params, state = network.init(key)
    params["dense_0"]["bias"] = jnp.array([-9.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    params["head"]["kernel"] = params["head"]["kernel"].at[1].set(0.0)
    of = subject(network, params, state, jax.random.normal(key, (16, 3)), jnp.arange(16) % 2)
    found = measure("grama", of).numbers
    assert found["zero_gradient_fraction/dense_0"] == 2 / 8
    assert found["zero_gradient_fraction/dense_1"] >= 1 / 4

    def losses(params):
        output = network.apply(params, state, of.probe.inputs, train=False, key=None)[0]
        return of.losses(output, of.probe.targets)

    each = jax.jit(jax.jacrev(losses))(params)  # every leaf has an axis of examples in front
    kernels = {name: each[name]["kernel"] for name in ("dense_0", "dense_1")}
    of_batch = grama({name: kernel.mean(axis=0) for name, kernel in kernels.items()})
    assert found["grama_fraction"] == pytest.approx(float(of_batch.pooled))
    assert found["zero_gradient_fraction"] == pytest.approx(float(zero_gradient(kernels).pooled))
    assert set(found) == {
        f"{metric}{layer}"
        for metric in ("grama_fraction", "zero_gradient_fraction")
        for layer in ("", "/dense_0", "/dense_1")
    }


def test_a_channel_is_a_unit(key):
    """The first channel is dead, and nothing reads the second unit of the dense layer."""
    network = cnn((6, 6, 1), 2, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=(5,))
    params, state = network.init(key)
    params["conv_0"]["bias"] = jnp.array([-99.0, 9.0, 9.0, 9.0])
    params["dense_0"]["bias"] = params["dense_0"]["bias"] + 100.0
    params["head"]["kernel"] = params["head"]["kernel"].at[1].set(0.0)
    found = measured(network, params, state, jax.random.normal(key, (3, 6, 6, 1)))
    wanted = {"conv_0": 1 / 4, "dense_0": 1 / 5}
    for metric in ("grama_fraction", "zero_gradient_fraction"):
        assert {name: found[f"{metric}/{name}"] for name in wanted} == pytest.approx(wanted)
        assert found[metric] == pytest.approx(2 / 9)


def test_only_some_examples_have_a_gradient_of_their_own(key):
    """Of 200 examples the first unit fires on the second only, which is not among the 64."""
    network = mlp((1,), 2, widths=(2,))
    params, state = network.init(key)
    params["dense_0"] = {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.array([0.0, 1.0])}
    params["head"]["kernel"] = jnp.ones((2, 2)).at[:, 1].set(-1.0)
    found = measured(network, params, state, jnp.zeros((200, 1)).at[1].set(1.0))
    assert found["zero_gradient_fraction"] == 1.0  # the second unit's input is 0 there
    assert found["grama_fraction"] == 0.0


def test_maxmin_units_have_gradients_too(key):
    network = mlp((3,), 2, widths=(4,), activation="maxmin")
    params, state = network.init(key)
    found = measured(network, params, state, jax.random.normal(key, (4, 3)))
    assert found["zero_gradient_fraction"] == found["grama_fraction"] == 0.0


def test_a_network_without_hidden_layers_is_refused(key):
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    with pytest.raises(UserError, match="got a wiring of 0 hidden layers that names no kernel"):
        measured(network, params, state, jnp.ones((4, 3)))


class TestChain:
    """Dead at rate 0 ⇒ dormant at τ = 0 ⇒ no gradient, behind ReLU; not the other way round (spec 22.3)."""

    @pytest.mark.parametrize("seed", range(3))
    def test_forwards(self, seed):
        key, x_key = jax.random.split(jax.random.key(seed))
        network = mlp((3,), 2, widths=(8, 8))
        params, state = network.init(key)
        for name in ("dense_0", "dense_1"):
            params[name]["bias"] = jnp.linspace(-3.0, 1.0, 8)
        x = jax.random.normal(x_key, (16, 3))
        found = self.flags(network, params, state, x)
        assert found["dead"].any()
        assert not (found["dead"] & ~found["dormant"]).any()
        assert not (found["dormant"] & ~found["no gradient"]).any()

    def test_a_unit_that_nothing_reads_is_active(self, key):
        network = mlp((3,), 2, widths=(8,))
        params, state = network.init(key)
        params["head"]["kernel"] = params["head"]["kernel"].at[4].set(0.0)
        x = jax.random.normal(key, (64, 3))
        found = self.flags(network, params, state, x)
        assert found["no gradient"].tolist() == [unit == 4 for unit in range(8)]
        assert not found["dormant"].any()

    def test_a_unit_that_hardly_speaks_is_not_dead(self):
        quiet = jnp.ones((200, 2)).at[:, 0].set(1e-3)
        assert is_dormant(quiet).tolist() == [True, False]
        assert float(dead({"one": quiet}, 0.0).pooled) == 0.0

    def test_a_unit_that_speaks_once_is_dead_at_1_percent_and_not_dormant(self):
        rare = jnp.ones((200, 2)).at[:, 0].set(0.0).at[3, 0].set(1e6)
        assert float(dead({"one": rare}).pooled) == 0.5
        assert dormancy_scores(rare)[0] > 1.9
        assert float(dormant({"one": rare}).by_layer["one"]) == 0.5  # the other one, beside so loud a unit

    def flags(self, network, params, state, x):
        """Of the units of the first layer."""
        hidden = network.apply(params, state, x, train=False, key=None)[1]["dense_0"]

        def loss(params, x):
            return jnp.square(network.apply(params, state, x[None], train=False, key=None)[0] - 1.0).sum()

        gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, x)["dense_0"]["kernel"]
        return {
            "dead": np.asarray((hidden > 0).mean(axis=0) == 0),
            "dormant": np.asarray(is_dormant(hidden, 0.0)),
            "no gradient": np.asarray((gradients == 0).all(axis=(0, 1))),
        }


@pytest.mark.parametrize("threshold", [np.nan, -1.0])
def test_thresholds_are_checked(threshold):
    with pytest.raises(UserError, match=r"got threshold=.*; wanted a finite number ≥ 0"):
        grama({"layer": GOLDEN}, threshold)


def test_units_of_any_layout():
    """(out, in, 1, 1), and a reader's rows (channels · positions, out) as channels first are flattened."""
    kernel = np.arange(8.0).reshape(4, 2, 1, 1)
    flat = np.arange(12.0).reshape(6, 2)
    feeds = tuple(Feed(slot, jax.nn.initializers.zeros) for slot in (Slot("w", 0), Slot("flat", 0, repeats=3)))
    layers = (
        HiddenLayer("conv", 4, feeds[:1], (), "relu", elementwise=True),
        HiddenLayer("two", 2, feeds[1:], (), "relu", elementwise=True),
    )
    found = incoming_gradients(
        Wiring(layers, {"w": "matrix", "flat": "matrix"}), {"w": jnp.asarray(kernel), "flat": jnp.asarray(flat)}
    )
    np.testing.assert_array_equal(found["conv"], kernel[:, :, 0, 0].T)
    np.testing.assert_array_equal(np.sort(found["two"], axis=0), flat.reshape(2, 6).T)
