"""Methods act on what the wiring says is the head, a bias or a running statistic, whatever it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import (
    continual_backprop,
    layer_reset,
    plasticity_injection,
    weight_clipping,
    with_injection,
)
from pliant.types import Feed, Fresh, Head, HiddenLayer, Learned, Network, Signals, Slot, Wiring, by_path

START = {
    "inner": {"w": jnp.zeros((5, 2)), "b": jnp.zeros(2)},
    "normal": {"gamma": jnp.ones(2), "beta": jnp.zeros(2)},
    "out_proj": {"w": jnp.zeros((2, 3)), "temperature": jnp.ones(())},  # beside the head, but no part of it
    "b": jnp.zeros(3),
}
STATE = {"moving": {"avg": jnp.zeros(2), "spread": jnp.ones(2)}, "normal": {"calls": jnp.zeros(2)}}
ROLES = {
    "inner/w": "matrix",
    "inner/b": "bias",
    "normal/gamma": "norm",
    "normal/beta": "norm",
    "out_proj/w": "head",
    "out_proj/temperature": "other",
    "b": "bias",
}
HEAD = {"out_proj/w", "b"}


STATISTICS = (Slot("moving/avg", -1), Slot("moving/spread", -1))


def layer(statistics=STATISTICS):
    init = jax.nn.initializers
    starts = {"inner/w": init.normal(), "inner/b": init.zeros, "normal/gamma": init.ones, "normal/beta": init.zeros}
    feeds = tuple(Feed(Slot(path, -1), start) for path, start in starts.items())
    return HiddenLayer("h", 2, feeds, (Slot("out_proj/w", -2),), "relu", elementwise=True, statistics=statistics)


def wired(heads=None, **options):
    heads = {"output": Head(("out_proj/w", "b"), "h")} if heads is None else heads
    return Wiring((layer(**options),), ROLES, heads)


def init(key):
    keys = iter(jax.random.split(key, 16))
    return tuple(jax.tree.map(lambda leaf: leaf + jax.random.normal(next(keys), leaf.shape), t) for t in (START, STATE))


@jax.numpy_rank_promotion("allow")
def apply(params, state, x, *, train, key=None):
    inner, normal, moving = params["inner"], params["normal"], state["moving"]
    h = (x @ inner["w"] + inner["b"] - moving["avg"]) / (1 + moving["spread"] ** 2)
    h = jax.nn.relu(h * normal["gamma"] + normal["beta"])
    out = h @ params["out_proj"]["w"] * params["out_proj"]["temperature"] + params["b"]
    return out, {"h": h}, state


NETWORK = Network(init, apply, wired())
FRESH = Fresh(init, lambda params: ())
KEY = jax.random.key(0)


def learned():
    return Learned(*init(jax.random.key(7)), ())


def changed(before, after):
    a, b = by_path(before), by_path(after)
    return {path for path in a if not np.array_equal(a[path], b[path])}


@pytest.mark.parametrize(
    ("num_layers", "params", "state"),
    [
        (1, HEAD, set()),
        (2, HEAD | {"inner/w", "inner/b", "normal/gamma", "normal/beta"}, {"moving/avg", "moving/spread"}),
    ],
)
def test_the_last_layers_are_reset_with_their_statistics(num_layers, params, state):
    method, before = layer_reset(NETWORK.wiring, num_layers=num_layers), learned()
    after, _, _ = method.switch(KEY, 1, before, method.init(before), FRESH)
    assert changed(before.params, after.params) == params
    assert changed(before.statistics, after.statistics) == state


def test_a_heads_own_state_is_reset_with_it():
    head = Head(("out_proj/w", "b"), "h", state=("normal/calls",))
    method, before = layer_reset(wired({"output": head}), num_layers=1), learned()
    assert changed(before.statistics, method.switch(KEY, 1, before, (), FRESH)[0].statistics) == {"normal/calls"}


def test_the_head_has_its_bias_and_nothing_that_lies_beside_it():
    is_head = by_path(NETWORK.wiring.head(START))
    assert {path for path, take in is_head.items() if take} == HEAD


def test_replaced_units_move_their_mean_and_lose_their_statistics():
    before = learned()
    method = continual_backprop(NETWORK.wiring, maturity=0, replacement_rate=0.5)
    features = {"h": jnp.array([[1.0, 3.0], [2.0, 3.0]])}  # the second unit is a constant
    signals = Signals(before.params, features, None, FRESH)
    after, _, info = method.update(KEY, 1, before, method.init(before), signals)
    assert int(info["units_reset"]) == 1
    moved = before.params["b"] + 3.0 * before.params["out_proj"]["w"][1]
    np.testing.assert_allclose(after.params["b"], moved, rtol=1e-5)
    assert after.params["out_proj"]["temperature"] == before.params["out_proj"]["temperature"]
    drawn = init(KEY)[1]["moving"]
    for name in ("avg", "spread"):
        old = before.statistics["moving"][name]
        np.testing.assert_array_equal(after.statistics["moving"][name], [old[0], drawn[name][1]])
    np.testing.assert_array_equal(after.statistics["normal"]["calls"], before.statistics["normal"]["calls"])


def test_plasticity_is_injected_into_the_head():
    network = with_injection(NETWORK)
    params, state = network.init(jax.random.key(7))
    assert set(state["injection"]["added"]) == HEAD
    method, before = plasticity_injection(network.wiring), Learned(params, state, ())
    after, _, _ = method.switch(KEY, 1, before, method.init(before), Fresh(network.init, lambda params: ()))
    assert changed(params, after.params) == HEAD
    x = jax.random.normal(KEY, (8, 5))
    outputs = [network.apply(each.params, each.statistics, x, train=False)[0] for each in (before, after)]
    np.testing.assert_array_equal(*outputs)


def test_a_heads_bias_is_clipped_as_its_kernel():
    before = learned()._replace(params=jax.tree.map(lambda leaf: jnp.full(leaf.shape, 9.0), START))
    after = weight_clipping(NETWORK.wiring, kappa=1.0).update(KEY, 1, before, (), None)[0].params
    np.testing.assert_allclose(after["b"], 2**-0.5, rtol=1e-6)
    np.testing.assert_allclose(after["inner"]["b"], 5**-0.5, rtol=1e-6)


def test_what_the_wiring_does_not_say_is_asked_for():
    unsaid = wired({})
    for method in (layer_reset, lambda wiring: with_injection(NETWORK._replace(wiring=wiring))):
        with pytest.raises(
            UserError, match=r"got a wiring .* say which of the biases inner/b, b are the head's; wanted"
        ):
            method(unsaid)
    derived = Wiring((layer(),), ROLES)
    assert derived.heads == {"output": Head(None, "h")}
    with pytest.raises(UserError, match=r"Give it heads={'output': Head\(\('out_proj/w',\), reads=...\)}, with"):
        layer_reset(derived)
    with pytest.raises(UserError, match=r"got the kernel 'out_proj/w', and the bias 'b', whose kernel is not stated"):
        continual_backprop(derived)
    for method in (layer_reset, continual_backprop):
        with pytest.raises(UserError, match=r"the state 'moving/avg', which may be .* Give the layer 'h' statistics"):
            method(wired(statistics=None)).init(learned())
