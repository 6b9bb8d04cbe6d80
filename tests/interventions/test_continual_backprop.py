import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import continual_backprop
from pliant.networks import cnn, mlp, residual_mlp
from pliant.types import Feed, Fresh, Head, HiddenLayer, Learned, Signals, Slot, Wiring

ETA = 0.99
LAYER = "dense_0"


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Bench:
    """A network, and continual backprop on it as one program; features are given or those of an input."""

    def __init__(self, network, x=None, **options):
        self.network, self.x = network, x
        self.method = continual_backprop(network.wiring, **options)
        self.params, self.network_state = network.init(jax.random.key(0))
        tx = optax.adam(1e-2)
        self.opt_state = tx.update(jax.tree.map(jnp.ones_like, self.params), tx.init(self.params))[1]
        self.update = jax.jit(self._update)
        self.output = jax.jit(lambda params: self._apply(params)[0])

    def _apply(self, params):
        return self.network.apply(params, self.network_state, self.x, train=False, key=None)[:2]

    def _update(self, learned, state, features=None, key=None):
        key = jax.random.key(1) if key is None else key
        features = self._apply(learned.params)[1] if features is None else features
        signals = Signals(learned.params, features, None, Fresh(self.network.init, None))
        return self.method.update(key, 1, learned, state, signals)

    def begin(self, params=None):
        learned = Learned(self.params if params is None else params, self.network_state, self.opt_state)
        return learned, self.method.init(learned)


@functools.cache
def two_units(**options):
    """Two inputs, two units: mean |w_in| = (2, 0.5), mean |w_out| = (1, 5)."""
    bench = Bench(mlp((2,), 2, widths=(2,)), **options)
    bench.params[LAYER]["kernel"] = jnp.array([[3.0, -0.5], [-1.0, 0.5]])
    bench.params["head"]["kernel"] = jnp.array([[1.5, -0.5], [-5.0, 5.0]])
    return bench


H = {LAYER: jnp.array([[1.0, 0.0], [3.0, 0.0]])}


@pytest.mark.parametrize(
    ("utility", "wanted"), [("contribution", (2.0, 0.0)), ("zero-contribution", (1.0, 0.0)), ("adaptable", (0.5, 0.0))]
)
def test_utilities_by_hand(utility, wanted):
    """E|h| = (2, 0) and f̂ = (2, 0), so E|h − f̂| = (1, 0)."""
    bench = two_units(utility=utility, maturity=0, replacement_rate=0.0)
    _, state, _ = bench.update(*bench.begin(), H)
    np.testing.assert_allclose(state[LAYER].utility / (1 - ETA), wanted, rtol=1e-5)
    np.testing.assert_allclose(state[LAYER].output / (1 - ETA), [[2.0, 0.0]], rtol=1e-5)
    assert state[LAYER].age.tolist() == [1, 1]


def test_the_unit_without_a_contribution_is_replaced():
    bench = two_units(utility="contribution", maturity=0, replacement_rate=0.5)
    (new, _, moments), state, info = bench.update(*bench.begin(), H)
    old, was = bench.params, bench.opt_state[0]
    assert int(info["units_reset"]) == 1
    same(new["head"]["kernel"], [[1.5, -0.5], [0.0, 0.0]])
    same(new[LAYER]["kernel"][:, 0], old[LAYER]["kernel"][:, 0])
    assert np.all(np.asarray(new[LAYER]["kernel"][:, 1] != old[LAYER]["kernel"][:, 1]))
    assert state[LAYER].age.tolist() == [1, 0]
    assert float(state[LAYER].utility[1]) == float(state[LAYER].output[0, 1]) == 0.0
    for after, before in ((moments[0].mu, was.mu), (moments[0].nu, was.nu)):
        same(after[LAYER]["kernel"], jnp.where(jnp.array([[False, True]] * 2), 0.0, before[LAYER]["kernel"]))
        same(after["head"]["kernel"], jnp.where(jnp.array([[False] * 2, [True] * 2]), 0.0, before["head"]["kernel"]))
        same(after["head"]["bias"], before["head"]["bias"])
    assert int(moments[0].count) == 1


def test_running_means_over_two_updates():
    bench = two_units(utility="zero-contribution", replacement_rate=0.0)
    learned, state = bench.begin()
    for features in ([[1.0, 0.0], [3.0, 0.0]], [[4.0, 1.0], [4.0, 1.0]]):
        learned, state, _ = bench.update(learned, state, {LAYER: jnp.array(features)})
    f = ETA * 0.01 * np.array([2.0, 0.0]) + 0.01 * np.array([4.0, 1.0])
    np.testing.assert_allclose(state[LAYER].output, f[None], rtol=1e-5)
    y = np.abs(np.array([4.0, 1.0]) - f / (1 - ETA**2)) * [1.0, 5.0]
    np.testing.assert_allclose(state[LAYER].utility, ETA * 0.01 * np.array([1.0, 0.0]) + 0.01 * y, rtol=1e-4)


def test_decay_zero_goes_by_the_last_batch():
    bench = two_units(utility="contribution", decay=0.0, replacement_rate=0.0)
    learned, state = bench.begin()
    for features in (jnp.full((2, 2), 9.0), H[LAYER]):
        learned, state, _ = bench.update(learned, state, {LAYER: features})
    np.testing.assert_allclose(state[LAYER].utility, [2.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(state[LAYER].output, [[2.0, 0.0]], rtol=1e-6)


def test_units_are_ranked_by_the_corrected_utility():
    """A young unit's running mean is still near 0: by it the better unit would be replaced."""
    bench = two_units(utility="contribution", maturity=2, replacement_rate=0.5)
    learned, state = bench.begin()
    raw = jnp.array([1.0 * (1 - ETA**1000), 1.5 * (1 - ETA**3)])
    state = {LAYER: state[LAYER]._replace(age=jnp.array([1000, 3]), utility=raw)}
    features = {LAYER: jnp.array([[1.0, 0.3]])}  # contributions of 1 and 1.5, as before
    (new, _, _), state, info = bench.update(learned, state, features)
    assert int(info["units_reset"]) == 1
    assert state[LAYER].age.tolist() == [0, 4]
    same(new["head"]["kernel"][0], np.zeros(2))


def run(bench, num_updates):
    """Numbers of replaced units and the mature fraction of many updates with the same features."""
    features = {layer.name: jnp.ones((1, layer.width)) for layer in bench.network.wiring.layers}

    def body(carry, key):
        learned, state, info = bench._update(*carry, features, key)
        return (learned, state), info

    return jax.jit(lambda carry: jax.lax.scan(body, carry, jax.random.split(jax.random.key(5), num_updates)))(
        bench.begin()
    )[1]


def test_the_hand_computed_schedule():
    """30 mature units, ρ = 0.01: 1.2 are due at the fourth update, 1.07 at the seventh, 1.19 at the eleventh."""
    told = run(Bench(mlp((2,), 1, widths=(30,)), replacement_rate=0.01, maturity=20), 32)
    assert np.flatnonzero(told["units_reset"]).tolist() == [20 + 4 - 1, 20 + 7 - 1, 20 + 11 - 1]
    fractions = np.asarray(told["mature_fraction"])
    assert fractions[:20].max() == 0.0
    np.testing.assert_allclose(fractions[[20, 23, 24, 27]], [1.0, 1.0, 29 / 30, 28 / 30], rtol=1e-6)


@pytest.mark.parametrize(("rate", "every"), [(0.01, 10), (1e-3, 100), (0.05, 2)])
def test_what_is_due_does_not_drift(rate, every):
    """ρ·N = 0.1, ten times, is 0.9999… in a running sum; every tenth update must replace one all the same."""
    told = run(Bench(mlp((2,), 1, widths=(10,)), replacement_rate=rate, maturity=0), 2000)
    assert np.flatnonzero(told["units_reset"]).tolist() == list(range(every - 1, 2000, every))


def test_no_unit_is_replaced_before_it_is_mature():
    bench = two_units(maturity=50, replacement_rate=1.0)
    learned, state = bench.begin()
    state = {LAYER: state[LAYER]._replace(age=jnp.array([49, 50]))}
    _, state, info = bench.update(learned, state, H)
    assert state[LAYER].age.tolist() == [50, 0]
    assert int(info["units_reset"]) == 1
    assert float(info["mature_fraction"]) == 0.5
    assert float(info["mean_age"]) == 25.0


def test_rate_zero_touches_nothing():
    bench = two_units(replacement_rate=0.0, maturity=0)
    learned, state = bench.begin()
    new, _, info = bench.update(learned, state, H)
    same(new, learned)
    assert float(info["mature_fraction"]) == 1.0
    assert int(info["units_reset"]) == 0


def with_constant_unit(params, layer, value=0.7):
    """The parameters with a second unit of the layer that always says the same."""
    module = params[layer].get("up", params[layer])
    module = {"kernel": module["kernel"].at[..., 1].set(0.0), "bias": module["bias"].at[1].set(value)}
    return params | {layer: params[layer] | {"up": module} if "up" in params[layer] else module}


def replaced(bench, params, layer):
    """The parameters after the layer's second unit, and no other, was replaced."""
    learned, state = bench.begin(params)
    for _ in range(3):
        learned, state, _ = bench.update(learned, state)
    state = {name: now._replace(age=jnp.zeros_like(now.age)) for name, now in state.items()}
    state[layer] = state[layer]._replace(age=state[layer].age.at[1].set(3), credit=jnp.float32(1.0))
    (new, _, _), state, info = bench.update(learned, state)
    assert int(info["units_reset"]) == 1
    assert int(state[layer].age[1]) == 0
    return new


NETWORKS = {
    "mlp": (lambda: mlp((3,), 2, widths=(4, 3)), "dense_0"),
    "head": (lambda: mlp((3,), 2, widths=(4, 3)), "dense_1"),
    "crelu": (lambda: mlp((3,), 2, widths=(4, 3), activation="crelu"), "dense_0"),
    "fourier": (lambda: mlp((3,), 2, widths=(4, 3), activation="fourier"), "dense_0"),
    "residual": (lambda: residual_mlp((3,), 2, width=4, num_blocks=2), "block_0"),
    "conv": (
        lambda: cnn(
            (6, 6, 2),
            2,
            channels=(3, 3),
            kernel_sizes=(2, 2),
            strides=(1, 1),
            pool=(1, 2),
            padding="VALID",
            widths=(4,),
            activation="crelu",
        ),
        "conv_0",
    ),
}
NETWORKS["flatten"] = (NETWORKS["conv"][0], "conv_1")


@functools.cache
def bench_of(name, transfer_mean):
    make, _ = NETWORKS[name]
    shape = (6, 6, 2) if name in ("conv", "flatten") else (3,)
    x = jax.random.normal(jax.random.key(7), (16, *shape))
    return Bench(make(), x, replacement_rate=1e-6, maturity=2, transfer_mean=transfer_mean)


@pytest.mark.parametrize("name", NETWORKS)
def test_replacing_a_constant_unit_goes_unnoticed(name):
    bench, (_, layer) = bench_of(name, True), NETWORKS[name]
    params = with_constant_unit(bench.params, layer)
    new = replaced(bench, params, layer)
    np.testing.assert_allclose(bench.output(new), bench.output(params), rtol=1e-4, atol=1e-5)
    after, before = (tree[layer].get("up", tree[layer])["kernel"][..., 1] for tree in (new, params))
    assert np.all(np.asarray(after != before))


def test_without_the_transfer_it_is_noticed():
    bench = bench_of("mlp", False)
    params = with_constant_unit(bench.params, LAYER)
    new = replaced(bench, params, LAYER)
    same(new["dense_1"]["bias"], params["dense_1"]["bias"])
    assert np.abs(bench.output(new) - bench.output(params)).max() > 1e-2


def test_the_mean_that_moves_by_hand():
    """f̂ = (2, 0.5), so the bias of output k gains 0.5 w_out[1, k] when the second unit goes."""
    bench = two_units(utility="zero-contribution", maturity=0, replacement_rate=0.5)
    new = bench.update(*bench.begin(), {LAYER: jnp.array([[1.0, 0.5], [3.0, 0.5]])})[0].params
    np.testing.assert_allclose(new["head"]["bias"], [-2.5, 2.5], rtol=1e-5)
    same(new[LAYER]["bias"], np.zeros(2))


def test_a_bias_that_is_made_anew_gets_no_mean():
    bench = Bench(mlp((2,), 2, widths=(2, 2)), maturity=0, replacement_rate=1.0)
    features = {name: jnp.full((4, 2), 3.0) for name in ("dense_0", "dense_1")}
    new = bench.update(*bench.begin(), features)[0].params
    same(new["dense_1"]["bias"], np.zeros(2))
    assert np.all(np.asarray(new["head"]["bias"]) != 0)  # the head is never replaced
    same(new["head"]["kernel"], np.zeros((2, 2)))


def test_networks_without_biases_lose_the_mean():
    bench = Bench(mlp((2,), 2, widths=(2, 2), use_bias=False), maturity=0, replacement_rate=1.0)
    features = {name: jnp.full((4, 2), 3.0) for name in ("dense_0", "dense_1")}
    new, _, info = bench.update(*bench.begin(), features)
    assert int(info["units_reset"]) == 4
    assert set(new.params["head"]) == {"kernel"}


def test_outgoing_weights_of_a_channel_are_averaged_over_all_positions():
    network = cnn((3, 3, 1), 2, channels=(2,), kernel_sizes=(2,), strides=(1,), pool=(1,), padding="VALID", widths=())
    bench = Bench(network, utility="contribution", replacement_rate=0.0)
    kernel = jax.random.normal(jax.random.key(3), (8, 2))
    features = {"conv_0": jax.random.normal(jax.random.key(4), (5, 2, 2, 2))}
    _, state, _ = bench.update(
        *bench.begin(bench.params | {"head": bench.params["head"] | {"kernel": kernel}}), features
    )
    sizes = np.abs(kernel).reshape(4, 2, 2).mean(axis=(0, 2))
    wanted = np.abs(features["conv_0"]).mean(axis=(0, 1, 2)) * sizes
    np.testing.assert_allclose(state["conv_0"].utility / (1 - ETA), wanted, rtol=1e-4)


def test_a_units_two_outputs_have_their_own_means_and_weights():
    bench = Bench(mlp((1,), 1, widths=(2,), activation="crelu"), utility="zero-contribution", replacement_rate=0.0)
    bench.params["head"]["kernel"] = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    features = {LAYER: jnp.array([[2.0, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 0.0]])}
    _, state, _ = bench.update(*bench.begin(), features)
    np.testing.assert_allclose(state[LAYER].output / (1 - ETA), [[1.0, 0.0], [2.0, 3.0]], rtol=1e-5)
    np.testing.assert_allclose(state[LAYER].utility / (1 - ETA), [(1 + 6) / 2, 12 / 2], rtol=1e-5)


def normed_wiring():
    """One layer with a batch norm behind it."""
    feeds = (
        Feed(Slot("dense/kernel", -1), jax.nn.initializers.zeros),
        Feed(Slot("norm/scale", -1), jax.nn.initializers.ones),
        Feed(Slot("norm/bias", -1), jax.nn.initializers.zeros),
    )
    statistics = (Slot("norm/mean", -1), Slot("norm/var", -1))
    layer = HiddenLayer("dense", 2, feeds, (Slot("head/kernel", -2),), "relu", True, statistics=statistics)
    roles = {"dense/kernel": "matrix", "norm/scale": "norm", "norm/bias": "norm", "head/kernel": "head"}
    return Wiring((layer,), roles)


def test_the_units_own_norm_begins_again_with_its_statistics(key):
    params = {
        "dense": {"kernel": jnp.ones((3, 2))},
        "norm": {"scale": jnp.full(2, 5.0), "bias": jnp.full(2, 6.0)},
        "head": {"kernel": jnp.ones((2, 1))},
    }
    statistics = {"norm": {"mean": jnp.full(2, 3.0), "var": jnp.full(2, 4.0)}, "other": {"mean": jnp.full(2, 3.0)}}
    start = {"norm": {"mean": jnp.zeros(2), "var": jnp.ones(2)}, "other": {"mean": jnp.zeros(2)}}
    method = continual_backprop(normed_wiring(), maturity=0, replacement_rate=0.5)
    learned = Learned(params, statistics, ())
    signals = Signals(
        params, {"dense": jnp.array([[1.0, 0.0], [2.0, 0.0]])}, None, Fresh(lambda _: (params, start), None)
    )
    new, _, _ = method.update(key, 1, learned, method.init(learned), signals)
    same(new.params["norm"], {"scale": [5.0, 1.0], "bias": [6.0, 0.0]})
    same(new.statistics["norm"], {"mean": [3.0, 0.0], "var": [4.0, 1.0]})
    same(new.statistics["other"], statistics["other"])


def test_torch_layouts_are_read_by_their_slots(key):
    """Kernels (out, in): units are rows of what feeds them and columns of what reads them."""
    feeds = (Feed(Slot("in/weight", 0), jax.nn.initializers.zeros), Feed(Slot("in/bias", 0), jax.nn.initializers.zeros))
    layer = HiddenLayer("in", 3, feeds, (Slot("out/weight", -1),), "relu", elementwise=True)
    roles = {"in/weight": "matrix", "in/bias": "bias", "out/weight": "head", "out/bias": "bias"}
    params = {
        "in": {"weight": jnp.ones((3, 2)), "bias": jnp.zeros(3)},
        "out": {"weight": jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "bias": jnp.zeros(2)},
    }
    heads = {"output": Head(("out/weight", "out/bias"), "in")}
    method = continual_backprop(Wiring((layer,), roles, heads), maturity=0, replacement_rate=0.34)
    learned = Learned(params, {}, ())
    signals = Signals(params, {"in": jnp.array([[1.0, 0.5, 2.0], [2.0, 0.5, 1.0]])}, None, None)
    new = method.update(key, 1, learned, method.init(learned), signals)[0].params
    same(new["out"]["weight"], [[1.0, 0.0, 3.0], [4.0, 0.0, 6.0]])
    np.testing.assert_allclose(new["out"]["bias"], [1.0, 2.5], rtol=1e-5)


def test_replacements_are_a_branch_for_all_seeds():
    bench = two_units(utility="contribution", maturity=0, replacement_rate=0.25)
    learned, state = bench.begin()
    states = jax.tree.map(
        lambda a, b: jnp.stack([a, b]), state, {LAYER: state[LAYER]._replace(credit=jnp.float32(0.75))}
    )
    keys = jax.random.split(jax.random.key(2), 2)
    both = jax.jit(jax.vmap(lambda key, state: bench._update(learned, state, H, key)))
    assert "stablehlo.case" in both.lower(keys, states).as_text()
    new, after, info = both(keys, states)
    assert info["units_reset"].tolist() == [0, 1]
    same(jax.tree.map(lambda leaf: leaf[0], new), learned)
    assert after[LAYER].age.tolist() == [[1, 1], [1, 0]]


def test_the_key_decides_the_fresh_weights():
    bench = two_units(utility="contribution", maturity=0, replacement_rate=0.5)
    a, b, c = (bench.update(*bench.begin(), H, jax.random.key(seed))[0].params[LAYER]["kernel"] for seed in (1, 2, 1))
    same(a, c)
    assert np.all(np.asarray(a[:, 1] != b[:, 1]))


def test_narrow_parameters_stay_narrow_and_state_stays_wide():
    bench = two_units(utility="adaptable", maturity=0, replacement_rate=0.5)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), bench.params)
    learned, state = bench.begin(params)
    new, after, _ = bench.update(learned, state, {LAYER: H[LAYER].astype(jnp.bfloat16)})
    assert {leaf.dtype for leaf in jax.tree.leaves(new.params)} == {jnp.dtype(jnp.bfloat16)}
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]


def test_units_that_read_nothing_and_say_nothing_are_the_least_useful():
    """0/0 would protect them for ever."""
    bench = two_units(utility="adaptable", maturity=0, replacement_rate=0.5)
    silent = bench.params[LAYER] | {"kernel": bench.params[LAYER]["kernel"].at[:, 1].set(0.0)}
    _, state, info = bench.update(*bench.begin(bench.params | {LAYER: silent}), H)
    assert int(info["units_reset"]) == 1
    assert state[LAYER].age.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            {"activation": "maxmin"},
            {},
            "got continual backprop behind maxmin; wanted hidden layers in which every unit",
        ),
        ({"widths": ()}, {}, "got continual backprop on a network without hidden layers"),
        ({}, {"replacement_rate": 2.0}, r"got replacement_rate=2.0; wanted a number in \[0, 1\]. 1e-4 is usual"),
        ({}, {"maturity": -1}, "got maturity=-1; wanted a finite number ≥ 0. Use 100"),
        ({}, {"decay": 1.0}, "got decay=1.0; wanted a number in"),
        ({}, {"utility": "age"}, "got utility='age'; wanted one of 'adaptable', 'zero-contribution', 'contribution'"),
    ],
)
def test_refuses(network, options, message):
    wiring = mlp((3,), 2, **({"widths": (4,)} | network)).wiring
    with pytest.raises(UserError, match=message):
        continual_backprop(wiring, **options)


@pytest.mark.parametrize("linear", ["weight-norm", "scaled", "newton-schulz", "spectral-norm"])
def test_means_do_not_move_through_kernels_that_are_not_applied_as_they_are(linear):
    wiring = mlp((3,), 2, widths=(4, 4), linear=linear).wiring
    with pytest.raises(UserError, match="got transfer_mean for a network that does not apply 'dense_1/kernel' as"):
        continual_backprop(wiring)
    assert continual_backprop(wiring, transfer_mean=False)
    assert continual_backprop(mlp((3,), 2, widths=(4,), linear=linear).wiring)  # the head is plain


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_is_skipped_by_the_unit(bad):
    """The second unit has never seen it; the first has seen both batches."""
    bench = two_units(maturity=5, replacement_rate=0.0)
    learned, state = bench.begin()
    good, features = jnp.array([[1.0, 0.5], [3.0, 2.0]]), []
    for other in (good, jnp.where(jnp.array([[False, True], [False, False]]), bad, good), good):
        learned, state, info = bench.update(learned, state, {LAYER: other})
        features.append(state[LAYER])
    assert features[1].age.tolist() == [2, 1]
    assert features[2].age.tolist() == [3, 2]
    same(features[1].output[:, 1], features[0].output[:, 1])
    same(features[1].utility[1], features[0].utility[1])
    np.testing.assert_allclose(features[2].output[0] / (1 - ETA ** np.array([3.0, 2.0])), [2.0, 1.25], rtol=1e-5)
    assert np.isfinite(float(info["mean_age"]))


def test_a_bad_batch_reaches_no_bias():
    """It comes when the second unit, mature for long, is due: what moves is the mean that was."""
    bench = two_units(utility="contribution", maturity=0, replacement_rate=0.3)
    learned, state = bench.begin()
    for features in (jnp.array([[1.0, 0.1], [3.0, 0.1]]), jnp.full((2, 2), jnp.nan)):
        learned, state, info = bench.update(learned, state, {LAYER: features})
    assert int(info["units_reset"]) == 1
    np.testing.assert_allclose(learned.params["head"]["bias"], [-0.5, 0.5], rtol=1e-5)
    assert state[LAYER].age.tolist() == [1, 0]


def test_weights_that_are_no_number_reach_no_bias():
    """Those of a unit that stays."""
    bench = two_units(utility="contribution", maturity=0, replacement_rate=0.5)
    learned, state = bench.begin()
    head = learned.params["head"] | {"kernel": learned.params["head"]["kernel"].at[0, 0].set(jnp.nan)}
    features = {LAYER: jnp.array([[1.0, 0.1], [3.0, 0.1]])}
    new, state, info = bench.update(learned._replace(params=learned.params | {"head": head}), state, features)
    assert int(info["units_reset"]) == 0  # the first unit is not mature: its utility was never seen
    new, _, info = bench.update(new, state, features)
    assert int(info["units_reset"]) == 1
    np.testing.assert_allclose(new.params["head"]["bias"], [-0.5, 0.5], rtol=1e-5)
