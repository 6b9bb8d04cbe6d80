import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.diagnostics import dormancy_scores
from pliant.errors import UserError
from pliant.interventions import ReDoState, redo, scheduled_redo
from pliant.networks import mlp
from pliant.types import Learned, Signals, Wiring


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Case(NamedTuple):
    """A 3-5-4-2 network, and ReDo on it as one program for all periods and thresholds."""

    wiring: Wiring
    params: dict
    opt_state: optax.OptState
    output: Callable
    signals: Callable
    update: Callable


@functools.cache
def case(activation="relu"):
    network = mlp((3,), 2, widths=(5, 4), activation=activation)
    params, state = network.init(jax.random.key(0))
    params["dense_0"]["bias"] = params["dense_0"]["bias"] + 0.1
    x = jax.random.normal(jax.random.key(7), (64, 3))
    tx = optax.adam(1e-2)
    opt_state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[1]

    @jax.jit
    def output(params):
        return network.apply(params, state, x, train=False, key=None)[0]

    def signals(params):
        def probe(learned, key, num_examples):
            inputs = jax.random.choice(key, x, (num_examples,))
            return network.apply(learned.params, state, inputs, train=False, key=key)[1]

        return Signals(gradients=params, features={}, probe=probe, fresh=None)

    @jax.jit
    def update(params, *, seed=0, step=1, threshold=0.0, every=1):
        method = redo(network.wiring, threshold=threshold, every=every)
        learned = Learned(params, {}, opt_state)
        return method.update(jax.random.key(seed), step, learned, method.init(learned), signals(params))

    return Case(network.wiring, params, opt_state, output, signals, update)


def silenced(params, units=(1, 3)):
    flags = jnp.isin(jnp.arange(5), jnp.array(units))
    kernel, bias = params["dense_0"]["kernel"], params["dense_0"]["bias"]
    return params | {"dense_0": {"kernel": jnp.where(flags[None], 0.0, kernel), "bias": jnp.where(flags, 0.0, bias)}}


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_silent_units_are_recycled_and_no_other(activation):
    of = case(activation)
    params = silenced(of.params)
    (new, _, new_opt), _, info = of.update(params)
    assert int(info["units_reset"]) == 2
    silent = np.array([False, True, False, True, False])
    changed = np.any(np.asarray(new["dense_0"]["kernel"] != params["dense_0"]["kernel"]), axis=0)
    same(changed, silent)
    rows = np.tile(silent, 2 if activation == "crelu" else 1)
    same(np.all(np.asarray(new["dense_1"]["kernel"]) == 0, axis=1), rows)
    same(np.all(np.asarray(new_opt[0].mu["dense_1"]["kernel"]) == 0, axis=1), rows)
    same(np.asarray(new_opt[0].nu["dense_0"]["bias"]) == 0, silent)
    same(new["head"], params["head"])
    same(of.output(new), of.output(params))


def test_it_fires_at_its_period_only():
    of = case()
    params = silenced(of.params)
    for step in range(1, 8):
        (new, _, new_opt), _, info = of.update(params, step=step, every=3)
        assert int(info["units_reset"]) == (2 if step % 3 == 0 else 0)
        if step % 3:
            same((new, new_opt), (params, of.opt_state))
        else:
            assert np.any(np.asarray(new["dense_0"]["kernel"][:, 1]) != 0)


@pytest.mark.parametrize(("silent", "threshold"), [((1, 3), -1.0), ((), 0.0)])
def test_nothing_below_the_threshold_is_a_bitwise_no_op(silent, threshold):
    of = case()
    params = silenced(of.params, silent)
    (new, _, new_opt), _, info = of.update(params, threshold=threshold)
    same((new, new_opt), (params, of.opt_state))
    assert int(info["units_reset"]) == 0


def test_higher_thresholds_recycle_more():
    of = case()
    counts = [int(of.update(of.params, threshold=threshold)[2]["units_reset"]) for threshold in (0.0, 1.0, 1e6)]
    assert counts[0] == 0
    assert 2 <= counts[1] < 9
    assert counts[2] == 9


def test_the_key_decides_the_fresh_weights():
    of = case()
    params = silenced(of.params)
    a, b, c = (np.asarray(of.update(params, seed=seed)[0].params["dense_0"]["kernel"]) for seed in (0, 1, 0))
    same(a, c)
    assert np.all(a[:, [1, 3]] != b[:, [1, 3]])


def test_it_scores_as_many_examples_as_asked():
    of = case()
    asked = []

    def probe(learned, key, num_examples):
        asked.append(num_examples)
        return of.signals(of.params).probe(learned, key, num_examples)

    method = redo(of.wiring, every=1, num_examples=17)
    signals = of.signals(of.params)._replace(probe=probe)
    jax.eval_shape(lambda: method.update(jax.random.key(0), 1, Learned(of.params, {}, of.opt_state), (), signals))
    assert asked == [17]


def test_unbatched_step_keeps_a_branch_under_vmap():
    of = case()
    params = silenced(of.params)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)

    @jax.jit
    def update(seeds, step):
        return jax.vmap(lambda seed, params: of.update(params, seed=seed, step=step, every=2))(seeds, stacked)

    seeds = jnp.arange(2)
    assert "stablehlo.case" in update.lower(seeds, 2).as_text()
    (new, _, _), _, info = update(seeds, 2)
    assert info["units_reset"].tolist() == [2, 2]
    assert np.all(np.asarray(new["dense_0"]["kernel"][0, :, 1]) != np.asarray(new["dense_0"]["kernel"][1, :, 1]))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            {"activation": "maxmin"},
            {},
            r"got ReDo behind maxmin; wanted hidden layers in which every unit owns its output\. Use an elementwise",
        ),
        ({"widths": ()}, {}, "got ReDo on a network without hidden layers; wanted hidden layers"),
        ({}, {"every": 0}, r"got every=0; wanted a finite number ≥ 1\. Use the period in updates"),
        ({}, {"num_examples": 0}, r"got num_examples=0; wanted a finite number ≥ 1\. Use 64"),
        ({}, {"source": "old"}, r"got source='old'; wanted 'fresh' or 'initial'\. Leave it out for 'fresh'"),
    ],
)
def test_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        redo(wiring, **options)


@functools.cache
def updated_from_start():
    of = case()
    method = redo(of.wiring, threshold=0.0, every=1, source="initial")
    start = method.init(Learned(of.params, {}, of.opt_state))
    return start, jax.jit(
        lambda params, key: method.update(key, 1, Learned(params, {}, of.opt_state), start, of.signals(params))
    )


def test_source_initial_goes_back_to_the_start():
    of = case()
    params = silenced(jax.tree.map(lambda leaf: leaf + 0.3, of.params))
    start, update = updated_from_start()
    (new, _, _), state, info = update(params, jax.random.key(0))
    assert int(info["units_reset"]) == 2
    silent = np.array([False, True, False, True, False])
    for name in ("kernel", "bias"):
        same(new["dense_0"][name], jnp.where(silent, of.params["dense_0"][name], params["dense_0"][name]))
    same(new["dense_1"]["kernel"], jnp.where(silent[:, None], 0.0, params["dense_1"]["kernel"]))
    same(new["head"], params["head"])
    same(state, start)
    same(update(params, jax.random.key(5))[0].params, new)  # nothing is drawn


def test_the_start_is_kept_only_where_it_is_asked_for():
    of = case()
    learned = Learned(of.params, {}, of.opt_state)
    assert redo(of.wiring).init(learned) == ()
    state = redo(of.wiring, source="initial").init(learned)
    assert isinstance(state, ReDoState)
    assert sorted(state.start) == ["dense_0/bias", "dense_0/kernel", "dense_1/bias", "dense_1/kernel"]
    same(state.start["dense_1/kernel"], of.params["dense_1"]["kernel"])


@functools.cache
def scheduled(activation="relu", **options):
    of = case(activation)
    method = scheduled_redo(of.wiring, **({"every": 1, "horizon": 90} | options))
    return jax.jit(
        lambda params, step: method.update(
            jax.random.key(0), step, Learned(params, {}, of.opt_state), (), of.signals(params)
        )
    )


@pytest.mark.parametrize(("step", "wanted"), [(1, 2 + 2), (30, 2 + 2), (60, 1 + 1), (89, 0), (90, 0), (500, 0)])
def test_the_schedule_by_hand(step, wanted):
    """0.6 cos(1°) of 5 and 4 units is 2.9995 and 2.4; of 30°: 2.6 and 2.08; of 60°: 1.5 and 1.2; none from 90° on."""
    assert int(scheduled(fraction=0.6)(case().params, step)[2]["units_reset"]) == wanted


def test_the_schedule_begins_with_the_whole_fraction():
    """0.6 · 5 is 3, even where it is 2.9999998 in float32."""
    assert int(scheduled(fraction=0.6, horizon=10**7)(case().params, 1)[2]["units_reset"]) == 3 + 2


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_the_schedule_takes_the_least_active_first(activation):
    of = case(activation)
    params = silenced(of.params)
    new, _, info = scheduled(activation, fraction=0.45, horizon=10**7)(params, 1)
    assert int(info["units_reset"]) == 2 + 1
    changed = np.any(np.asarray(new.params["dense_0"]["kernel"] != params["dense_0"]["kernel"]), axis=0)
    same(changed, np.array([False, True, False, True, False]))
    rows = np.all(np.asarray(new.params["dense_1"]["kernel"]) == 0, axis=1)
    same(rows, np.tile([False, True, False, True, False], 2 if activation == "crelu" else 1))


def test_the_schedule_with_fraction_zero_is_a_bitwise_no_op():
    of = case()
    new, _, info = scheduled(fraction=0.0)(silenced(of.params), 1)
    same((new.params, new.optimizer), (silenced(of.params), of.opt_state))
    assert int(info["units_reset"]) == 0


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ({"activation": "maxmin"}, {}, "got scheduled ReDo behind maxmin; wanted hidden layers in which every unit"),
        ({}, {"fraction": 1.5}, r"got fraction=1.5; wanted a number in \[0, 1\]\. Use 0.3"),
        ({}, {"horizon": 0}, r"got horizon=0; wanted a finite number ≥ 1\. Use the number of updates"),
        ({}, {"every": 0}, "got every=0; wanted a finite number ≥ 1"),
        ({}, {"num_examples": 0}, "got num_examples=0; wanted a finite number ≥ 1"),
    ],
)
def test_the_schedule_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        scheduled_redo(wiring, **options)


def test_scores_may_be_absolute():
    of = case()
    x = of.signals(of.params).probe(Learned(of.params, {}, ()), jax.random.key(5), 64)["dense_0"]
    means = np.abs(np.asarray(x)).mean(axis=0)
    np.testing.assert_allclose(dormancy_scores(x, relative=False), means, rtol=1e-6)
    threshold = float(np.sort(means)[1]) * 1.5
    features = {"dense_0": x, "dense_1": jnp.ones((1, 4))}
    signals = of.signals(of.params)._replace(probe=lambda learned, key, number: features)
    method = redo(of.wiring, threshold=threshold, every=1, relative=False)
    _, _, info = method.update(jax.random.key(0), 1, Learned(of.params, {}, of.opt_state), (), signals)
    assert int(info["units_reset"]) == (means <= threshold).sum() > 0


@pytest.mark.parametrize(("max_fraction", "wanted"), [(0.0, 0), (0.2, 1), (0.59, 2), (0.6, 3), (1.0, 3)])
def test_at_most_a_fraction_of_a_layer_is_reset_and_the_lowest_first(max_fraction, wanted):
    of = case()
    features = {"dense_0": jnp.array([[0.0, 3.0, 1e-3, 2.0, 2e-3]]), "dense_1": jnp.ones((1, 4))}
    signals = of.signals(of.params)._replace(probe=lambda learned, key, number: features)
    method = redo(of.wiring, every=1, max_fraction=max_fraction)
    new, _, info = method.update(jax.random.key(0), 1, Learned(of.params, {}, of.opt_state), (), signals)
    assert int(info["units_reset"]) == wanted
    silent = np.asarray(new.params["dense_1"]["kernel"] == 0).all(axis=1)
    same(np.flatnonzero(silent), sorted([0, 2, 4][:wanted]))


@pytest.mark.parametrize(("step", "wanted"), [(1000, 0), (1001, 1), (2000, 1)])
def test_none_is_reset_before_the_start(step, wanted):
    of = case()
    features = {"dense_0": jnp.array([[0.0, 3.0, 1.0, 2.0, 2.0]]), "dense_1": jnp.ones((1, 4))}
    signals = of.signals(of.params)._replace(probe=lambda learned, key, number: features)
    method = redo(of.wiring, every=1, start_after=1000)
    _, _, info = method.update(jax.random.key(0), step, Learned(of.params, {}, of.opt_state), (), signals)
    assert int(info["units_reset"]) == wanted


@pytest.mark.parametrize("options", [{"max_fraction": 1.1}, {"max_fraction": -0.1}, {"start_after": -1}])
def test_more_numbers_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=f"got {next(iter(options))}="):
        redo(case().wiring, **options)
