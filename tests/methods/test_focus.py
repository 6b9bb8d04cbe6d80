"""A method that acts on one branch sees it as a network of its own, and leaves the others to Adam."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import redo
from pliant.methods import METHODS, build, defaults, wrapped
from pliant.networks import branch_wiring, mlp, side_by_side, with_heads
from pliant.optimizers import optimizer_info
from pliant.types import Forward, Fresh, Head, Intervention, Learned, Method, Signals, by_path

BRANCHES = {"policy": "actor", "value": "critic"}
PARTS = {"policy": mlp((3,), 2, widths=(5, 4)), "value": mlp((3,), 1, widths=(6,))}
NETWORK = side_by_side(PARTS, BRANCHES)
PARAMS, _ = NETWORK.init(jax.random.key(0))
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)


def gradients(params):
    """The critic's are larger than the actor's."""
    return jax.tree.map(lambda leaf: 0.1 + jnp.square(leaf), params) | {
        "critic": jax.tree.map(lambda leaf: 3.0 - leaf, params["critic"])
    }


def steps(tx, number=3, params=PARAMS, **extra):
    state = tx.init(params)
    for step in range(1, number + 1):
        updates, state = tx.update(gradients(params), state, params, step=step, key=jax.random.key(step), **extra)
        params = optax.apply_updates(params, updates)
    return params, state


def on(name, branch, network=NETWORK, **values):
    method = METHODS[name] if isinstance(name, str) else name
    return build(method, network.wiring, defaults(method) | values, branch=branch)


def learned(params=PARAMS, tx=None):
    return Learned(params, {}, tx.init(params) if tx else ())


def changed(before, after):
    a, b = by_path(before), by_path(after)
    return {path for path in a if not np.array_equal(a[path], b[path])}


@pytest.mark.parametrize("branch", ["actor", "critic"])
def test_the_wiring_of_a_branch_is_that_of_its_network(branch):
    output = next(name for name, each in BRANCHES.items() if each == branch)
    own, found = PARTS[output].wiring, branch_wiring(NETWORK.wiring, branch)
    assert found._replace(heads={"output": found.heads[output]}) == own


def test_branches_that_share_layers_are_refused():
    shared = with_heads(mlp((3,), 2, widths=(4,)), {"policy": 2, "value": 1}).wiring
    with pytest.raises(
        UserError, match="got the branch 'actor' of a network with no branches; wanted a branch with one"
    ):
        branch_wiring(shared, "actor")
    with pytest.raises(UserError, match="got the branch 'world' of a network with the branches actor, critic; wanted"):
        branch_wiring(NETWORK.wiring, "world")
    trunk = NETWORK.wiring.layers[0]._replace(name="trunk", branch="")
    with pytest.raises(UserError, match="that shares no layers"):
        branch_wiring(NETWORK.wiring._replace(layers=(trunk, *NETWORK.wiring.layers[1:])), "actor")
    unnamed = NETWORK.wiring._replace(heads={"policy": Head(("w",), None, "actor")})
    with pytest.raises(UserError, match="whose parameters have its name before theirs"):
        branch_wiring(unnamed, "actor")


def test_the_other_branch_is_trained_by_adam_to_the_bit():
    values = defaults(METHODS["adamo"], 0.01) | {"isometry_every": 1, "b1": 0.7}
    focused = build(METHODS["adamo"], NETWORK.wiring, values, branch="actor").optimizer
    whole = build(METHODS["adamo"], NETWORK.wiring, values).optimizer
    (after, state), (plain, _), (of_all, _) = steps(focused), steps(optax.adam(0.01, b1=0.7)), steps(whole)
    jax.tree.map(np.testing.assert_array_equal, after["critic"], plain["critic"])
    jax.tree.map(np.testing.assert_array_equal, after["actor"], of_all["actor"])
    assert not changed(after["actor"], plain["actor"]) <= {"head/kernel"}
    assert set(optimizer_info(state)) == {"isometry_norm"}


def test_what_a_method_changes_of_adam_is_its_own():
    """The defaults of adam-tuned are its mechanism; its schedule is cyclic-lr's."""
    for name, options in {"adam-tuned": {}, "cyclic-lr": {}, "sgd": {}}.items():
        values = defaults(METHODS[name], 0.01) | options
        tx = build(METHODS[name], NETWORK.wiring, values, rate=0.5, fraction=0.05, branch="actor").optimizer
        after, plain = steps(tx)[0], steps(optax.adam(0.005))[0]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), after["critic"], plain["critic"])
        assert changed(after["actor"], plain["actor"]), name


def test_frozen_parameters_of_the_other_branch_stay():
    wiring = NETWORK.wiring._replace(frozen=frozenset({"critic/head/kernel", "actor/head/bias"}))
    after, _ = steps(build(METHODS["adam"], wiring, defaults(METHODS["adam"]), branch="actor").optimizer)
    assert changed(PARAMS, after) == set(by_path(PARAMS)) - wiring.frozen


def test_an_optimizer_without_a_learning_rate_says_nothing_of_the_others():
    method = Method("own", "", "", lambda: optax.with_extra_args_support(optax.sgd(0.1)))
    with pytest.raises(UserError, match=r"got the method 'own' on one branch .* no learning_rate; wanted"):
        build(method, NETWORK.wiring, {}, branch="actor")


def forward_of(params):
    def evaluate(params, inputs):
        return NETWORK.apply(params, {}, inputs, train=False)[:2]

    return Forward(X, *evaluate(params, X), jnp.float32(2.0), evaluate, lambda number: X[:number])


@pytest.mark.parametrize("name", ["l2-init", "feature-init", "c-chain", "effective-rank", "spectral"])
def test_a_penalty_is_that_of_the_branch_alone(name):
    own = PARTS["policy"]
    values = defaults(METHODS[name])
    alone = build(METHODS[name], own.wiring, values).penalty
    focused = build(METHODS[name], NETWORK.wiring, values, branch="actor").penalty

    def evaluate(params, inputs):
        return own.apply(params, {}, inputs, train=False)[:2]

    states = alone.init(PARAMS["actor"]), focused.init(PARAMS)
    for step in (0.1, 0.2):  # c-chain begins with the second
        moved = jax.tree.map(lambda leaf, step=step: leaf + step, PARAMS)
        of_own = Forward(X, *evaluate(moved["actor"], X), jnp.float32(2.0), evaluate, lambda number: X[:number])
        wanted, state = alone.loss(moved["actor"], states[0], of_own)
        found, focused_state = focused.loss(moved, states[1], forward_of(moved))
        states = state, focused_state
    assert float(wanted) != 0.0
    assert found == wanted
    of_critic = jax.grad(lambda params: focused.loss(params, states[1], forward_of(params))[0])(moved)["critic"]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(of_critic))


def test_a_penalty_that_switches_remembers_the_branch():
    penalty = build(
        METHODS["reset-distill"], NETWORK.wiring, defaults(METHODS["reset-distill"]), branch="actor"
    ).penalty
    state = penalty.switch(PARAMS, penalty.init(jax.tree.map(jnp.zeros_like, PARAMS)))
    jax.tree.map(np.testing.assert_array_equal, state.teacher, PARAMS["actor"])


def test_an_intervention_sees_the_branch_alone(key):
    seen = {}

    def intervention(wiring):
        def update(key, step, learned, state, signals):
            probed = signals.probe(learned, key, 4)
            fresh, _ = signals.fresh.init_network(key)
            found = learned.params, signals.gradients, signals.features, probed, fresh
            seen.update(zip(("params", "gradients", "features", "probed", "fresh"), map(set, found), strict=True))
            seen["layers"] = [layer.name for layer in wiring.layers]
            doubled = jax.tree.map(lambda leaf: 2 * leaf, learned.params)
            restarted = signals.fresh.init_optimizer(doubled)
            return Learned(doubled, learned.statistics, restarted), state + 1, {"told": jnp.float32(1)}

        return Intervention(lambda learned: jnp.int32(0), update)

    parts = on(Method("own", "", "", intervention=intervention), "actor")

    def probe(learned, key, number):
        return NETWORK.apply(learned.params, {}, X[:number], train=False)[1]

    params, used = steps(parts.optimizer)
    start = Learned(params, {}, used)
    features = NETWORK.apply(params, {}, X, train=False)[1]
    signals = Signals(gradients(params), features, probe, Fresh(NETWORK.init, parts.optimizer.init))
    state = parts.intervention.init(start)
    after, state, info = parts.intervention.update(key, 1, start, state, signals)
    names = {"dense_0", "dense_1", "head"}
    assert seen == dict.fromkeys(("params", "gradients", "fresh"), names) | dict.fromkeys(
        ("features", "probed"), names - {"head"}
    ) | {"layers": ["dense_0", "dense_1"]}
    assert (int(state), float(info["told"])) == (1, 1.0)
    assert all(path.startswith("actor/") for path in changed(params, after.params))
    assert jax.tree.structure(after) == jax.tree.structure(start)
    jax.tree.map(np.testing.assert_array_equal, after.optimizer.others, used.others)
    assert int(after.optimizer.branch[0].count) == 0


@pytest.mark.parametrize("name", ["full-reset", "head-reset", "last-k-reset", "shrink-perturb", "optimizer-reset"])
def test_resets_reach_the_branch_alone(name, key):
    parts = on(name, "critic")
    params, used = steps(parts.optimizer)
    fresh = Fresh(NETWORK.init, parts.optimizer.init)
    start = Learned(params, {}, used)
    after, _, _ = parts.intervention.switch(key, 1, start, parts.intervention.init(start), fresh)
    kept = [(each.params["actor"], each.optimizer.others) for each in (start, after)]
    jax.tree.map(np.testing.assert_array_equal, *kept)
    assert changed((params, used.branch), (after.params, after.optimizer.branch))


def test_the_branch_is_what_is_reported(key):
    parts = on("hare-tortoise", "actor")
    state = parts.intervention.init(learned(tx=parts.optimizer))
    moved = jax.tree.map(lambda leaf: leaf + 1.0, PARAMS)
    params, statistics = parts.intervention.reported(learned(moved, parts.optimizer), state)
    jax.tree.map(np.testing.assert_array_equal, params, {"actor": PARAMS["actor"], "critic": moved["critic"]})
    assert statistics == {}


def test_running_statistics_are_those_of_the_branch(key):
    wrap = functools.partial(wrapped, METHODS["plasticity-injection"], values=defaults(METHODS["plasticity-injection"]))
    network = side_by_side(PARTS | {"policy": wrap(PARTS["policy"])}, BRANCHES)
    params, statistics = network.init(key)
    parts = on("plasticity-injection", "actor", network)
    start = Learned(params, statistics, parts.optimizer.init(params))
    state = parts.intervention.init(start)
    fresh = Fresh(network.init, parts.optimizer.init)
    after, _, info = parts.intervention.switch(jax.random.key(5), 1, start, state, fresh)
    assert int(info["injections"]) == 1
    assert changed(params, after.params) == {"actor/head/kernel"}  # biases are drawn as 0
    assert all(path.startswith("actor/injection") for path in changed(statistics, after.statistics))
    outputs = [network.apply(each.params, each.statistics, X, train=False)[0] for each in (start, after)]
    jax.tree.map(np.testing.assert_array_equal, *outputs)


def test_units_that_are_reset_are_the_branchs(key):
    silent = PARAMS["actor"]["dense_0"] | {"bias": jnp.array([-99.0, 9.0, 9.0, 9.0, 9.0])}
    params = PARAMS | {"actor": PARAMS["actor"] | {"dense_0": silent}}
    parts = on(Method("own", "", "", intervention=redo), "actor", threshold=0.0, every=1)

    def probe(learned, key, number):
        return NETWORK.apply(learned.params, {}, 0.1 * X, train=False)[1]

    start = learned(params, parts.optimizer)
    signals = Signals(params, {}, probe, Fresh(NETWORK.init, parts.optimizer.init))
    after, _, info = parts.intervention.update(key, 1, start, (), signals)
    assert int(info["units_reset"]) >= 1
    assert {path.split("/")[0] for path in changed(params, after.params)} == {"actor"}
