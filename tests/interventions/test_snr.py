import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import snr
from pliant.networks import cnn, mlp
from pliant.types import Learned, Signals

NETWORK = mlp((2,), 2, widths=(3,))
LAYER = "dense_0"
KEY = jax.random.key(5)
SILENT = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
"""Features of two examples: the first two units fire, the third does not."""


@functools.cache
def program(**options):
    method = snr(NETWORK.wiring, **({"max_silence": 10} | options))

    @jax.jit
    def update(key, step, learned, state, features):
        signals = Signals(learned.params, {LAYER: features}, None, None)
        return method.update(key, step, learned, state, signals)

    return method, update


def begin(**options):
    method, update = program(**options)
    params, _ = NETWORK.init(jax.random.key(0))
    tx = optax.adam(1e-2)
    learned = Learned(params, {}, tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))[1])
    return update, learned, method.init(learned)


def with_(state, **changes):
    return {LAYER: state[LAYER]._replace(**{name: jnp.asarray(value) for name, value in changes.items()})}


def test_silence_grows_until_the_unit_fires_and_enters_the_histogram():
    update, learned, state = begin()
    for step in (1, 2, 3):
        learned, state, info = update(KEY, step, learned, state, SILENT)
    assert state[LAYER].silence.tolist() == [0, 0, 3]
    assert int(info["units_reset"]) == 0
    learned, state, _ = update(KEY, 4, learned, state, SILENT + 1.0)
    assert state[LAYER].silence.tolist() == [0, 0, 0]
    histogram = np.asarray(state[LAYER].histogram)
    assert histogram[2].tolist() == [0, 0, 0, 1, *[0] * 7]
    assert histogram[:2, 0].tolist() == [4, 4]


@pytest.mark.parametrize(("threshold", "resets"), [(3.0, 1), (3.1, 0)])
def test_a_silence_of_the_threshold_is_too_long(threshold, resets):
    update, learned, state = begin()
    state = with_(state, silence=jnp.array([0, 0, 2]), threshold=jnp.full(3, threshold))
    new, state, info = update(KEY, 1, learned, state, SILENT)
    assert int(info["units_reset"]) == resets
    assert state[LAYER].silence.tolist() == [0, 0, 0 if resets else 3]
    assert int(state[LAYER].histogram[2, 3]) == resets
    changed = np.any(np.asarray(new.params[LAYER]["kernel"] != learned.params[LAYER]["kernel"]), axis=0)
    assert changed.tolist() == [False, False, bool(resets)]


def test_a_reset_is_that_of_redo():
    update, learned, state = begin()
    state = with_(state, silence=jnp.array([0, 0, 9]))
    new, _, _ = update(KEY, 1, learned, state, SILENT)
    np.testing.assert_array_equal(new.params["head"]["kernel"][2], np.zeros(2))
    np.testing.assert_array_equal(new.params["head"]["kernel"][:2], learned.params["head"]["kernel"][:2])
    moments = new.optimizer[0]
    np.testing.assert_array_equal(moments.mu[LAYER]["kernel"] == 0, np.tile([False, False, True], (2, 1)))
    np.testing.assert_array_equal(np.all(np.asarray(moments.nu["head"]["kernel"]) == 0, axis=1), [False, False, True])
    assert int(moments.count) == 1


HISTOGRAM = jnp.zeros((3, 11), jnp.int32).at[:, 0].set(7).at[:, 1].set(98).at[:, 4].set(1).at[:, 9].set(1)


@pytest.mark.parametrize(
    ("quantile", "threshold", "wanted"),
    [
        (0.98, 5.0, 1.0),  # 98 of 100 silences are 1 long; those of 0 do not count
        (0.99, 5.0, 4.0),
        (0.995, 5.0, 10.0),  # the quantile is 9, not below 5: twice the threshold
        (0.99, 4.0, 8.0),
        (0.995, 7.0, 10.0),  # no longer than the longest
    ],
)
def test_thresholds_follow_the_quantile_or_expand(quantile, threshold, wanted):
    update, learned, state = begin(quantile=quantile, threshold_every=4)
    state = with_(state, histogram=HISTOGRAM, threshold=jnp.full(3, threshold))
    fires = jnp.ones((2, 3))
    _, kept, _ = update(KEY, 3, learned, state, fires)
    assert kept[LAYER].threshold.tolist() == [threshold] * 3
    assert int(kept[LAYER].histogram.sum()) == 3 * 108
    _, state, info = update(KEY, 4, learned, state, fires)
    assert state[LAYER].threshold.tolist() == [wanted] * 3
    assert int(state[LAYER].histogram.sum()) == 0
    assert float(info["mean_threshold"]) == wanted


def test_an_empty_histogram_expands_the_threshold():
    """0/0 made it the shortest in the authors' code: then one silent batch resets the unit."""
    update, learned, state = begin(threshold_every=1)
    assert state[LAYER].threshold.tolist() == [5.0] * 3
    _, state, info = update(KEY, 1, learned, state, SILENT)
    assert state[LAYER].threshold.tolist() == [10.0] * 3
    assert int(info["units_reset"]) == 0


def test_the_shortest_threshold_is_one_update():
    update, learned, state = begin(threshold_every=1)
    histogram = jnp.zeros((3, 11), jnp.int32).at[:, 1].set(5)
    state = with_(state, histogram=histogram, threshold=jnp.full(3, 1.5))
    _, state, info = update(KEY, 1, learned, state, SILENT)
    assert state[LAYER].threshold.tolist() == [1.0] * 3
    assert int(info["units_reset"]) == 1


def test_without_resets_silences_beyond_the_histogram_are_its_last():
    update, learned, state = begin(quantile=1.0)
    for step in range(1, 16):
        learned_now, state, info = update(KEY, step, learned, state, SILENT)
        assert int(info["units_reset"]) == 0
    assert int(state[LAYER].silence[2]) == 15
    _, state, _ = update(KEY, 16, learned, state, SILENT + 1.0)
    assert int(state[LAYER].histogram[2, 10]) == 1
    jax.tree.map(np.testing.assert_array_equal, learned_now, learned)


@pytest.mark.parametrize("network", ["cnn", "crelu"])
def test_one_position_or_one_half_is_enough_to_fire(key, network):
    if network == "cnn":
        made = cnn((3, 3, 1), 2, channels=(2,), kernel_sizes=(2,), strides=(1,), pool=(1,), widths=())
        name, features = "conv_0", jnp.zeros((4, 3, 3, 2)).at[3, 1, 2, 0].set(0.1)
    else:
        made = mlp((2,), 2, widths=(2,), activation="crelu")
        name, features = "dense_0", jnp.zeros((4, 4)).at[1, 2].set(0.1)  # the second half of the first unit
    params, _ = made.init(key)
    method, learned = snr(made.wiring), Learned(params, {}, ())
    signals = Signals(params, {name: features}, None, None)
    _, state, _ = method.update(key, 1, learned, method.init(learned), signals)
    assert state[name].silence.tolist() == [0, 1]


def test_no_batch_size_is_assumed():
    update, learned, state = begin()
    for features in (SILENT, jnp.tile(SILENT, (50, 1))):
        _, after, _ = update(KEY, 1, learned, state, features)
        assert after[LAYER].silence.tolist() == [0, 0, 1]


def test_a_reset_of_one_seed_is_a_branch_for_all_and_touches_no_other():
    update, learned, state = begin()
    states = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, with_(state, silence=jnp.array([0, 0, 9])))
    keys = jax.random.split(KEY, 2)

    @jax.jit
    def both(keys, states, step):
        return jax.vmap(lambda key, state: update(key, step, learned, state, SILENT))(keys, states)

    def branches(program, *args):
        return program.lower(*args).as_text().count("stablehlo.case")

    assert branches(both, keys, states, 1) == branches(update, keys[0], 1, learned, state, SILENT)
    new, _, info = both(keys, states, 1)
    assert info["units_reset"].tolist() == [0, 1]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), new, learned)
    assert np.all(np.asarray(new.params[LAYER]["kernel"][1, :, 2] != learned.params[LAYER]["kernel"][:, 2]))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ({"activation": "maxmin"}, {}, "got SNR behind maxmin; wanted hidden layers in which every unit owns"),
        ({"widths": ()}, {}, "got SNR on a network without hidden layers"),
        ({}, {"quantile": 1.1}, r"got quantile=1.1; wanted a number in \[0, 1\]. Use 0.99"),
        ({}, {"expansion": 0.5}, "got expansion=0.5; wanted a finite number ≥ 1. Use 2"),
        ({}, {"threshold_every": 0}, "got threshold_every=0; wanted a finite number ≥ 1"),
        ({}, {"max_silence": 0}, "got max_silence=0; wanted a finite number ≥ 1. Use 200"),
    ],
)
def test_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        snr(wiring, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_neither_fires_nor_is_silent(bad):
    update, learned, state = begin()
    for step, features in enumerate((SILENT, SILENT.at[:, 1:].set(bad), SILENT.at[0, 0].set(bad)), start=1):
        learned, state, _ = update(KEY, step, learned, state, features)
    assert state[LAYER].silence.tolist() == [0, 0, 2]
    assert state[LAYER].histogram[:, 0].tolist() == [2, 2, 0]
