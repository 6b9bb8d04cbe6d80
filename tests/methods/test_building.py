import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, build, defaults, find, retarget
from pliant.networks import mlp
from pliant.streams import load_dataset, random_labels, random_seq2seq, slowly_changing_regression
from pliant.supervised import RunConfig, make_plan

WIRING = mlp((2,), 1, widths=(3,)).wiring


@pytest.mark.parametrize(
    ("name", "fraction", "wanted"),
    [
        ("cyclic-lr", 0.05, 0.5),
        ("cyclic-lr", 0.55, 0.5),
        ("cyclic-lr", 0.1, 1.0),
        ("rewarmed-lr", 0.05, 0.5),
        ("rewarmed-lr", 0.9, 1.0),
    ],
)
def test_the_schedule_is_the_factor_of_the_learning_rate(name, fraction, wanted):
    method = METHODS[name]
    values = defaults(method, learning_rate=1.0)

    def first_move(**moment):
        tx = build(method, WIRING, values, **moment).optimizer
        return float(tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0])

    np.testing.assert_allclose(first_move(fraction=jnp.float32(fraction)), -wanted, rtol=1e-5)
    np.testing.assert_allclose(first_move(fraction=jnp.float32(fraction), rate=0.1), -0.1 * wanted, rtol=1e-5)


def test_the_fraction_may_be_traced():
    method = METHODS["cyclic-lr"]

    @jax.jit
    def first_move(fraction):
        tx = build(method, WIRING, defaults(method, learning_rate=1.0), fraction=fraction).optimizer
        return tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0]

    np.testing.assert_allclose([first_move(0.05), first_move(0.55)], [-0.5, -0.5], rtol=1e-5)


@pytest.fixture(scope="module")
def stream():
    return slowly_changing_regression(num_examples=40)


@pytest.mark.parametrize("name", ["two-hot", "hl-gauss"])
def test_only_outputs_and_objective_are_retargeted(stream, name):
    new = retarget(METHODS[name], stream, defaults(METHODS[name]) | {"num_bins": 11})
    assert new.num_outputs == 11
    assert new.objective.score == "squared_error"
    assert new._replace(num_outputs=stream.num_outputs, objective=stream.objective) == stream


def test_most_methods_leave_the_stream_as_it_is(stream):
    assert retarget(METHODS["redo"], stream, defaults(METHODS["redo"])) is stream


@pytest.mark.parametrize("name", ["two-hot", "hl-gauss"])
def test_streams_without_values_are_refused(name):
    for other, score in ((random_labels(load_dataset("digits")), "accuracy"), (random_seq2seq(), "token_accuracy")):
        message = (
            f"got the method '{name}' on '{other.name}': an objective that is scored by its {score}; "
            "wanted values to regress on"
        )
        with pytest.raises(UserError, match=message):
            retarget(METHODS[name], other, defaults(METHODS[name]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("last-k-reset",), "settings": ("last-k-reset.num_layers=9",)}, "got num_layers=9"),
        ({"methods": ("shrink-perturb",), "settings": ("shrink-perturb.mode=gaussian",)}, "acts after every update"),
        (
            {"methods": ("plasticity-injection",), "head_at_switch": "zero"},
            "got head_at_switch='zero' for 'plasticity-injection', which has frozen heads beside",
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_plan(RunConfig(**options))


@pytest.mark.parametrize("name", ["plasticity-injection+layernorm", "adamo+plasticity-injection", "hare-tortoise+redo"])
def test_combinations_are_planned(name):
    assert make_plan(RunConfig(methods=(name,))).methods[0].method.name == find(name).name == name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("adam_optimizer", r"pliant\.optimizers\.adam\(learning_rate"),
        ("on_roles", r"pliant\.types\.Part\(factory, roles="),
        ("reshape", r"pliant\.methods\.retarget"),
    ],
)
def test_old_names_are_refused_with_the_new_ones(old, new):
    with pytest.raises(UserError, match=rf"got pliant\.methods\.{old}; wanted {new}"):
        exec(f"from pliant.methods import {old}")  # as a user's file would
