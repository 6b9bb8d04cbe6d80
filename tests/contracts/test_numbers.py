"""Numbers are checked where methods are made, also those that arrive as arrays."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant import interventions, optimizers, penalties
from pliant.errors import UserError
from pliant.networks import mlp

WIRING = mlp((2,), 1, widths=(3,), norm="layer", use_bias=False).wiring
PERIODS = [
    (lambda every: optimizers.add_isometry_step(0.1, every=every), "every"),
    (lambda every: interventions.redo(WIRING, every=every), "every"),
    (lambda every: interventions.redo(WIRING, num_examples=every), "num_examples"),
    (lambda every: interventions.scheduled_redo(WIRING, every=every), "every"),
    (lambda every: interventions.regrama(WIRING, every=every), "every"),
    (lambda every: interventions.snr(WIRING, threshold_every=every), "threshold_every"),
    (lambda every: interventions.snr(WIRING, max_silence=every), "max_silence"),
    (lambda every: interventions.nap(WIRING, every=every), "every"),
    (lambda every: interventions.selective_reinit(every=every), "every"),
    (lambda every: interventions.reprojection(every=every), "every"),
    (lambda every: interventions.hare_tortoise(reset_every=every), "reset_every"),
    (lambda every: interventions.dash(num_batches=every), "num_batches"),
    (lambda every: interventions.fire(every_tasks=every), "every_tasks"),
    (lambda every: interventions.full_reset(every_tasks=every), "every_tasks"),
    (lambda every: interventions.layer_reset(WIRING, every_tasks=every), "every_tasks"),
    (lambda every: interventions.plasticity_injection(WIRING, at_task=every), "at_task"),
    (lambda every: penalties.wasserstein_init(sort_every=every), "sort_every"),
    (lambda every: penalties.distillation(distill_steps=every), "distill_steps"),
    (lambda every: penalties.churn(lag=every), "lag"),
    (lambda every: penalties.parseval(groups=every), "groups"),
]


@pytest.fixture(autouse=True)
def untyped(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first


@pytest.mark.parametrize(("make", "name"), PERIODS)
def test_periods_are_whole_numbers(make, name):
    make(2.0)
    make(np.int32(2))
    for value in (2.5, np.float32(2.5)):
        with pytest.raises(UserError, match=rf"got {name}=2\.5; wanted a whole number ≥ "):
            make(value)
    for value in (math.nan, jnp.array(-1), np.ones(2), "2", True):
        with pytest.raises(UserError, match=f"got {name}=.*; wanted a "):
            make(value)


def test_numbers_of_a_grid_are_not_known_yet():
    def traced(every, strength):
        interventions.redo(WIRING, every=every, threshold=strength)
        penalties.wasserstein_init(strength, sort_every=every)
        return every

    jax.eval_shape(traced, jnp.int32(2), jnp.float32(0.1))


@pytest.mark.parametrize(
    "make",
    [
        lambda value: interventions.redo(WIRING, threshold=value),
        lambda value: interventions.regrama(WIRING, threshold=value),
    ],
)
def test_thresholds_are_finite_numbers(make):
    make(-1)
    for value in (math.nan, math.inf, np.float32("nan"), jnp.ones(2)):
        with pytest.raises(UserError, match=r"got threshold=.*; wanted a finite number"):
            make(value)


@pytest.mark.parametrize(
    "make",
    [
        *(penalties.l2, penalties.l2_init, penalties.gram, penalties.parseval, penalties.spectral, penalties.churn),
        *(penalties.wasserstein_init, penalties.distillation, penalties.effective_rank),
        *(optimizers.adamo, optimizers.upgd, optimizers.soft_reset),
        lambda value: optimizers.adamo(1e-3, isometry_strength=value),
        lambda value: interventions.pull_to_init(learning_rate=value),
    ],
)
def test_strengths_and_rates_are_checked_as_arrays_too(make):
    make(np.float32(0.1))
    make(jnp.array(0.1))
    for value in (np.array(-0.1), jnp.float32(jnp.nan), jnp.ones(2), np.ones((1, 1))):
        with pytest.raises(UserError, match="wanted a finite number ≥ 0"):
            make(value)
