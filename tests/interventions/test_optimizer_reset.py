import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from pliant.errors import UserError
from pliant.interventions import optimizer_reset
from pliant.optimizers import scale_by_adam_per_weight, upgd
from pliant.types import Fresh, Learned

PARAMS = {"w": jnp.array([1.0, -2.0])}
GRADIENT = {"w": jnp.array([0.5, -3.0])}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _used(tx, steps=2000):
    """The state after a long steady gradient: m = g and v = g², nearly."""

    def step(_, state):
        return tx.update(GRADIENT, state, PARAMS)[1]

    return jax.jit(lambda: jax.lax.fori_loop(0, steps, step, tx.init(PARAMS)))()


def _reset(tx, state, index=1, **options):
    method, learned = optimizer_reset(**options), Learned(PARAMS, {}, state)
    fresh = Fresh(lambda key: (PARAMS, {}), tx.init)
    return method.switch(jax.random.key(0), index, learned, method.init(learned), fresh)


def test_the_first_step_is_one_learning_rate_again():
    tx = optax.adam(0.1)
    after, _, info = _reset(tx, _used(tx))
    same(after.optimizer, tx.init(PARAMS))
    same(after.params, PARAMS)
    assert float(info["norm_moved"]) == 0.0
    updates, _ = tx.update({"w": jnp.array([1e-3, 40.0])}, after.optimizer)
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1], rtol=1e-4)


def test_moments_may_be_kept():
    """Adam-Rel: with m = g and v = g², the first step is √(1 − b2)/(1 − b1) learning rates."""
    tx = optax.adam(0.1)
    used = _used(tx, steps=20_000)
    after = _reset(tx, used, keep_moments=True)[0].optimizer
    same((after[0].mu, after[0].nu), (used[0].mu, used[0].nu))
    assert (int(used[0].count), int(after[0].count)) == (20_000, 0)
    updates, _ = tx.update(GRADIENT, after)
    np.testing.assert_allclose(updates["w"], [-0.1 * 0.316228, 0.1 * 0.316228], rtol=1e-4)


def test_counts_of_schedules_stay():
    tx = optax.chain(optax.adam(optax.linear_schedule(0.1, 0.0, 100)), optax.trace(0.9))
    used = _used(tx, steps=7)
    after = _reset(tx, used, keep_moments=True)[0].optimizer
    assert [int(after[0][i].count) for i in (0, 1)] == [0, 7]
    same(after[1], used[1])


WRAPPED = {
    "masked": (optax.masked(optax.adam(0.1), {"w": True}), lambda s: s.inner_state[0]),
    "partition": (
        optax.partition({"a": optax.adam(0.1)}, {"w": "a"}),
        lambda s: s.inner_states["a"].inner_state[0],
    ),
    "multi_steps": (
        optax.MultiSteps(optax.adam(0.1), 1).gradient_transformation(),
        lambda s: s.inner_opt_state[0],
    ),
    "inject": (optax.inject_hyperparams(optax.adam)(0.1), lambda s: s.inner_state[0]),
    "schedule_free": (contrib.schedule_free_adamw(0.1), lambda s: s.base_optimizer_state[0]),
    "upgd": (upgd(0.1, base="adam"), lambda s: s.base),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_counts_are_found_in_wrappers_and_no_other_number_is_touched(name):
    tx, adam = WRAPPED[name]
    used = _used(tx, steps=7)
    after = _reset(tx, used, keep_moments=True)[0].optimizer
    assert (int(adam(used).count), int(adam(after).count)) == (7, 0)
    same(eqx.tree_at(lambda s: adam(s).count, after, jnp.int32(7)), used)


def test_utilities_of_upgd_are_no_moments():
    tx = upgd(0.1)
    with pytest.raises(UserError, match="counts no updates beside its moments"):
        _reset(tx, tx.init(PARAMS), keep_moments=True)


def test_weights_with_corrections_of_their_own_are_told():
    tx = optax.chain(scale_by_adam_per_weight(), optax.scale(-0.1))
    used = _used(tx, steps=7)
    after = _reset(tx, used, keep_moments=True)[0].optimizer
    zero = {"w": jnp.zeros(2)}
    same(after[0], used[0]._replace(mu_mass=zero, nu_mass=zero))


def test_between_resets_nothing_is_touched():
    tx = optax.adam(0.1)
    used = _used(tx)
    for keep_moments in (False, True):
        same(_reset(tx, used, every_tasks=2, keep_moments=keep_moments)[0].optimizer, used)
        same(_reset(tx, used, every_tasks=0, keep_moments=keep_moments)[0].optimizer, used)


def test_nothing_to_count_is_refused():
    tx = optax.sgd(0.1, momentum=0.9)
    message = "got keep_moments=True for an optimizer that counts no updates beside its moments; wanted Adam"
    with pytest.raises(UserError, match=message):
        _reset(tx, tx.init(PARAMS), keep_moments=True)
    same(_reset(tx, _used(tx, steps=3))[0].optimizer, tx.init(PARAMS))


def test_a_negative_period_is_refused():
    with pytest.raises(UserError, match="got every_tasks=-1"):
        optimizer_reset(every_tasks=-1)
