"""Methods do the same to one network whose kernels and features lie in two orders: channels last, and first."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contracts.method_checks import load_stream
from pliant.keys import seed_keys
from pliant.methods import build, defaults, find, wrapped
from pliant.streams import CLASSIFICATION
from pliant.training import init_state, switch_task, train_step
from pliant.types import Batch, Feed, Head, HiddenLayer, Lesson, Network, Slot, Wiring

draw = np.random.default_rng(0)
INPUTS = draw.normal(size=(16, 4, 4, 2)).astype(np.float32)
TARGETS = jnp.asarray(draw.integers(0, 3, 16))
ROLES = {
    "conv/kernel": "matrix",
    "conv/bias": "bias",
    "dense/kernel": "matrix",
    "dense/bias": "bias",
    "head/kernel": "head",
    "head/bias": "bias",
}
HEADS = {"output": Head(("head/kernel", "head/bias"), "dense")}
LAST = {
    "conv": {
        "kernel": draw.normal(size=(3, 3, 2, 4)) / 3,
        "bias": np.array([-9.0, 0.1, 0.0, -0.1]),
    },  # one unit is dead
    "dense": {"kernel": draw.normal(size=(16, 5)) / 3, "bias": np.array([0.1, -9.0, 0.0, 0.1, -0.1])},
    "head": {"kernel": draw.normal(size=(5, 3)) / 2, "bias": np.zeros(3)},
}
LAST = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), LAST)


def first(params):
    """The same parameters as in Equinox: outputs first, and behind the flatten channels before positions."""
    conv, dense, head = (params[name] for name in ("conv", "dense", "head"))
    rows = dense["kernel"].reshape(2, 2, 4, 5).transpose(2, 0, 1, 3).reshape(16, 5)
    moved = {
        "conv": {"kernel": conv["kernel"].transpose(3, 2, 0, 1), "bias": conv["bias"][:, None, None]},
        "dense": {"kernel": rows.T, "bias": dense["bias"]},
        "head": {"kernel": head["kernel"].T, "bias": head["bias"]},
    }
    return params | moved  # what a method has added is as it was


def plus(x, bias):
    return x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


def apply_last(params, state, inputs, *, train, key=None):
    del train, key
    x = jax.lax.conv_general_dilated(
        inputs, params["conv"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    conv = jax.nn.relu(plus(x, params["conv"]["bias"]))
    dense = jax.nn.relu(plus(conv.reshape(len(inputs), -1) @ params["dense"]["kernel"], params["dense"]["bias"]))
    output = plus(dense @ params["head"]["kernel"], params["head"]["bias"])
    return output, {"conv": conv, "dense": dense}, state


def apply_first(params, state, inputs, *, train, key=None):
    del train, key
    x = jax.lax.conv_general_dilated(inputs.transpose(0, 3, 1, 2), params["conv"]["kernel"], (1, 1), "VALID")
    conv = jax.nn.relu(plus(x, params["conv"]["bias"]))
    dense = jax.nn.relu(plus(conv.reshape(len(inputs), -1) @ params["dense"]["kernel"].T, params["dense"]["bias"]))
    output = plus(dense @ params["head"]["kernel"].T, params["head"]["bias"])
    return output, {"conv": conv, "dense": dense}, state


def network(*, channels_first):
    outputs, inputs, units = (0, 1, 1) if channels_first else (-1, -2, -1)
    flat = {"repeats": 4} if channels_first else {"tiles": 4}
    some, zeros = jax.nn.initializers.constant(0.3), jax.nn.initializers.zeros

    def layer(name, width, reader, axis, bias_axis):
        feeds = (Feed(Slot(f"{name}/kernel", outputs), some), Feed(Slot(f"{name}/bias", bias_axis), zeros))
        return HiddenLayer(name, width, feeds, (reader,), "relu", elementwise=True, axis=axis)

    layers = (
        layer("conv", 4, Slot("dense/kernel", inputs, **flat), units, 0),
        layer("dense", 5, Slot("head/kernel", inputs), -1, 0),
    )
    start = jax.tree.map(jnp.asarray, first(LAST) if channels_first else LAST)
    return Network(lambda key: (start, {}), apply_first if channels_first else apply_last, Wiring(layers, ROLES, HEADS))


METHODS = {
    "adamo+gram-penalty+parseval+feature-init+effective-rank+redo": {},
    "muon+infer+snr+continual-backprop+weight-clipping": {"max_silence": 2, "maturity": 1, "replacement_rate": 0.4},
    "upgd+dash+fire+regrama": {"scope": "local", "sigma": 0.0, "num_batches": 1, "per": "slice"},
    "upgd+newton-schulz": {"utility": "feature", "sigma": 0.0},
}


def trained(name, *, channels_first):
    """Parameters, and what the method said, after a change of tasks and four updates."""
    method = find(name)
    values = defaults(method, 0.02)
    values |= {option: 2 for option in values if option.endswith("every")} | METHODS[name]
    own = wrapped(method, network(channels_first=channels_first), values)
    stream, keys = load_stream(CLASSIFICATION, 3, TARGETS), seed_keys(0)
    parts, batch = build(method, own.wiring, values), Batch(jnp.asarray(INPUTS), TARGETS)

    @jax.jit
    def step_on(state, step):
        lesson = Lesson(batch, (), lambda key, number: batch)
        return train_step(own, parts, stream.objective, state, lesson, step, keys)[:2]

    state, told = init_state(own, parts, keys.network), []
    state, _ = jax.jit(lambda state: switch_task(own, parts, state, keys, jnp.int32(1)))(state)
    for step in range(1, 5):
        state, info = step_on(state, jnp.int32(step))
        told.append(info)
    return state.params, told


@pytest.mark.parametrize("name", METHODS)
def test_methods_do_the_same_in_two_layouts(name):
    (last, told), (moved, told_too) = (trained(name, channels_first=flag) for flag in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), first(last), moved)
    for one, other in zip(told, told_too, strict=True):
        for what, value in one.items():
            assert math.isclose(value, other[what], rel_tol=2e-3, abs_tol=2e-4), what
    counts = [float(info[what]) for info in told for what in info if what.endswith("units_reset")]
    assert not counts or sum(counts) > 0
