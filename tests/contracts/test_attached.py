"""Every method, attached to a loop of one's own, gives the numbers of the engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from contracts import method_checks as checks
from contracts.test_methods import ALL
from pliant.methods import as_arrays, split_static
from pliant.training import Checkpoints


def attached(method):
    """The parameters and the state after the updates and the switch that `checks.train` makes with the same seed.

    The loop is a user's: a loss, its gradient, an update. Hyperparameters are traced, as in the engine.
    """
    network, objective = checks.network_of(method), checks.stream_of(method).objective
    batches = checks.stream_of(method).train.batch
    static, traced = split_static(method, checks.values_of(method))
    first = jax.tree.map(jnp.asarray, checks.beginning(method))
    has_statistics = bool(first.statistics)
    noise = jax.random.key(100)

    def apply(params, statistics, x):
        return network.apply(params, statistics, x, train=False, key=None)[:2]

    @jax.jit
    def run(first, traced):
        plastic = pliant.attach(
            method,
            apply if has_statistics else lambda params, x: apply(params, {}, x),
            first.params,
            checks.INPUTS,
            wiring=network.wiring,
            init=network.init if has_statistics else lambda key: network.init(key)[0],
            statistics=first.statistics if has_statistics else None,
            task_updates=checks.TASK_STEPS,
            has_changes=True,
            **static,
            **traced,
        )
        state = plastic.init(first.params, jax.random.key(0), first.statistics)
        state = state._replace(  # the bench ruins units of the first network: what remembers the start saw it whole
            key=jax.random.key_data(jax.random.key(0)),
            optimizer=first.optimizer,
            penalty=first.penalty,
            intervention=first.intervention,
        )

        def update(i, carry):
            params, state = carry
            batch = batches((), (), (i * 16 + jnp.arange(16)) % len(checks.TARGETS))

            def loss(params):
                key = jax.random.fold_in(noise, i + 1)
                output, _, after = network.apply(params, state.statistics, batch.inputs, train=True, key=key)
                return objective.losses(output, batch.targets, ()).mean(), after

            (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(params)
            return plastic.update(
                grads, state, params, batch.inputs, loss=value, statistics=statistics, pool=checks.INPUTS
            )[:2]

        def task(index, carry):
            switched = jax.lax.cond(
                index > 0, lambda carry: plastic.switch(*carry[::-1])[:2], lambda carry: carry, carry
            )
            start = index * checks.TASK_STEPS
            return jax.lax.fori_loop(start, start + checks.TASK_STEPS, update, switched)

        return jax.lax.fori_loop(0, checks.NUM_STEPS // checks.TASK_STEPS, task, (first.params, state))

    return run(first, as_arrays(traced))


FAST = ("adamo", "redo+l2-init")
EACH = [name if name in FAST else pytest.param(name, marks=pytest.mark.whole) for name in ALL]


@pytest.mark.parametrize("name", EACH)
def test_attached_it_gives_the_numbers_of_the_engine(name, tmp_path):
    params, state = jax.device_get(attached(ALL[name]))
    expected = checks.train(ALL[name])
    pairs = zip(*map(jax.tree.leaves, ((params, state.optimizer), (expected.params, expected.optimizer))), strict=True)
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)
    assert int(state.step) == checks.NUM_STEPS
    with Checkpoints(tmp_path, num_tasks_stored=1) as checkpoints:
        checkpoints.save(1, state)
        restored, _ = checkpoints.restore(state)
    assert checks.equal(restored, state)
