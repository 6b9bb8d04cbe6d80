from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import policy_churn, value_churn
from pliant.errors import UserError
from pliant.networks import cnn, mlp, side_by_side
from pliant.targets import two_hot
from pliant.types import Batch, Network, Text, Wiring
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)


class Lived(NamedTuple):
    """What an agent's loss is told."""

    actions: jax.Array


def measured(network, params, state, inputs, targets, previous, **fields):
    of_agent = isinstance(targets, Lived)
    made = subject(network, params, state, inputs, None if of_agent else targets, previous=(previous, state))
    return measure("churn", made._replace(probe=Batch(inputs, targets), **fields)).numbers


def random_logits(seed, shape=(2, 8, 3), scale=3.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_golden_divergence():
    """From (3/4, 1/4) to (1/2, 1/2)."""
    found = policy_churn(jnp.zeros((1, 2)), jnp.log(jnp.array([[3.0, 1.0]])))
    np.testing.assert_allclose(found.kl, 0.75 * np.log(1.5) + 0.25 * np.log(0.5), rtol=1e-5)


def test_swapping_the_columns_changes_every_choice():
    logits = jnp.array([[1.0, 2.0], [5.0, -1.0], [0.5, 0.0]])
    assert float(policy_churn(logits[:, ::-1], logits).changed_fraction) == 1.0


def test_the_first_of_several_maxima_is_the_choice():
    tied, first, second = jnp.array([[1.0, 1.0]]), jnp.array([[2.0, 1.0]]), jnp.array([[1.0, 2.0]])
    assert float(policy_churn(tied, first).changed_fraction) == 0.0
    assert float(policy_churn(tied, second).changed_fraction) == 1.0


@given(st.integers(0, 2**31), st.floats(-5, 5), st.permutations(range(3)))
@few
def test_what_does_not_matter(seed, shift, order):
    now, before = random_logits(seed)
    found = policy_churn(now, before)
    assert 0 <= float(found.changed_fraction) <= 1
    assert float(found.kl) >= 0
    same = policy_churn(now, now)
    assert (float(same.changed_fraction), float(same.kl)) == (0.0, 0.0)
    order = jnp.array(order)
    for other in (
        policy_churn(now + shift, before),
        policy_churn(now[:, order], before[:, order]),
        policy_churn(now[::-1], before[::-1]),
        policy_churn(now.reshape(2, 4, 3), before.reshape(2, 4, 3)),
    ):
        np.testing.assert_allclose(other, found, rtol=1e-4, atol=1e-5)


def test_large_logits_are_stable():
    found = policy_churn(jnp.array([[1e4, 0.0]]), jnp.array([[0.0, 1e4]]))
    np.testing.assert_allclose(found, [1.0, 1e4], rtol=1e-6)


def test_excluded_classes():
    before = jnp.array([[0.0, 0.0, -jnp.inf]])
    np.testing.assert_allclose(policy_churn(before, before), [0.0, 0.0])
    np.testing.assert_allclose(policy_churn(jnp.array([[0.0, 0.0, 0.0]]), before).kl, np.log(1.5), rtol=1e-6)
    assert float(policy_churn(before, jnp.zeros((1, 3))).kl) == np.inf


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(bad):
    logits = random_logits(0, (4, 3))
    spoilt = logits.at[1, 2].set(bad)
    assert np.isnan(policy_churn(spoilt, logits)).all()
    assert np.isnan(policy_churn(logits, spoilt)).all()
    elsewhere = policy_churn(logits, spoilt, jnp.arange(4) != 1)
    np.testing.assert_array_equal(elsewhere, [0.0, 0.0])
    assert np.isnan(policy_churn(logits, logits, jnp.zeros(4, bool))).all()
    assert np.isnan(value_churn(spoilt - spoilt, logits))


def test_golden_values():
    assert float(value_churn(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [5.0]]))) == 4.5
    assert float(value_churn(jnp.zeros(3), jnp.zeros(3))) == 0.0


@pytest.mark.parametrize(("now", "before"), [((0, 3), (0, 3)), ((2, 1), (2, 1)), ((2, 3), (1, 3))])
def test_logits_to_compare_are_wanted(now, before):
    with pytest.raises(UserError, match=r"got logits of shapes .*; wanted the same, with at least one example and two"):
        policy_churn(jnp.ones(now), jnp.ones(before))


@pytest.mark.parametrize(("now", "before"), [((0,), (0,)), ((2,), (2, 1))])
def test_values_to_compare_are_wanted(now, before):
    with pytest.raises(UserError, match=r"got values of shapes .*; wanted the same, with at least one example"):
        value_churn(jnp.ones(now), jnp.ones(before))


def test_seeds_may_be_mapped():
    now, before = random_logits(0, (2, 3, 8, 4))
    together = jax.jit(jax.vmap(policy_churn))(now, before)
    for i in range(3):
        np.testing.assert_allclose([leaf[i] for leaf in together], policy_churn(now[i], before[i]), rtol=1e-6)


@pytest.mark.parametrize("convolutional", [False, True])
def test_a_swapped_head_changes_every_answer(key, convolutional):
    shape = (4, 4, 1) if convolutional else (3,)
    network = (
        cnn(shape, 2, channels=(2,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,), activation="tanh")
        if convolutional
        else mlp(shape, 2, widths=(4,), activation="tanh")
    )
    params, state = network.init(key)
    previous = params | {"head": jax.tree.map(lambda leaf: leaf[..., ::-1], params["head"])}
    x, y = jax.random.normal(key, (16, *shape)), jnp.zeros(16, jnp.int32)
    found = measured(network, params, state, x, y, previous)
    assert found.keys() == {"policy_changed_fraction", "policy_kl"}
    assert found["policy_changed_fraction"] == 1.0
    assert found["policy_kl"] > 0
    same = measured(network, params, state, x, y, params)
    np.testing.assert_allclose(list(same.values()), [0.0, 0.0], atol=1e-6)


def test_scaling_the_weights_in_front_of_a_norm_does_not_matter(key):
    network = mlp((3,), 3, widths=(16, 16), norm="layer")
    params, state = network.init(key)
    scaled = params | {"dense_1": jax.tree.map(lambda leaf: 10 * leaf, params["dense_1"])}
    found = measured(network, scaled, state, jax.random.normal(key, (32, 3)), jnp.zeros(32, jnp.int32), params)
    assert found["policy_changed_fraction"] == 0.0
    assert found["policy_kl"] < 1e-5


def test_values_have_a_churn_of_their_own(key):
    network = mlp((3,), 1, widths=(4,))
    params, state = network.init(key)
    previous = params | {"head": params["head"] | {"bias": params["head"]["bias"] + 0.5}}
    found = measured(network, params, state, jnp.ones((4, 3)), jnp.zeros((4, 1)), previous)
    assert found.keys() == {"value_churn"}
    np.testing.assert_allclose(found["value_churn"], 0.25, rtol=1e-5)


def test_padding_of_texts_does_not_count():
    """The choice after token 0 is another one now, that after token 1 is not; one of the three 0 is padding."""

    def apply(params, state, inputs, *, train, key):
        return params[inputs.decoder], {}, state

    network = Network(lambda key: (jnp.eye(2), {}), apply, Wiring((), {"": "embed"}))
    text = Text(jnp.ones((2, 3), jnp.int32), jnp.array([[0, 0], [0, 1]]))
    now = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    found = measured(network, now, {}, text, jnp.array([[1, 0], [1, 1]]), jnp.eye(2))
    np.testing.assert_allclose(found["policy_changed_fraction"], 2 / 3, rtol=1e-6)
    divergence = (np.e - 1) / (np.e + 1)  # the difference of the probabilities: the logits differ by 1 and −1
    np.testing.assert_allclose(found["policy_kl"], 2 / 3 * divergence, rtol=1e-5)


def test_values_in_bins_are_refused(key):
    network = mlp((3,), 6, widths=(4,))
    params, state = network.init(key)
    with pytest.raises(UserError, match=r"got an output of shape \(4, 6\) for values of shape \(4, 1\)"):
        measured(network, params, state, jnp.ones((4, 3)), jnp.zeros((4, 1)), params)


def test_agents_have_a_policy_and_values(key):
    parts = {"policy": mlp((3,), 2, widths=(4,), activation="tanh"), "value": mlp((3,), 1, widths=(4,))}
    network = side_by_side(parts, {"policy": "actor", "value": "critic"})
    params, state = network.init(key)
    critic, actor = params["critic"], params["actor"]
    x = jax.random.normal(key, (16, 3))
    moved = params | {"critic": critic | {"head": critic["head"] | {"bias": critic["head"]["bias"] + 0.5}}}
    found = measured(network, params, state, x, Lived(jnp.zeros(16, jnp.int32)), moved, output="policy")
    np.testing.assert_allclose([found["policy_changed_fraction"], found["policy_kl"]], 0.0, atol=1e-6)
    np.testing.assert_allclose(found["value_churn"], 0.25, rtol=1e-5)
    swapped = params | {"actor": actor | {"head": jax.tree.map(lambda leaf: leaf[..., ::-1], actor["head"])}}
    found = measured(network, params, state, x, Lived(jnp.zeros(16, jnp.int32)), swapped, output="policy")
    assert found["policy_changed_fraction"] == 1.0
    assert found["value_churn"] == pytest.approx(0.0, abs=1e-12)  # the two programs may round differently
    assert found["policy_kl"] > 0


@pytest.mark.parametrize("coded", [None, two_hot(num_bins=3, low=-1.0, high=1.0).coded(2)])
def test_of_action_values_only_choices_and_values_mean_something(key, coded):
    network = mlp((3,), 6 if coded else 2, widths=(4,))
    params, state = network.init(key)
    x = jax.random.normal(key, (16, 3))
    bins = jnp.zeros(6).at[jnp.array([2, 5])].set(99.0) if coded else jnp.full(2, 1.0)
    kernel = jnp.zeros_like(params["head"]["kernel"])
    now, before = ({"kernel": kernel, "bias": bias} for bias in (bins, jnp.zeros_like(bins)))
    found = measured(
        network,
        params | {"head": now},
        state,
        x,
        Lived(jnp.zeros(16, jnp.int32)),
        params | {"head": before},
        coded=coded,
    )
    assert found.keys() == {"policy_changed_fraction", "value_churn"}
    assert found["policy_changed_fraction"] == 0.0
    np.testing.assert_allclose(found["value_churn"], 1.0, rtol=1e-5)
