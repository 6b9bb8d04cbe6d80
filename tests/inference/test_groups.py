"""Units that lie along two axes of a kernel: convolutions in groups, heads, kernels that are mapped.

Resets must act as on the same network with a dense kernel, which is zero where the kernel in groups has no weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant
from pliant.interventions import reset_units
from pliant.types import Learned, Slot

relu = jax.nn.relu
RANDOM = np.random.default_rng(0)
IMAGES = jnp.asarray(RANDOM.normal(size=(6, 4, 4, 3)), jnp.float32)
VECTORS = jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32)
Y = jnp.asarray(RANDOM.normal(size=(6, 8)), jnp.float32)


def _crelu(x):
    return jnp.concatenate([relu(x), relu(-x)], -1)


def _conv(x, kernel, groups=1, kernels="HWIO"):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", kernels, "NHWC"), feature_group_count=groups
    )


def _images(activation, groups, kernels="HWIO"):
    """A layer of four units that a convolution in groups reads."""

    def apply(p, x, groups=groups):
        hidden = activation(_conv(x, p["a"]) + p["shift"])
        return _conv(hidden, p["b"], groups, kernels if groups > 1 else "HWIO").mean((1, 2)) + p["bias"]

    return lambda p, x: apply(p, x), lambda p, x: apply(p, x, 1), IMAGES, (3, 3, 3, 4)


def _dense_conv(kernel, groups):
    """A kernel in groups (height, width, in / groups, out) as a dense one."""
    *window, places, outputs = kernel.shape
    found = np.zeros((*window, groups * places, outputs), np.float32)
    for i, block in enumerate(np.split(np.asarray(kernel), groups, -1)):
        found[..., i * places : (i + 1) * places, i * block.shape[-1] : (i + 1) * block.shape[-1]] = block
    return jnp.asarray(found)


def _heads(p, x):
    hidden = relu((x @ p["a"] + p["shift"]).reshape(-1, 2, 2))
    return jnp.einsum("bhk,hko->bo", hidden, p["b"]) + p["bias"]


def _heads_behind(p, x):
    hidden = relu(x @ p["a"] + p["shift"]).reshape(-1, 2, 2)
    return jnp.einsum("bhk,kho->bo", hidden, p["b"]) + p["bias"]


def _mapped(p, x):
    hidden = relu((x @ p["a"] + p["shift"]).reshape(-1, 2, 2))
    return jax.vmap(lambda x, b: x @ b, (1, 0), 1)(hidden, p["b"]).reshape(-1, 8) + p["bias"]


def _flat(p, x):
    return relu(x @ p["a"] + p["shift"]) @ p["b"] + p["bias"]


def _dense_blocks(kernel):
    """Kernels that are mapped, (2, 2, 4), as a dense one."""
    return jnp.asarray(np.block([[kernel[0], np.zeros((2, 4))], [np.zeros((2, 4)), kernel[1]]]), jnp.float32)


CASES = {
    "grouped": (*_images(relu, 2), (3, 3, 2, 8), lambda b: _dense_conv(b, 2), Slot("b", 2, groups=2, across=3)),
    "outputs first": (
        *_images(relu, 2, "OIHW"),
        (8, 2, 3, 3),
        lambda b: _dense_conv(b.transpose(2, 3, 1, 0), 2),
        Slot("b", 1, groups=2, across=0),
    ),
    "depthwise": (*_images(relu, 4), (3, 3, 1, 8), lambda b: _dense_conv(b, 4), Slot("b", 3, repeats=2)),
    "behind crelu": (
        *_images(_crelu, 4),
        (3, 3, 2, 8),
        lambda b: _dense_conv(b, 4),
        Slot("b", 2, tiles=2, groups=4, across=3),
    ),
    "depthwise behind crelu": (*_images(_crelu, 8), (3, 3, 1, 8), lambda b: _dense_conv(b, 8), Slot("b", 3, tiles=2)),
    "two heads": (
        _heads, _flat, VECTORS, (3, 4), (2, 2, 8), lambda b: b.reshape(4, 8), Slot("b", 1, groups=2, across=0)
    ),
    "heads behind": (
        _heads_behind,
        _flat,
        VECTORS,
        (3, 4),
        (2, 2, 8),
        lambda b: b.swapaxes(0, 1).reshape(4, 8),
        Slot("b", 0, groups=2, across=1),
    ),
    "mapped": (_mapped, _flat, VECTORS, (3, 4), (2, 2, 4), _dense_blocks, Slot("b", 1, groups=2, across=0)),
}  # fmt: skip
FAST = ("behind crelu",)
NAMES = [name if name in FAST else pytest.param(name, marks=pytest.mark.whole) for name in CASES]


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


def _made(name):
    """The network with a kernel in groups, and with a dense one; parameters of both; what makes it dense; the slot."""
    apply, dense_apply, x, first, second, to_dense, slot = CASES[name]
    random = np.random.default_rng(1)
    params = {
        "a": random.normal(size=first), "b": random.normal(size=second),
        "shift": random.normal(size=4), "bias": random.normal(size=8),
    }  # fmt: skip
    params = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in params.items()}
    return apply, dense_apply, x, params, params | {"b": to_dense(params["b"])}, to_dense, slot


@pytest.mark.parametrize("name", NAMES)
def test_units_are_found_along_two_axes(name):
    apply, dense_apply, x, params, dense, _, slot = _made(name)
    np.testing.assert_allclose(apply(params, x), dense_apply(dense, x), atol=1e-5)  # the test itself
    (layer,) = pliant.infer_wiring(apply, params, x).wiring.layers
    assert (layer.width, layer.readers) == (4, (slot,))
    assert [feed.slot.path for feed in layer.feeds] == ["a", "shift"]


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_unit_is_reset_without_a_trace(name):
    apply, _, x, params, _, to_dense, _ = _made(name)
    own = pliant.infer_wiring(apply, params, x).wiring
    for unit in range(4):
        silent = params | {"a": params["a"].at[..., unit].set(0.0), "shift": params["shift"].at[unit].set(0.0)}
        learned = Learned(silent, {}, ())
        after = reset_units(jax.random.key(0), learned, own, {own.layers[0].name: jnp.arange(4) == unit}).params
        np.testing.assert_array_equal(apply(after, x), apply(silent, x))
        assert not np.array_equal(after["a"], silent["a"])
        dense = np.asarray(to_dense(after["b"]))
        unread = np.flatnonzero(~dense.reshape(-1, dense.shape[-2], 8).any((0, 2)))
        assert set(unread % 4) == {unit}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("redo", {"every": 1, "threshold": 0.8}),
        ("continual-backprop", {"replacement_rate": 0.5, "maturity": 0}),
        ("upgd", {"utility": "feature", "sigma": 0.1, "learning_rate": 0.1}),
    ],
)
def test_a_method_acts_as_on_a_dense_kernel(method, options, name):
    apply, dense_apply, x, params, dense, to_dense, _ = _made(name)
    at, found = to_dense(jnp.ones_like(params["b"])) != 0, []
    for run, own in ((apply, params), (dense_apply, dense)):
        plastic = pliant.attach(method, run, own, x, **options)
        gradients = jax.grad(lambda p, run=run: ((run(p, x) - Y) ** 2).mean())(own)
        if own is dense:
            gradients["b"] = jnp.where(at, gradients["b"], 0.0)
        found.append(plastic.update(gradients, plastic.init(own, jax.random.key(2)), own, x)[0])
    ours, theirs = found
    for path in ("a", "shift", "bias"):
        assert not np.array_equal(ours[path], params[path])
        np.testing.assert_allclose(ours[path], theirs[path], atol=2e-5)
    if method != "upgd":  # whose noise for the kernel has its shape
        np.testing.assert_allclose(to_dense(ours["b"])[at], theirs["b"][at], atol=2e-5)
