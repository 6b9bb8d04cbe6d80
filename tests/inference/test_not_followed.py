"""What is no hidden layer, or cannot be followed: the notes say why, and what to do."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.types import Slot, Wiring

X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
relu = jax.nn.relu


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


def _infer(apply, x=X, wiring=None, **shapes):
    random = np.random.default_rng(1)
    params = {name: jnp.asarray(random.normal(size=shape) / 2, jnp.float32) for name, shape in shapes.items()}
    return pliant.infer_wiring(apply, params, jnp.asarray(x), wiring)


def _recurrent(p, x):
    def step(h, x):
        return jnp.tanh(x @ p["a"] + h @ p["r"]), None

    return jax.lax.scan(step, jnp.zeros((len(x), 6)), x.reshape(-1, 2, 4).swapaxes(0, 1))[0] @ p["c"]


def _stacked(p, x):
    return (
        jax.lax.scan(lambda x, kernels: (x + relu(x @ kernels[0]) @ kernels[1], None), x, (p["u"], p["d"]))[0] @ p["c"]
    )


def _long_recurrent(p, x):
    def step(h, x):
        h = jnp.tanh(x @ p["a"] + h @ p["r"])
        return h, h

    hidden = jax.lax.scan(step, jnp.zeros((len(x), 6)), jnp.stack([x] * 70))[1]
    return hidden.mean(0) @ p["c"], {"a": hidden}


NOTES = {
    "a branch": (
        lambda p, x: jax.lax.cond(x.sum() > 0, relu, jnp.tanh, x @ p["a"]) @ p["c"],
        {"a": (8, 6), "c": (6, 3)},
        {"a": r"no hidden layer: cond mixes its units, or is not followed; if it is one, state it in wiring="},
    ),
    "a transform that mixes": (
        lambda p, x: jnp.fft.fft(relu(x @ p["a"])).real @ p["c"],
        {"a": (8, 6), "c": (6, 3)},
        {"a": r"fft mixes its units, or is not followed; if it is one, state it in wiring=Wiring\(\(HiddenLayer"},
    ),
    "a recurrence": (
        _recurrent,
        {"a": (4, 6), "r": (6, 6), "c": (6, 3)},
        {"a": r"a is used again elsewhere, as in a recurrence or with tied weights.*give each", "r": r"used again"},
    ),
    "a tied autoencoder": (
        lambda p, x: relu(x @ p["a"]) @ p["a"].T,
        {"a": (8, 6)},
        {"a": r"a is used again elsewhere"},
    ),
    "a reader that is used twice": (
        lambda p, x: jnp.tanh(relu(x @ p["a"]) @ p["r"]) @ p["r"] @ p["c"],
        {"a": (8, 6), "r": (6, 6), "c": (6, 3)},
        {"a": r"r is used again elsewhere", "r": r"no activation between two products"},
    ),
    "stacked kernels": (
        _stacked,
        {"u": (3, 8, 6), "d": (3, 6, 8), "c": (8, 3)},
        {"u": r"holds several kernels, \(3, 8, 6\).*keep one array a kernel", "d": r"keep one array a kernel"},
    ),
    "a long loop": (
        _stacked,
        {"u": (70, 8, 6), "d": (70, 6, 8), "c": (8, 3)},
        {"u": r"holds several kernels, \(70, 8, 6\).*keep one array a kernel", "d": r"keep one array a kernel"},
    ),
    "a long recurrence": (
        _long_recurrent,
        {"a": (8, 6), "r": (6, 6), "c": (6, 3)},
        {"a": r"made in a loop of more than 64 iterations.*infer with fewer", "r": r"made in a loop"},
    ),
    "units along three axes": (
        lambda p, x: jnp.einsum("bhij,hijc->bc", relu(jnp.einsum("bd,dhij->bhij", x, p["a"])), p["c"]),
        {"a": (8, 2, 3, 2), "c": (2, 3, 2, 2)},
        {"a": r"its outputs lie along several axes \(1, 2, 3\); if they are one, state it in wiring="},
    ),
    "a concatenation": (
        lambda p, x: jnp.concatenate([relu(x @ p["a"]), x], -1) @ p["c"],
        {"a": (8, 6), "c": (14, 3)},
        {"a": r"c has other units beside them along axis 0, as behind concatenate; use a kernel for each"},
    ),
    "a norm behind the activation": (
        lambda p, x: jax.nn.standardize(relu(x @ p["a"])) @ p["c"],
        {"a": (8, 6), "c": (6, 3)},
        {"a": r"left out: the output depends on its units although .* 0, as behind a norm that mixes units"},
    ),
    "an output that is NaN": (
        lambda p, x: relu(x @ p["a"]) @ p["c"] * jnp.nan,
        {"a": (8, 6), "c": (6, 3)},
        {"a": r"left out: its features or the output are not finite"},
    ),
}


@pytest.mark.parametrize("name", [*list(NOTES)[:-2:3], *(pytest.param(n, marks=pytest.mark.whole) for n in NOTES)])
def test_notes_say_what_stopped_it_and_what_to_do(name):
    apply, shapes, notes = NOTES[name]
    inferred = _infer(apply, **shapes)
    assert inferred.wiring.layers == ()
    assert set(inferred.notes) == set(notes)
    for path, message in notes.items():
        assert re.search(message, inferred.notes[path])


def test_a_head_that_reads_two_layers_names_both():
    def apply(p, x):
        return relu(x @ p["v"]) @ p["value"] + jnp.tanh(x @ p["a"]) @ p["advantage"]

    inferred = _infer(apply, v=(8, 5), a=(8, 4), value=(5, 1), advantage=(4, 3))
    assert inferred.wiring.heads["output"].reads == "a"
    assert "its kernels read v, a, and the last counts as its input" in inferred.notes["output"]


def test_statistics_that_the_user_states_as_frozen():
    def apply(p, x):
        y = (x @ p["a"] - p["mean"]) / jnp.sqrt(p["var"] ** 2 + 1) * p["scale"] + p["offset"]
        return relu(y) @ p["c"]

    of_units = dict.fromkeys(["mean", "var", "scale", "offset"], (6,))
    stated = Wiring((), {}, frozen=frozenset({"mean", "var"}))
    wiring = _infer(apply, wiring=stated, a=(8, 6), c=(6, 3), **of_units).wiring
    (layer,) = wiring.layers
    assert [feed.slot.path for feed in layer.feeds] == ["a", "scale", "offset"]
    assert layer.statistics == (Slot("mean", 0), Slot("var", 0))
    assert wiring.biases == {}


def test_frozen_kernels_and_biases_feed_units():
    def apply(p, x):
        return relu(x @ (jax.lax.stop_gradient(p["w"]) + p["down"] @ p["up"]) + jax.lax.stop_gradient(p["b"])) @ p["c"]

    wiring = _infer(apply, w=(8, 6), down=(8, 2), up=(2, 6), b=(6,), c=(6, 3)).wiring
    (layer,) = wiring.layers
    assert {feed.slot for feed in layer.feeds} == {Slot("w", 1), Slot("up", 1), Slot("b", 0)}
    assert (layer.statistics, wiring.frozen) == ((), {"w", "b"})


def test_a_bias_belongs_to_its_own_kernel():
    def apply(p, x):
        return (jax.nn.silu(x @ p["gate"]) * (x @ p["up"] + p["b"])) @ p["c"]

    assert _infer(apply, gate=(8, 6), up=(8, 6), b=(6,), c=(6, 3)).wiring.biases == {"up": "b"}


def test_a_vector_that_is_multiplied_and_summed_reads_units():
    wiring = _infer(lambda p, x: (relu(x @ p["a"]) * p["v"]).sum(-1), a=(8, 6), v=(6,)).wiring
    assert wiring.layers[0].readers == (Slot("v", 0),)
    assert wiring.heads["output"].leaves == ("v",)


def test_pieces_of_a_maxout():
    wiring = _infer(lambda p, x: (x @ p["a"]).reshape(-1, 6, 2).max(-1) @ p["c"], a=(8, 12), c=(6, 3)).wiring
    assert [feed.slot for feed in wiring.layers[0].feeds] == [Slot("a", 1, repeats=2)]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.whole)])
def test_activations_of_short_numbers(dtype):
    params = {"a": jnp.ones((8, 6), dtype), "b": jnp.ones((6, 5), dtype), "c": jnp.ones((5, 3), dtype)}

    def apply(p, x):
        return jnp.tanh(relu(x @ p["a"]) @ p["b"]) @ p["c"]

    layers = pliant.infer_wiring(apply, params, jnp.asarray(X[:1], dtype)).wiring.layers
    assert [(layer.activation, layer.activation_traits) for layer in layers] == [("relu", None), ("tanh", None)]


def test_parameters_that_are_not_numbers():
    params = {"a": jnp.full((8, 6), jnp.nan), "c": jnp.full((6, 3), jnp.nan)}
    assert len(pliant.infer_wiring(lambda p, x: relu(x @ p["a"]) @ p["c"], params, X).wiring.layers) == 1


def test_forward_keeps_checkpoints_and_loops():
    def block(x, p):
        return jnp.tanh(relu(x @ p["a"]) @ p["b"])

    def apply(p, x):
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.sin(x), jax.checkpoint(block)(x, p) @ p["c"])

    random, shapes = np.random.default_rng(1), {"a": (8, 6), "b": (6, 5), "c": (5, 3)}
    params = {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    forward = pliant.infer_wiring(apply, params, X).forward
    own, found = ([each.primitive.name for each in jax.make_jaxpr(f)(params, X).eqns] for f in (apply, forward))
    assert [name for name in found if name in own] == own
    assert "tanh" not in found  # it is inside the checkpoint
    output, features = forward(params, X)
    np.testing.assert_allclose(output, apply(params, X), rtol=1e-5)
    np.testing.assert_allclose(features["a"], relu(X @ params["a"]), rtol=1e-5)
    gradients = [
        jax.grad(lambda p, f=f: f(p).sum())(params) for f in (lambda p: forward(p, X)[0], lambda p: apply(p, X))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *gradients)
