import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import representation_change
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Head, HiddenLayer, Network, Text, Wiring
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
GOLDEN = jnp.array([[3.0, 4.0], [0.0, 2.0]])


def change(now, previous):
    return float(representation_change({"one": now}, {"one": previous}).mean)


def measured(network, params, state, inputs, previous, targets=None):
    return measure("representation-change", subject(network, params, state, inputs, targets, previous=previous)).numbers


def test_golden():
    """Of the two examples, one moved by its own length, the other by half of it."""
    np.testing.assert_allclose(change(jnp.array([[0.0, 0.0], [1.0, 2.0]]), GOLDEN), 0.75, rtol=1e-6)


def test_same_doubled_and_vanished():
    assert change(GOLDEN, GOLDEN) == 0.0
    np.testing.assert_allclose(change(2 * GOLDEN, GOLDEN), 1.0, rtol=1e-6)
    np.testing.assert_allclose(change(0 * GOLDEN, GOLDEN), 1.0, rtol=1e-6)


def test_silence_before_is_guarded():
    silent = jnp.zeros((2, 2))
    assert change(silent, silent) == 0.0
    np.testing.assert_allclose(change(jnp.array([[3.0, 4.0], [0.0, 0.0]]), silent), 5e8 / 2, rtol=1e-5)


@given(st.floats(1e-2, 1e2), st.permutations(range(6)), st.integers(0, 2**31))
@few
def test_scale_and_order_do_not_matter(scale, order, seed):
    now, before = jnp.asarray(np.random.default_rng(seed).standard_normal((2, 8, 6)), jnp.float32)
    wanted = change(now, before)
    np.testing.assert_allclose(change(scale * now, scale * before), wanted, rtol=1e-4)
    np.testing.assert_allclose(change(now[:, jnp.array(order)], before[:, jnp.array(order)]), wanted, rtol=1e-5)
    np.testing.assert_allclose(change(now[::-1], before[::-1]), wanted, rtol=1e-5)
    np.testing.assert_allclose(change(now.reshape(8, 1, 2, 3), before.reshape(8, 1, 2, 3)), wanted, rtol=1e-5)


def test_layers_count_equally():
    found = representation_change({"a": 2 * GOLDEN, "b": GOLDEN}, {"a": GOLDEN, "b": GOLDEN})
    np.testing.assert_allclose([found.mean, found.by_layer["a"], found.by_layer["b"]], [0.5, 1.0, 0.0], rtol=1e-6)


def test_nan_in_nan_out():
    bad = GOLDEN.at[0, 1].set(jnp.nan)
    found = representation_change({"a": bad, "b": GOLDEN}, {"a": GOLDEN, "b": GOLDEN})
    assert np.isnan([found.mean, found.by_layer["a"]]).all()
    assert float(found.by_layer["b"]) == 0.0


@pytest.mark.parametrize(
    ("now", "previous"),
    [({}, {}), ({"a": (0, 2)}, {"a": (0, 2)}), ({"a": (2, 2)}, {"b": (2, 2)}), ({"a": (2, 2)}, {"a": (2, 3)})],
)
def test_nothing_to_compare_is_refused(now, previous):
    now, previous = ({name: jnp.ones(shape) for name, shape in each.items()} for each in (now, previous))
    with pytest.raises(UserError, match=r"got features of shapes .* now and .* before; wanted the same at least one"):
        representation_change(now, previous)


def test_seeds_may_be_mapped(key):
    now, before = jax.random.normal(key, (2, 3, 5, 4))
    together = jax.jit(jax.vmap(lambda now, before: representation_change({"one": now}, {"one": before}).mean))(
        now, before
    )
    np.testing.assert_allclose(together, [change(*pair) for pair in zip(now, before, strict=True)], rtol=1e-6)


def test_a_doubled_layer_is_found(key):
    """Without biases the features are proportional to the scale of each layer."""
    network = mlp((3,), 2, widths=(8, 4), activation="leaky-relu", use_bias=False)
    params, state = network.init(key)
    now = params | {"dense_1": jax.tree.map(lambda leaf: 2 * leaf, params["dense_1"])}
    x = jax.random.normal(key, (16, 3))
    found = measured(network, now, state, x, (params, state))
    wanted = {"representation_change": 1.0, "representation_change/dense_0": 0.0, "representation_change/dense_1": 1.0}
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[name] for name in wanted], list(wanted.values()), rtol=1e-5, atol=1e-6)
    assert measured(network, params, state, x, (params, state))["representation_change"] < 1e-6


def test_a_convolutional_network(key):
    network = cnn(
        (4, 4, 1),
        3,
        channels=(2,),
        kernel_sizes=(3,),
        strides=(1,),
        pool=(1,),
        widths=(4,),
        activation="leaky-relu",
        use_bias=False,
    )
    params, state = network.init(key)
    now = params | {"conv_0": jax.tree.map(lambda leaf: 3 * leaf, params["conv_0"])}
    found = measured(network, now, state, jax.random.normal(key, (6, 4, 4, 1)), (params, state))
    np.testing.assert_allclose(list(found.values()), [2.0, 2.0, 2.0], rtol=1e-5)


def test_the_earlier_running_statistics_go_with_the_earlier_parameters(key):
    network = mlp((3,), 2, widths=(4,), linear="spectral-norm")
    params, state = network.init(key)
    x = jax.random.normal(key, (16, 3))
    other = jax.tree.map(lambda leaf: 2 * leaf, state)
    assert measured(network, params, state, x, (params, state))["representation_change"] < 1e-6
    assert measured(network, params, state, x, (params, other))["representation_change"] > 0.1


def test_positions_of_texts_are_examples():
    """The first token doubled its feature, the other three positions are as they were: a quarter of 1."""

    def apply(params, state, inputs, *, train, key):
        features = {"decoder": params[inputs.decoder]}
        return features["decoder"], features, state

    layer = HiddenLayer("decoder", 2, (), (), activation="identity", elementwise=True)
    network = Network(
        lambda key: (jnp.eye(2), {}), apply, Wiring((layer,), {"": "embed"}, {"output": Head((), "decoder")})
    )
    text = Text(jnp.ones((2, 3), jnp.int32), jnp.array([[0, 0], [0, 1]]))
    now = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    found = measured(network, now, {}, text, (jnp.eye(2), {}), jnp.array([[0, 1], [1, 1]]))
    assert found == {"representation_change": 0.25, "representation_change/decoder": 0.25}


def test_no_number_without_hidden_layers(key):
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    found = measured(network, params, state, jnp.ones((4, 3)), (params, state))
    assert list(found) == ["representation_change"]
    assert np.isnan(found["representation_change"])
