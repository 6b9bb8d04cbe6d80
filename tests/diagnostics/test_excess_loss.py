import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, _excess_loss, excess_loss_fraction, excess_loss_plasticity
from pliant.diagnostics._excess_loss import _redealt
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Batch, Rule, Text
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
BUDGETS = (1, 5, 20)


def constant(params, inputs):
    return jnp.broadcast_to(params, (len(inputs), 2))


def halves(output, targets):
    return 0.5 * jnp.square(output - targets).sum(axis=1)


def towards(key):
    """One point for all examples."""
    return Batch(jnp.zeros((3, 1)), jnp.broadcast_to(jax.random.normal(key, (2,)), (3, 2)))


def adapted(key, params=None, optimizer=None, draw=towards, **options):
    start = jnp.zeros(2) if params is None else params
    options = {"num_tasks": 3, "num_steps": BUDGETS, "batch_size": 2} | options
    return excess_loss_plasticity(constant, halves, start, optimizer or optax.sgd(0.1), draw, key, **options)


def of_network(network, params, state, inputs, targets, *, learning_rate=1e-2):
    rule = Rule(optax.with_extra_args_support(optax.adam(learning_rate)), 8)
    return subject(network, params, state, inputs, targets, rule=rule)


@jax.jit
def adapted_quickly(key, params, learning_rate=0.1):
    """Compiled once for many tests."""
    return adapted(key, params, optax.sgd(learning_rate))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(_excess_loss, "_NUM_TASKS", 2)
    monkeypatch.setattr(_excess_loss, "_NUM_STEPS", (1, 2, 3))


def test_golden_fractions():
    found = excess_loss_fraction(jnp.array([2.0, 2.0, 2.0, 1.5]), jnp.array([0.5, 2.0, 5.0, 1.0]), 0.5)
    np.testing.assert_allclose(found, [1.0, 0.0, -2.0, 0.5], rtol=1e-6)
    assert float(excess_loss_fraction(jnp.float32(4.0), jnp.float32(1.0))) == 0.75


def test_nothing_to_eliminate_is_nan():
    before = jnp.array([0.0, 9e-9, 1.1e-8, jnp.nan])
    found = excess_loss_fraction(before, jnp.zeros(4))
    assert np.isnan(found).tolist() == [True, True, False, True]


@given(st.floats(0.1, 100), st.floats(0, 100), st.floats(0, 0.05), st.floats(1e-2, 1e2))
@few
def test_scale_does_not_matter_and_one_is_the_most(before, after, best, scale):
    values = [jnp.float32(x) for x in (before, max(after, best), best)]
    found = float(excess_loss_fraction(*values))
    assert found <= 1 + 1e-6
    np.testing.assert_allclose(excess_loss_fraction(*(scale * x for x in values)), found, rtol=1e-4, atol=1e-5)


def test_golden_quadratic(key):
    """½‖θ − θ*‖² and gradient descent: the same for all tasks, 1 − (1 − η)^2T."""
    found = adapted_quickly(key, jnp.zeros(2))
    wanted = 1 - 0.9 ** (2 * np.array(BUDGETS))
    np.testing.assert_allclose(found.fractions, np.broadcast_to(wanted, (3, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.plasticity, wanted, rtol=1e-5)
    assert found.losses.shape == (3, 4)
    np.testing.assert_allclose(found.losses[:, 1:], (1 - wanted)[None] * found.losses[:, :1], rtol=1e-4)
    assert int(found.num_skipped) == 0


def test_a_task_that_is_solved_is_skipped(key):
    """Every other task, by a bit of its key, has the network's own output as its target."""

    def draw(key):
        batch = towards(key)
        return batch._replace(targets=batch.targets * jax.random.bernoulli(key, 0.5))

    found = adapted(key, draw=draw, num_tasks=6)
    skipped = np.isnan(found.fractions).all(axis=1)
    assert 0 < skipped.sum() < 6
    assert int(found.num_skipped) == skipped.sum()
    np.testing.assert_allclose(found.plasticity, 1 - 0.9 ** (2 * np.array(BUDGETS)), rtol=1e-5)


def test_only_solved_tasks_give_no_number(key):
    found = adapted(key, draw=lambda key: Batch(jnp.zeros((3, 1)), jnp.zeros((3, 2))))
    assert int(found.num_skipped) == 3
    assert np.isnan(found.plasticity).all()
    assert np.isnan(found.fractions).all()


def test_the_best_loss_is_taken_off(key):
    """Targets ±1 under one value: no less than 1/2 an output can be reached."""

    def draw(key):
        return Batch(jnp.zeros((2, 1)), jnp.array([[1.0, 1.0], [-1.0, -1.0]]))

    measured = jax.jit(
        lambda best: adapted(key, jnp.full(2, 2.0), draw=draw, batch_size=4096, best_loss=best).plasticity
    )
    wanted = 1 - 0.9 ** (2 * np.array(BUDGETS))
    np.testing.assert_allclose(measured(jnp.float32(1.0)), wanted, rtol=0.03)
    np.testing.assert_allclose(measured(jnp.ones(3)), wanted, rtol=0.03)
    assert float(measured(jnp.float32(0.0))[-1]) < 0.85


def test_divergence_is_negative_and_not_clipped(key):
    found = adapted_quickly(key, jnp.zeros(2), 3.0)
    np.testing.assert_allclose(found.plasticity[:2], [1 - 4.0, 1 - 4.0**5], rtol=1e-4)


def test_nan_in_nan_out(key):
    found = adapted_quickly(key, jnp.full(2, jnp.nan))
    assert np.isnan(found.plasticity).all()
    assert int(found.num_skipped) == 0


def test_the_key_decides_everything_and_nothing_changes(key):
    params = jnp.zeros(2)
    one, again, other = (adapted_quickly(k, params) for k in (key, key, jax.random.key(5)))
    np.testing.assert_array_equal(one.losses, again.losses)
    assert not np.allclose(one.losses, other.losses)
    np.testing.assert_array_equal(params, np.zeros(2))


def test_compiled_and_batched_is_the_same_as_a_loop(key):
    starts = jnp.array([[0.0, 1.0], [2.0, -1.0]])
    both = jax.jit(jax.vmap(lambda start: adapted(key, start)))(starts)
    for i in range(2):
        np.testing.assert_allclose(both.losses[i], adapted_quickly(key, starts[i]).losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_tasks": 0}, "got num_tasks=0; wanted a finite number ≥ 1"),
        ({"num_steps": ()}, "got the first of num_steps=0; wanted a finite number ≥ 1"),
        ({"num_steps": (0, 5)}, "got the first of num_steps=0"),
        ({"num_steps": (5, 3)}, r"got losses after \[0, 5, 3\] updates; wanted numbers ≥ 0 that ascend"),
        ({"batch_size": 0}, "got batch_size=0; wanted a finite number ≥ 1"),
        ({"draw": lambda key: Batch(jnp.zeros((0, 1)), jnp.zeros((0, 2)))}, "got an empty batch; wanted at least one"),
    ],
)
def test_nothing_to_measure_is_refused(key, changes, message):
    with pytest.raises(UserError, match=message):
        adapted(key, **changes)


def test_targets_are_dealt_anew(key):
    batch = Batch(jnp.arange(20.0)[:, None], {"class": jnp.arange(20)})
    found = _redealt(batch, key)
    np.testing.assert_array_equal(found.targets["class"], batch.targets["class"])
    assert sorted(found.inputs[:, 0].tolist()) == list(range(20))
    assert found.inputs[:, 0].tolist() != list(range(20))


def test_what_is_written_stays_with_its_target(key):
    numbers = jnp.arange(20)[:, None]
    found = _redealt(Batch(Text(numbers, numbers + 100), numbers), key)
    np.testing.assert_array_equal(found.inputs.decoder, found.targets + 100)
    assert sorted(found.inputs.source[:, 0].tolist()) == list(range(20))
    assert found.inputs.source[:, 0].tolist() != list(range(20))


def test_diagnostic_of_networks(key):
    """Two fresh ones are much alike, a dead one cannot tell inputs apart."""
    network = mlp((3,), 2, widths=(32,))
    fresh, other = (network.init(k)[0] for k in jax.random.split(key))
    dead = fresh | {"dense_0": fresh["dense_0"] | {"bias": fresh["dense_0"]["bias"] - 100.0}}
    of = of_network(network, fresh, {}, jax.random.normal(key, (12, 3)), jnp.arange(12) % 2)
    diagnostic = DIAGNOSTICS["excess-loss-plasticity"]
    measured = jax.jit(lambda params: diagnostic.measure(of._replace(params=params)))
    found = [diagnostic.summarize(jax.tree.map(np.asarray, measured(params))) for params in (fresh, other, dead)]
    names = {"excess_loss_plasticity", "num_skipped_tasks"} | {f"excess_loss_plasticity/{t}" for t in (100, 500)}
    assert set(found[0].numbers) == names
    assert found[0].arrays["fractions"].shape == (10, 3)
    assert found[0].arrays["losses"].shape == (10, 4)
    long, middle, short = (found[0].numbers[f"excess_loss_plasticity{t}"] for t in ("", "/500", "/100"))
    assert 1 >= long > middle > short > 0.1
    assert long > 0.8
    np.testing.assert_allclose(found[1].numbers["excess_loss_plasticity"], long, atol=0.1)
    assert found[2].numbers["excess_loss_plasticity"] < 0.3
    assert found[0].numbers["num_skipped_tasks"] == 0.0


def test_diagnostic_of_images_does_not_depend_on_the_moment(short, key):
    network = cnn((8, 8, 1), 3, channels=(2,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=())
    params, state = network.init(key)
    of = of_network(network, params, state, jax.random.normal(key, (6, 8, 8, 1)), jnp.arange(6) % 3)
    curves = jax.jit(lambda key: DIAGNOSTICS["excess-loss-plasticity"].measure(of._replace(key=key)).losses)
    assert np.isfinite(curves(key)).all()
    np.testing.assert_array_equal(curves(key), curves(jax.random.key(99)))


def test_diagnostic_of_values(short, key):
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    found = measure(
        "excess-loss-plasticity",
        of_network(network, params, state, jax.random.normal(key, (6, 3)), jax.random.normal(key, (6, 2))),
    )
    assert np.isfinite(list(found.numbers.values())).all()
