"""A network with an actor and a critic: resets act on each branch, diagnostics on the output that is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.interventions import layer_reset, redo
from pliant.methods import METHODS, build, defaults, wrapped
from pliant.networks import mlp, side_by_side, with_heads
from pliant.types import (
    Batch,
    Feed,
    Fresh,
    Head,
    HiddenLayer,
    Learned,
    Network,
    Signals,
    Slot,
    Subject,
    Wiring,
    by_path,
)

NAMES = {"trunk": "", "actor": "actor", "critic": "critic"}
READERS = {"trunk": ("actor", "critic"), "actor": ("policy",), "critic": ("value",)}
SIZES = {"trunk": (3, 6), "actor": (6, 5), "critic": (6, 4), "policy": (5, 2), "value": (4, 1)}
HEADS = {
    "policy": Head(("policy/kernel", "policy/bias"), "actor"),
    "value": Head(("value/kernel", "value/bias"), "critic"),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)


def wiring():
    init = jax.nn.initializers

    def layer(name, branch):
        feeds = (Feed(Slot(f"{name}/kernel", -1), init.orthogonal()), Feed(Slot(f"{name}/bias", -1), init.zeros))
        readers = tuple(Slot(f"{reader}/kernel", -2) for reader in READERS[name])
        return HiddenLayer(name, SIZES[name][1], feeds, readers, "relu", True, statistics=(), branch=branch)

    roles = {f"{name}/kernel": "head" if name in HEADS else "matrix" for name in SIZES}
    roles |= {f"{name}/bias": "bias" for name in SIZES}
    return Wiring(tuple(layer(name, branch) for name, branch in NAMES.items()), roles, HEADS)


def init(key):
    keys = jax.random.split(key, len(SIZES))
    draw = jax.nn.initializers.orthogonal()
    params = {
        name: {"kernel": draw(k, size), "bias": 0.1 * jax.random.normal(k, size[1:])}
        for k, (name, size) in zip(keys, SIZES.items(), strict=True)
    }
    return params, {}


@jax.numpy_rank_promotion("allow")
def apply(params, state, x, *, train, key=None):
    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    features = {"trunk": jax.nn.relu(dense("trunk", x))}
    features |= {name: jax.nn.relu(dense(name, features["trunk"])) for name in ("actor", "critic")}
    return {"policy": dense("policy", features["actor"]), "value": dense("value", features["critic"])}, features, state


NETWORK = Network(init, apply, wiring())
PARAMS = init(jax.random.key(0))[0]
FRESH = Fresh(init, lambda params: ())


def changed(before, after):
    a, b = by_path(before), by_path(after)
    return {path.partition("/")[0] for path in a if not np.array_equal(a[path], b[path])}


@pytest.mark.parametrize(
    ("num_layers", "wanted"),
    [
        (1, {"policy", "value"}),
        (2, {"policy", "value", "actor", "critic"}),
        (3, {"policy", "value", "actor", "critic", "trunk"}),
    ],
)
def test_the_last_layers_are_those_of_every_branch(key, num_layers, wanted):
    method = layer_reset(NETWORK.wiring, num_layers=num_layers)
    after, _, _ = method.switch(key, 1, Learned(PARAMS, {}, ()), (), FRESH)
    assert changed(PARAMS, after.params) == wanted


def test_no_branch_has_more_layers(key):
    with pytest.raises(UserError, match=r"got num_layers=4; wanted a number in \[1, 3\]"):
        layer_reset(NETWORK.wiring, num_layers=4)


def test_silent_units_of_a_branch_are_recycled(key):
    biases = {"trunk": jnp.full(6, 9.0), "actor": jnp.full(5, 99.0), "critic": jnp.array([-99.0, 99.0, 99.0, 99.0])}
    params = PARAMS | {name: PARAMS[name] | {"bias": bias} for name, bias in biases.items()}
    probe = lambda learned, key, number: apply(learned.params, {}, 0.1 * X, train=False)[1]  # noqa: E731
    signals = Signals(params, {}, probe, FRESH)
    method = redo(NETWORK.wiring, threshold=0.0, every=1)
    after, _, info = method.update(key, 1, Learned(params, {}, ()), (), signals)
    assert int(info["units_reset"]) == 1
    assert changed(params, after.params) == {"critic", "value"}
    outputs = [apply(each, {}, 0.1 * X, train=False)[0] for each in (params, after.params)]
    jax.tree.map(np.testing.assert_array_equal, *outputs)


def subject(**fields):
    def losses(output, targets):
        return jnp.square(output["value"] - targets).sum(axis=1) + output["policy"].sum(axis=1) ** 2

    return Subject(NETWORK, PARAMS, {}, Batch(X, jnp.ones((16, 1))), losses, jax.random.key(1), **fields)


def measured(name, **fields):
    found = jax.jit(lambda params: DIAGNOSTICS[name].measure(subject(**fields)._replace(params=params)))(PARAMS)
    return DIAGNOSTICS[name].summarize(jax.tree.map(np.asarray, found)).numbers


@pytest.mark.parametrize("name", ["dormant", "dead", "grama", "gradient-norm", "isometry-deviation"])
def test_what_needs_no_single_output_needs_no_name(name):
    assert all(np.isfinite(number) for number in measured(name).values())


def test_ranks_are_of_what_the_named_head_reads():
    features = apply(PARAMS, {}, X, train=False)[1]
    for output, layer in (("policy", "actor"), ("value", "critic")):
        assert measured("feature-rank", output=output)["feature_rank"] == np.linalg.matrix_rank(features[layer])


@pytest.mark.parametrize("output", ["policy", "value"])
def test_the_jacobian_is_of_the_named_output(output):
    whole = jax.vmap(jax.jacobian(lambda x: apply(PARAMS, {}, x[None], train=False)[0][output][0]))(X)
    wanted = np.linalg.svd(np.asarray(whole), compute_uv=False).max(axis=1).mean()
    found = measured("jacobian", output=output)
    assert any(np.isclose(value, wanted, rtol=1e-4) for value in found.values()), found


@pytest.mark.parametrize("output", ["policy", "value"])
def test_the_tangent_kernel_is_of_the_named_output(output):
    assert np.isfinite(measured("ntk", output=output)["ntk_trace"])


@pytest.mark.parametrize("name", ["jacobian", "ntk", "feature-rank"])
def test_an_output_must_be_named(name):
    with pytest.raises(
        UserError, match=r"got a network with the outputs policy, value.*; wanted the name of (the )?one"
    ):
        measured(name)
    with pytest.raises(UserError, match=r"got the output 'polcy'; wanted one of policy, value"):
        measured(name, output="polcy")


def _trunk():
    return with_heads(mlp((3,), 2, widths=(5, 4)), {"policy": 2, "value": 1})


def test_every_head_of_a_trunk_forgets_a_unit(key):
    network = _trunk()
    params, _ = network.init(key)
    silent = jnp.array([99.0, -99.0, 99.0, 99.0])
    params = params | {"dense_1": params["dense_1"] | {"bias": silent}}
    probe = lambda learned, key, number: network.apply(learned.params, {}, 0.1 * X, train=False)[1]  # noqa: E731
    signals = Signals(params, {}, probe, Fresh(network.init, lambda params: ()))
    method = redo(network.wiring, threshold=0.0, every=1)
    after, _, info = method.update(key, 1, Learned(params, {}, ()), (), signals)
    assert int(info["units_reset"]) == 1
    for head in ("head", "head_value"):
        assert ((after.params[head]["kernel"] == 0).all(axis=1) == (silent < 0)).all()


@pytest.mark.parametrize("name", ["head-reset", "plasticity-injection"])
@pytest.mark.parametrize("is_shared", [True, False])
def test_all_heads_are_reset(name, is_shared):
    parts = {"policy": mlp((3,), 2, widths=(5, 4)), "value": mlp((3,), 1, widths=(5, 4))}
    plain = _trunk() if is_shared else side_by_side(parts, {"policy": "actor", "value": "critic"})
    network = wrapped(METHODS[name], plain, defaults(METHODS[name]))
    params, state = network.init(jax.random.key(0))
    method = build(METHODS[name], network.wiring, defaults(METHODS[name])).intervention
    start = Learned(params, state, ())
    after, _, _ = method.switch(jax.random.key(1), 1, start, method.init(start), Fresh(network.init, lambda params: ()))
    a, b = by_path(params), by_path(after.params)
    heads = {"head/kernel", "head_value/kernel"} if is_shared else {"actor/head/kernel", "critic/head/kernel"}
    assert {path for path in a if not np.array_equal(a[path], b[path])} == heads
    if name == "plasticity-injection":
        outputs = [network.apply(each.params, each.statistics, X, train=False)[0] for each in (start, after)]
        jax.tree.map(np.testing.assert_array_equal, *outputs)
