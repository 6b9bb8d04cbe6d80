import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import redo
from pliant.networks import mlp
from pliant.types import Signals, Wiring


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
        def probe(key, num_examples):
            inputs = jax.random.choice(key, x, (num_examples,))
            return network.apply(params, state, inputs, train=False, key=key)[1]

        return Signals(gradients=params, features={}, probe=probe)

    @jax.jit
    def update(params, *, seed=0, step=1, threshold=0.0, every=1):
        method = redo(network.wiring, threshold=threshold, every=every)
        return method.update(jax.random.key(seed), step, params, opt_state, method.init(params), signals(params))

    return Case(network.wiring, params, opt_state, output, signals, update)


def silenced(params, units=(1, 3)):
    flags = jnp.isin(jnp.arange(5), jnp.array(units))
    kernel, bias = params["dense_0"]["kernel"], params["dense_0"]["bias"]
    return params | {"dense_0": {"kernel": jnp.where(flags[None], 0.0, kernel), "bias": jnp.where(flags, 0.0, bias)}}


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_silent_units_are_recycled_and_no_other(activation):
    of = case(activation)
    params = silenced(of.params)
    new, new_opt, _, info = of.update(params)
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
        new, new_opt, _, info = of.update(params, step=step, every=3)
        assert int(info["units_reset"]) == (2 if step % 3 == 0 else 0)
        if step % 3:
            same((new, new_opt), (params, of.opt_state))
        else:
            assert np.any(np.asarray(new["dense_0"]["kernel"][:, 1]) != 0)


@pytest.mark.parametrize(("silent", "threshold"), [((1, 3), -1.0), ((), 0.0)])
def test_nothing_below_the_threshold_is_a_bitwise_no_op(silent, threshold):
    of = case()
    params = silenced(of.params, silent)
    new, new_opt, _, info = of.update(params, threshold=threshold)
    same((new, new_opt), (params, of.opt_state))
    assert int(info["units_reset"]) == 0


def test_higher_thresholds_recycle_more():
    of = case()
    counts = [int(of.update(of.params, threshold=threshold)[3]["units_reset"]) for threshold in (0.0, 1.0, 1e6)]
    assert counts[0] == 0
    assert 2 <= counts[1] < 9
    assert counts[2] == 9


def test_the_key_decides_the_fresh_weights():
    of = case()
    params = silenced(of.params)
    a, b, c = (np.asarray(of.update(params, seed=seed)[0]["dense_0"]["kernel"]) for seed in (0, 1, 0))
    same(a, c)
    assert np.all(a[:, [1, 3]] != b[:, [1, 3]])


def test_it_scores_as_many_examples_as_asked():
    of = case()
    asked = []

    def probe(key, num_examples):
        asked.append(num_examples)
        return of.signals(of.params).probe(key, num_examples)

    method = redo(of.wiring, every=1, num_examples=17)
    signals = of.signals(of.params)._replace(probe=probe)
    jax.eval_shape(lambda: method.update(jax.random.key(0), 1, of.params, of.opt_state, (), signals))
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
    new, _, _, info = update(seeds, 2)
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
    ],
)
def test_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        redo(wiring, **options)
