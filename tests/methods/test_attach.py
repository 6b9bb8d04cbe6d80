import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pliant
from pliant.errors import UserError
from pliant.methods import Plastic
from pliant.networks import mlp

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.normal(size=(32, 4)), jnp.float32)
Y = jnp.asarray(DRAW.normal(size=(32, 1)), jnp.float32)
NETWORK = mlp((4,), 1, widths=(8, 6))
PARAMS = jax.tree.map(np.asarray, NETWORK.init(jax.random.key(0))[0])


def init(key):
    return NETWORK.init(key)[0]


def apply(params, x):
    return NETWORK.apply(params, {}, x, train=False, key=None)[:2]


def loss(params, x, y):
    return ((apply(params, x)[0] - y) ** 2).mean()


def attach(method, **options) -> Plastic:
    return pliant.attach(method, apply, PARAMS, X, **{"wiring": NETWORK.wiring} | options)


def train(plastic, num_steps, **more):
    @jax.jit
    def step(params, state):
        return plastic.update(jax.grad(loss)(params, X, Y), state, params, X, **more)

    params, state = PARAMS, plastic.init(PARAMS, jax.random.key(1))
    for _ in range(num_steps):
        params, state, info = step(params, state)
    return params, state, info


def test_without_a_mechanism_it_is_optax():
    params, state, _ = train(attach("adam", learning_rate=0.01), 5)
    tx, expected = optax.adam(0.01), PARAMS
    moments = tx.init(expected)
    for _ in range(5):
        updates, moments = tx.update(jax.grad(loss)(expected, X, Y), moments, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)
    assert int(state.step) == 5


def test_the_penalty_is_added_to_the_gradients():
    plastic = attach("l2-init", optimizer=optax.sgd(1.0), strength=0.5)
    state = plastic.init(PARAMS, jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    after, _, info = plastic.update(zeros, state, moved, X)
    size = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    np.testing.assert_allclose(info["penalty"], 0.5 * 0.01 * size, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, PARAMS)  # 0.1 − 2 · 0.5 · 0.1


def test_dead_units_are_reset():
    dead = {**PARAMS, "dense_0": {**PARAMS["dense_0"], "bias": PARAMS["dense_0"]["bias"] - 50.0}}
    plastic = attach("redo", every=2)
    state = plastic.init(dead, jax.random.key(0))
    zeros = jax.tree.map(jnp.zeros_like, dead)
    params, state, info = plastic.update(zeros, state, dead, X)
    assert int(info["units_reset"]) == 0
    params, state, info = plastic.update(zeros, state, params, X)
    assert int(info["units_reset"]) >= 8
    assert float(jnp.abs(params["dense_0"]["bias"]).max()) == 0


def test_a_switch_shrinks_and_perturbs():
    plastic = attach("shrink-perturb", init=init, shrink=0.5, perturb=0.0)
    state = plastic.init(PARAMS, jax.random.key(0))
    params, state, info = plastic.switch(state, PARAMS)
    np.testing.assert_allclose(params["head"]["kernel"], PARAMS["head"]["kernel"] / 2)
    assert int(state.task) == 1
    assert float(info["norm_moved"]) > 0


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("adamoo", {}, r"got the method 'adamoo'; wanted one of .* Did you mean 'adamo'\?"),
        ("redo", {"tau": 0.1}, r"got the option of 'redo' 'tau'; wanted one of .*threshold"),
        (
            "redo",
            {"threshold": jnp.ones(2)},
            r"got threshold, an array of shape \(2,\); wanted one number",
        ),
        ("redo", {"source": np.ones(())}, r"got source, an array .* wanted a Python value: it shapes the program"),
        ("redo", {"every": 0}, r"got every=0; wanted"),
        (
            "shrink-perturb",
            {},
            r"got the method 'shrink-perturb', which draws new .*, without init; .* Give init=",
        ),
        ("full-reset", {"init": lambda key: {"w": key}}, r"got init\(key\) with another structure"),
        ("cyclic-lr", {}, r"got the method 'cyclic-lr', whose learning rate .* Give task_updates="),
        ("layernorm", {}, r"got the method 'layernorm', which requires of the network: norm='layer'; wanted a network"),
        ("residual", {}, r"requires of the network: 'residual-mlp' in place of 'mlp'; .* say has_changes=True"),
        ("infer", {}, r"requires of the network: parts of its own;"),
        ("hl-gauss", {}, r"requires of the network: .*an output that stands for a distribution of values;"),
        ("adamo", {"optimizer": optax.sgd(0.1)}, r"got optimizer= beside 'adamo', which sets the optimizer; wanted"),
        ("redo", {"optimizer": optax.sgd(0.1), "learning_rate": 0.1}, r"got learning_rate= beside optimizer=; wanted"),
    ],
)
def test_what_does_not_fit_is_refused(method, options, message):
    with pytest.raises(UserError, match=message):
        attach(method, **options)


def test_a_network_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"got apply\(params, x\), which fails: TypeError: .* Call it by hand"):
        pliant.attach("redo", lambda params, x: x + "", PARAMS, X, wiring=NETWORK.wiring)
    with pytest.raises(UserError, match=r"got features of dense_0; wanted those of .*, of which 'dense_1' is missing"):
        pliant.attach("redo", lambda params, x: (x, {"dense_0": x}), PARAMS, X, wiring=NETWORK.wiring)


def test_parameters_that_are_no_arrays_are_refused():
    """As in an Equinox module, which holds its activation."""
    with pytest.raises(UserError, match=r"got params in which 'activation' is a .*equinox.partition"):
        pliant.attach("redo", apply, {**PARAMS, "activation": jax.nn.relu}, X)


def test_what_a_loop_hands_over_is_checked():
    plastic = attach("redo")
    state = plastic.init(PARAMS, jax.random.key(0))
    with pytest.raises(UserError, match="got grads with another structure, in which 'head/bias' is missing; wanted"):
        plastic.update({**PARAMS, "head": {"kernel": PARAMS["head"]["kernel"]}}, state, PARAMS, X)
    with pytest.raises(UserError, match=r"got x of shape \(32, 3\); wanted shape \(batch, 4\). Pass the x of the"):
        plastic.update(PARAMS, state, PARAMS, X[:, :3])
    with pytest.raises(UserError, match=r"got params\['head/bias'\] of shape \(2,\); wanted shape \(1,\)"):
        plastic.switch(state, {**PARAMS, "head": {**PARAMS["head"], "bias": np.zeros(2)}})
    with pytest.raises(UserError, match=r"got a state that is dict; wanted what plastic.init .* Mind the order"):
        plastic.reported(state, PARAMS)
    with pytest.raises(UserError, match=r"got the key 0; wanted one random key. Write plastic.init"):
        plastic.init(PARAMS, 0)
    churn = attach("c-chain")
    state = churn.init(PARAMS, jax.random.key(0))
    with pytest.raises(UserError, match=r"got an update without the value of the loss; .* loss=loss"):
        churn.update(PARAMS, state, PARAMS, X)


def test_layers_are_found():
    """Of a plain function that returns no features; hyperparameters may be mapped."""
    inferred = pliant.infer_wiring(lambda params, x: apply(params, x)[0], PARAMS, X)

    def params_after(rate, threshold):
        options = {"learning_rate": rate, "every": 3, "threshold": threshold, "wiring": inferred.wiring}
        plastic = pliant.attach("redo+l2-init", inferred.forward, PARAMS, X, **options)
        return train(plastic, 3)[0]["head"]["kernel"]

    rates, thresholds = jnp.array([0.01, 0.02]), jnp.array([0.025, 0.5])
    each = jax.vmap(params_after)(rates, thresholds)
    for i in range(2):
        stated = attach("redo+l2-init", learning_rate=float(rates[i]), every=3, threshold=float(thresholds[i]))
        np.testing.assert_allclose(each[i], train(stated, 3)[0]["head"]["kernel"], rtol=1e-4, atol=1e-6)


def test_hyperparameters_may_be_traced_where_layers_are_found():
    def bare(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    params = {"a": jnp.asarray(DRAW.normal(size=(4, 3)), jnp.float32), "b": jnp.ones((3, 1))}

    def trained(strength):
        plastic = pliant.attach("l2-init", bare, params, X, strength=strength)
        state, moved = plastic.init(params, jax.random.key(0)), params
        for _ in range(2):
            moved, state, _ = plastic.update(jax.grad(lambda p: (bare(p, X) ** 2).mean())(moved), state, moved, X)
        return moved["a"]

    together = jax.vmap(trained)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(together[1], trained(1.0), rtol=1e-5)
    assert (together[0] != together[1]).any()


def test_layers_are_not_found_among_traced_numbers():
    with pytest.raises(UserError, match=r"got params or x without values.*inferred.forward and inferred.wiring"):
        jax.jit(lambda params: pliant.attach("redo", lambda p, x: x @ p, params, X).init(params, jax.random.key(0)))(
            jnp.ones((4, 1))
        )


def test_a_network_that_fails_without_a_word_is_refused():
    def apply(params, x):
        raise AssertionError

    with pytest.raises(UserError, match=r"got apply\(params, x\), which fails: AssertionError; wanted a pure function"):
        pliant.attach("redo", apply, jnp.ones((4, 1)), X)


def normalised(params, statistics, x):
    h = (x @ params["in"] - statistics["mean"][None]) * jax.lax.rsqrt(statistics["var"] + 1e-5)[None]
    h = h * params["scale"][None]
    return jax.nn.relu(h) @ params["out"]


NORMALISED = {"in": jnp.ones((4, 3)), "scale": jnp.ones(3), "out": jnp.ones((3, 1))}
STATISTICS = {"mean": jnp.zeros(3), "var": jnp.ones(3)}


def test_running_statistics_are_found_and_put_back():
    """Those of replaced units; the parameters keep the paths that their user knows."""
    plastic = pliant.attach(
        "continual-backprop",
        normalised,
        NORMALISED,
        X,
        statistics=STATISTICS,
        init=lambda key: (NORMALISED, STATISTICS),
        replacement_rate=0.34,
        maturity=0,
        decay=0.0,
    )
    (layer,) = plastic.wiring.layers
    assert [slot.path for slot in layer.statistics] == ["mean", "var"]
    assert set(plastic.wiring.roles) == set(NORMALISED)
    assert not plastic.wiring.frozen
    params = NORMALISED | {"out": jnp.array([[1.0], [0.0], [1.0]])}  # nobody reads the unit in the middle
    worn = jax.tree.map(lambda leaf: leaf + 4.0, STATISTICS)
    state = plastic.init(params, jax.random.key(0), worn)
    zeros = jax.tree.map(jnp.zeros_like, params)
    _, state, info = plastic.update(zeros, state, params, X, statistics=worn)
    assert int(info["units_reset"]) == 1
    np.testing.assert_array_equal(state.statistics["var"], [5.0, 1.0, 5.0])


def test_running_statistics_among_the_parameters_are_refused_where_they_must_be_renewed():
    variables = {"params": NORMALISED, "batch_stats": STATISTICS}

    def whole(variables, x):
        return normalised(variables["params"], variables["batch_stats"], x)

    with pytest.raises(UserError, match=r"statistics 'batch_stats/mean' are not in its state; .*with statistics="):
        pliant.attach("continual-backprop", whole, variables, X)
    pliant.attach("redo", whole, variables, X)
