"""What every registered network must satisfy; a new one joins by its row, and a line that makes it small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks import NETWORKS, takes_texts
from pliant.types import Text
from wiring_checks import assert_wiring_is_true

SMALL = {
    "mlp": {"widths": (6, 5)},
    "residual-mlp": {"width": 6, "num_blocks": 2},
    "moe-mlp": {"widths": (6,), "num_experts": 2, "expert_width": 4, "mixture_width": 5},
    "cnn": {"channels": (3, 4), "kernel_sizes": (3, 3), "strides": (1, 2), "pool": (1, 1), "widths": (6,)},
    "lyle-cnn": {"widths": (5,)},
    "kumar-cnn": {"widths": (5,), "padding": "SAME"},
    "octax-cnn": {"width_multiplier": 0.125, "widths": (40,)},
    "resnet18": {"width": 4, "num_blocks": (1, 1)},
    "vit": {"patch_size": 4, "width": 8, "num_blocks": 1, "num_heads": 2, "mlp_width": 6},
    "lyle-vit": {},
    "t5": {"width": 8, "num_heads": 2, "head_width": 4, "mlp_width": 6},
}
LINEAR = {
    f"cnn with {kind}": kind
    for kind in ("newton-schulz", "cans", "spectral-norm", "spectral-norm-first", "weight-norm", "scaled")
}
WIDE = {
    "lyle-cnn",
    "kumar-cnn",
    "octax-cnn",
    "lyle-vit",
}  # too many units to cut off one by one; they are `cnn` and `vit`
FROM_FILES = {"t5-pretrained"}  # a `t5` with other numbers, see networks/test_t5_weights.py
NAMES = sorted(set(NETWORKS) - FROM_FILES)
WITH_VARIANTS = [*NAMES, *LINEAR]


def _made(name):
    if name in LINEAR:
        return NETWORKS["cnn"]((8, 8, 1), 3, **SMALL["cnn"], linear=LINEAR[name])
    shape, num_outputs = ((7, 5), 9) if takes_texts(NETWORKS[name]) else ((8, 8, 1), 3)
    return NETWORKS[name](shape, num_outputs, **SMALL[name])


def _inputs(name, size=6):
    draw = np.random.default_rng(0)
    if name in NETWORKS and takes_texts(NETWORKS[name]):
        source, decoder = (draw.integers(1, 9, (size, length)) for length in (7, 5))
        decoder[:, 0] = 0
        return Text(jnp.asarray(source, jnp.int32), jnp.asarray(decoder, jnp.int32))
    return jnp.asarray(draw.normal(size=(size, 8, 8, 1)), jnp.float32)


def _loss(network, inputs, state):
    return lambda params: jnp.sum(network.apply(params, state, inputs, train=True, key=jax.random.key(1))[0] ** 2)


def _close(a, b):
    """Equal up to rounding, which is as large as that of the largest number."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4 * scale)


def test_every_network_is_here():
    assert set(SMALL) == set(NAMES)


@pytest.mark.parametrize("name", sorted(set(NAMES) - WIDE))
def test_wiring(name):
    assert_wiring_is_true(_made(name), _inputs(name, 24))


@pytest.mark.parametrize("name", LINEAR)
def test_wiring_of_other_linear_layers(name):
    """Units of kernels that are normalised as a whole have nothing but a bias of their own."""
    own = None if LINEAR[name] in ("weight-norm", "scaled") else ("bias",)
    assert_wiring_is_true(_made(name), _inputs(name, 24), through=own)


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_derivatives(name):
    """Forward mode, gradients, and gradients of gradients either way agree with each other."""
    network, inputs = _made(name), _inputs(name)
    params, state = network.init(jax.random.key(0))
    loss = _loss(network, inputs, state)
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params)

    def along(tree):
        return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (tree, direction)), strict=True))

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient))
    _close(jax.jit(lambda p: jax.jvp(loss, (p,), (direction,))[1])(params), along(gradient))
    forward = jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (direction,))[1])(params)
    backward = jax.jit(jax.grad(lambda p: along(jax.grad(loss)(p))))(params)
    _close(forward, backward)


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_stacked_seeds_are_a_loop(name):
    network, inputs = _made(name), _inputs(name)
    params, states = zip(*(network.init(jax.random.key(seed)) for seed in range(2)), strict=True)
    first, second = map(jax.tree.leaves, params)
    assert any(bool((a != b).any()) for a, b in zip(first, second, strict=True))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    stacked_state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    gradients = jax.jit(jax.vmap(lambda p, s: jax.grad(_loss(network, inputs, s))(p)))(stacked, stacked_state)
    for seed in range(2):
        one = jax.tree.map(lambda leaf, i=seed: leaf[i], gradients)
        _close(one, jax.grad(_loss(network, inputs, states[seed]))(params[seed]))


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_state_is_stable_in_a_loop_and_still_in_eval(name):
    network, inputs = _made(name), _inputs(name)
    params, state = network.init(jax.random.key(0))

    def body(_, state):
        return network.apply(params, state, inputs, train=True, key=jax.random.key(0))[2]

    after = jax.jit(lambda state: jax.lax.fori_loop(0, 3, body, state))(state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    unchanged = network.apply(params, after, inputs, train=False, key=None)[2]
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(unchanged), strict=True):
        np.testing.assert_array_equal(a, b)
    if name == "resnet18":
        assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=True))


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_eval_needs_no_key_and_examples_do_not_mix(name):
    network, inputs = _made(name), _inputs(name)
    params, state = network.init(jax.random.key(0))
    whole, features, _ = network.apply(params, state, inputs, train=False, key=None)
    one = network.apply(params, state, jax.tree.map(lambda leaf: leaf[2:3], inputs), train=False, key=None)[0]
    np.testing.assert_allclose(whole[2:3], one, rtol=1e-4, atol=1e-5)
    assert all(len(feature) == 6 for feature in features.values())
