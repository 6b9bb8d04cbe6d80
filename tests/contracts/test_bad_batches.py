"""Batches that are not a number, whose updates the optimizer leaves out, end no method."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contracts import method_checks as checks
from pliant.methods import METHODS, build, find
from pliant.training import switch_task, train_step
from pliant.types import Intervention, Lesson

NUM_STEPS = 16
BAD = (8, 14)
"""Updates with bad batches: one at which periodic methods act, and one soon after the task changed."""
REMEMBERING = [name for name, method in METHODS.items() if method.penalty or method.intervention]


def train(method, bad=BAD):
    """The state after 16 updates; task and examples of the probe are bad with the batch."""
    network, stream = checks.network_of(method), checks.stream_of(method)
    values = checks.values_of(method)
    if "num_batches" in values:
        values["num_batches"] = 3

    def parts(i):
        built = build(method, network.wiring, values, fraction=i % checks.TASK_STEPS / checks.TASK_STEPS)
        return built._replace(optimizer=optax.apply_if_finite(built.optimizer, max_consecutive_errors=NUM_STEPS))

    def body(i, state):
        step = jnp.int32(i + 1)
        factor = jnp.where(jnp.isin(step, jnp.array(bad, jnp.int32)), jnp.nan, 1.0)

        def batch_of(indices):
            batch = stream.train.batch((), (), indices)
            return batch._replace(inputs=batch.inputs * factor)

        def examples(key, num_examples):
            return batch_of(jax.random.randint(key, (num_examples,), 0, len(checks.TARGETS)))

        def switched(state):
            return switch_task(network, parts(0), state, keys, jnp.int32(1))[0]

        state = jax.lax.cond(i == checks.TASK_STEPS, switched, lambda state: state, state)
        batch = batch_of((i * 16 + jnp.arange(16)) % len(checks.TARGETS))
        return train_step(network, parts(i), stream.objective, state, Lesson(batch, (), examples), step, keys).state

    state, keys = checks.start(method, values, 0)
    state = state._replace(optimizer=parts(0).optimizer.init(state.params))
    return jax.jit(lambda state: jax.lax.fori_loop(0, NUM_STEPS, body, state))(state)


def numbers(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in REMEMBERING])
def test_no_method_ends(name):
    state = train(METHODS[name])
    assert state.optimizer.total_notfinite >= 1  # the count is of the optimizer, which some methods reset
    assert all(np.isfinite(leaf).all() for leaf in numbers(state))


def test_a_method_that_averages_what_it_sees_is_found_out():
    def intervention(wiring):
        def update(key, step, learned, state, signals):
            return learned, 0.9 * state + signals.features["dense_0"].mean(), {}

        return Intervention(lambda learned: jnp.float32(0), update)

    state = train(METHODS["adam"]._replace(intervention=intervention))
    assert not all(np.isfinite(leaf).all() for leaf in numbers(state))


@pytest.mark.parametrize("name", ["redo", "redo-scheduled", "regrama", "selective-weight-reinit"])
def test_nothing_is_reset_for_what_is_not_a_number(name):
    """Of bad batches alone, nothing can be said of any unit or weight: the parameters stay."""
    method = find(name)
    state = train(method, bad=tuple(range(1, NUM_STEPS + 1)))
    begun, _ = checks.start(method, checks.values_of(method), 0)
    jax.tree.map(np.testing.assert_array_equal, state.params, begun.params)
