import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import unit_sphere
from pliant.networks import cnn, mlp
from pliant.types import Learned


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def column_norms(kernel):
    return np.linalg.norm(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), axis=0)


@functools.cache
def network_of(linear="scaled", kind="mlp"):
    if kind == "cnn":
        sizes = {"channels": (4, 3), "kernel_sizes": (3, 2), "strides": (1, 2), "pool": (1, 1), "widths": (5,)}
        return cnn((6, 6, 2), 3, **sizes, linear=linear)
    return mlp((7,), 3, widths=(6, 9), linear=linear)


def moved(network, seed=0):
    """Parameters away from where they began."""
    params = network.init(jax.random.key(seed))[0]
    return jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params)


def project(network, params, **options):
    method = unit_sphere(network.wiring, **options)
    learned = Learned(params, {}, ())
    return jax.jit(lambda: method.update(jax.random.key(0), 1, learned, method.init(learned), None))()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("linear", ["scaled", "weight-norm"])
def test_all_units_of_hidden_layers_are_on_the_sphere_and_nothing_else_moves(linear, kind):
    network = network_of(linear, kind)
    before = moved(network)
    (after, _, _), state, info = project(network, before)
    assert state == ()
    total = 0.0
    for module, leaves in after.items():
        if module == "head":
            same(leaves, before[module])
            continue
        old, new = before[module]["kernel"], leaves["kernel"]
        np.testing.assert_allclose(column_norms(new), 1.0, rtol=1e-6)
        np.testing.assert_allclose(np.asarray(new) * column_norms(old), old, rtol=1e-5, atol=1e-7)
        same((leaves["bias"], leaves["scale"]), (before[module]["bias"], before[module]["scale"]))
        total += np.sum((np.asarray(new) - np.asarray(old)) ** 2, dtype=np.float64)
    np.testing.assert_allclose(info["norm_moved"], total**0.5, rtol=1e-5)


def test_a_network_on_the_sphere_stays_there():
    network = network_of()
    params = network.init(jax.random.key(0))[0]
    for _ in range(2):
        (params, _, _), _, info = project(network, params)
        assert float(info["norm_moved"]) < 1e-6


def test_weight_norm_hears_nothing_of_it(key):
    network = network_of("weight-norm")
    before = moved(network)
    after = project(network, before)[0].params
    x = jax.random.normal(key, (5, 7))
    outputs = [network.apply(params, {}, x, train=False, key=None)[0] for params in (before, after)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)


def test_strength_0_is_a_bitwise_no_op_and_half_is_half_way():
    network = network_of()
    before = moved(network)
    (after, _, _), _, info = project(network, before, strength=0.0)
    same(after, before)
    assert float(info["norm_moved"]) == 0.0
    half = project(network, before, strength=0.5)[0].params["dense_0"]["kernel"]
    np.testing.assert_allclose(column_norms(half), (1 + column_norms(before["dense_0"]["kernel"])) / 2, rtol=1e-6)


def test_a_unit_without_weights_stays_silent():
    network = network_of()
    before = moved(network)
    before["dense_0"]["kernel"] = before["dense_0"]["kernel"].at[:, 2].set(0.0)
    after = project(network, before)[0].params["dense_0"]["kernel"]
    np.testing.assert_allclose(column_norms(after), np.arange(6) != 2, rtol=1e-6)


def test_narrow_weights_stay_narrow():
    network = network_of()
    before = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), moved(network))
    after = project(network, before)[0].params
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(column_norms(after["dense_1"]["kernel"].astype(jnp.float32)), 1.0, rtol=5e-3)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            lambda: mlp((3,), 2, widths=(4, 5)),
            {},
            "got the unit sphere for dense_0, dense_1 without scales; wanted hidden layers .* linear='scaled'",
        ),
        (lambda: mlp((3,), 2, widths=(4,), linear="spectral-norm"), {}, "for dense_0 without scales"),
        (lambda: mlp((3,), 2, widths=()), {}, "got the unit sphere for a network without hidden layers"),
        (network_of, {"strength": -0.1}, r"got strength=-0.1; wanted a number in \[0, 1\]. Use 1 for the sphere"),
    ],
)
def test_refuses(network, options, message):
    with pytest.raises(UserError, match=message):
        unit_sphere(network().wiring, **options)
