import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import revival
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
BEFORE = jnp.array([[0.0, 0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 2.0, 3.0]])
AFTER = jnp.array([[1.0, 0.0, 0.0, 5.0, 1.0], [0.0, 0.0, 0.0, 5.0, 0.0]])


def numbers(found):
    return float(found.revived.pooled), float(found.newly_dead.pooled)


def test_golden():
    assert numbers(revival({"one": BEFORE}, {"one": AFTER})) == pytest.approx((1 / 2, 1 / 3))
    assert numbers(revival({"one": AFTER}, {"one": BEFORE})) == pytest.approx((1 / 2, 1 / 3))


def test_pooled_counts_units_and_not_layers():
    found = revival({"one": BEFORE, "two": jnp.zeros((2, 2))}, {"one": AFTER, "two": jnp.ones((2, 2))})
    assert numbers(found) == pytest.approx((3 / 4, 1 / 3))
    assert float(found.revived.by_layer["two"]) == 1.0
    assert np.isnan(found.newly_dead.by_layer["two"])


def test_nothing_to_take_a_share_of_is_nan():
    zeros, ones = {"one": jnp.zeros((2, 3))}, {"one": jnp.ones((2, 3))}
    np.testing.assert_array_equal(numbers(revival(zeros, zeros)), (0.0, np.nan))
    np.testing.assert_array_equal(numbers(revival(ones, ones)), (np.nan, 0.0))
    np.testing.assert_array_equal(numbers(revival(zeros, ones)), (1.0, np.nan))
    np.testing.assert_array_equal(numbers(revival(ones, zeros)), (np.nan, 1.0))


@given(st.integers(0, 2**31), st.permutations(range(6)))
@few
def test_counts_add_up_whatever_the_order(seed, order):
    generator = np.random.default_rng(seed)
    before, after = (jnp.asarray(generator.random((2, 6)) * (generator.random(6) < 0.5), jnp.float32) for _ in "ab")
    found = numbers(revival({"one": before}, {"one": after}))
    again = numbers(revival({"one": before[:, jnp.array(order)]}, {"one": 3 * after[:, jnp.array(order)]}))
    np.testing.assert_array_equal(found, again)
    was, now = int((before == 0).all(0).sum()), int((after == 0).all(0).sum())
    revived, died = (share * of if of else 0.0 for share, of in zip(found, (was, 6 - was), strict=True))
    assert now == pytest.approx(was - revived + died)


def test_units_behind_crelu_are_counted_once():
    before = jnp.array([[0.0, 0.0, 0.0, 0.0, 2.0, 0.0]])  # unit 1 fires through its second half
    after = jnp.array([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]])
    assert numbers(revival({"one": before}, {"one": after}, {"one": 3})) == (0.5, 1.0)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_in_nan_out(bad):
    broken = {"bad": BEFORE.at[0, 3].set(bad), "good": BEFORE}
    whole = {"bad": AFTER, "good": AFTER}
    for found in (revival(broken, whole), revival(whole, broken)):
        assert np.isnan(numbers(found)).all()
        assert np.isnan(found.revived.by_layer["bad"])
        assert float(found.revived.by_layer["good"]) == 0.5


def test_refuses():
    nothing = {"one": jnp.ones((0, 5))}
    for arguments in (({}, {"one": AFTER}), ({"one": BEFORE}, {}), (nothing, nothing)):
        with pytest.raises(UserError, match="or an empty batch; wanted at least one hidden layer"):
            revival(*arguments)
    for other in ({"two": AFTER}, {"one": AFTER[:, :4]}):
        with pytest.raises(UserError, match="got features of two different networks; wanted the same layers"):
            revival({"one": BEFORE}, other)


def test_compiled_and_over_seeds_it_is_the_same(key):
    before, after = jax.nn.relu(jax.random.normal(key, (2, 3, 2, 16)))

    def both(before, after):
        found = revival({"one": before}, {"one": after})
        return found.revived.pooled, found.newly_dead.pooled

    wanted = [both(*each) for each in zip(before, after, strict=True)]
    np.testing.assert_array_equal(jnp.stack(jax.jit(jax.vmap(both))(before, after), 1), np.array(wanted))


@pytest.mark.parametrize("make", ["mlp", "cnn"])
def test_what_was_switched_off_and_on_is_found(key, make):
    """Of 4 units in front, 0 and 1 were dead; now 1 and 2 are. Those behind always fire."""
    if make == "mlp":
        network, name, x = mlp((3,), 2, widths=(4, 2)), "dense_0", jax.random.normal(key, (8, 3))
        behind = "dense_1"
    else:
        network = cnn((5, 5, 1), 2, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=(2,))
        name, behind, x = "conv_0", "dense_0", jax.random.normal(key, (3, 5, 5, 1))
    params, state = network.init(key)
    params[behind]["bias"] = params[behind]["bias"] + 1e4
    earlier = params | {name: params[name] | {"bias": jnp.array([-99.0, -99.0, 9.0, 9.0])}}
    params[name] = params[name] | {"bias": jnp.array([9.0, -99.0, -99.0, 9.0])}
    found = measure("revival", subject(network, params, state, x, previous=(earlier, state))).numbers
    wanted = {"revival_rate": 1 / 2, "newly_dead_fraction": 1 / 4}
    wanted |= {f"revival_rate/{name}": 1 / 2, f"newly_dead_fraction/{name}": 1 / 2}
    wanted |= {f"revival_rate/{behind}": np.nan, f"newly_dead_fraction/{behind}": 0.0}
    assert found == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("options", [{"activation": "tanh"}, {"activation": "maxmin"}, {"widths": ()}])
def test_no_number_where_nothing_is_ever_silent(key, options):
    network = mlp((3,), 2, **({"widths": (4,)} | options))
    params, state = network.init(key)
    found = measure("revival", subject(network, params, state, jnp.ones((4, 3)), previous=(params, state))).numbers
    assert set(found) == {"revival_rate", "newly_dead_fraction"}
    assert np.isnan(list(found.values())).all()
