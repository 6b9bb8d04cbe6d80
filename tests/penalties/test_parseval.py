import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.isometry import matrix_view
from pliant.networks import orthogonal
from pliant.penalties import parseval

ROOT_TWO = 2**0.5


def value_and_gradient(penalty, params):
    state = penalty.init(params)
    return jax.jit(jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0]))(params)


def by_units(kernel, gain, groups=1):
    """The authors' term: the Gram matrix of all units, cut to blocks."""
    matrix = np.asarray(matrix_view(kernel), np.float64)
    size = matrix.shape[1] // groups
    blocks = np.kron(np.eye(groups), np.ones((size, size)))
    return np.sum((blocks * (matrix.T @ matrix) - gain**2 * np.eye(matrix.shape[1])) ** 2)


def test_golden():
    """‖4I − 2I‖² = 8 for two units, whose factor is (64/2)²."""
    value, gradient = value_and_gradient(parseval(0.5), 2.0 * jnp.eye(2))
    np.testing.assert_allclose(value, 0.5 * 32**2 * 8, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.5 * 32**2 * 4 * 2 * (4 - 2) * np.eye(2), rtol=1e-5)


@pytest.mark.parametrize("gain", [1.0, ROOT_TWO])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 2, 3, 4)])
def test_nothing_where_all_singular_values_are_the_gain(key, shape, gain):
    """Also where there are more units than inputs: the authors' Gram matrix never gets there."""
    kernel = orthogonal(gain)(key, shape)
    value, gradient = value_and_gradient(parseval(1.0, gain=gain), kernel)
    np.testing.assert_allclose(value, 0.0, atol=1e-7)
    np.testing.assert_allclose(gradient, 0.0, atol=2e-2)  # of terms times (64/4)²


def test_the_factor_is_that_of_each_layer(key):
    """One for 64 units; a layer of half the width counts four times as much."""
    kernels = {"a": jax.random.normal(key, (8, 64)) / 8, "b": jax.random.normal(key, (64, 32)) / 8}
    value, _ = value_and_gradient(parseval(1e-3, gain=1.0), kernels)
    wide = by_units(kernels["a"].T, 1.0)  # the smaller side
    np.testing.assert_allclose(value, 1e-3 * (wide + 4 * by_units(kernels["b"], 1.0)), rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, 6), (2, 6), (2, 2, 2, 6)])
def test_gradient_is_that_of_the_units_gram(key, shape, groups):
    """Whichever side is smaller: the terms differ by a constant."""
    kernel = jax.random.normal(key, shape) / 2
    value, gradient = value_and_gradient(parseval(1e-3, groups=groups), kernel)
    matrix = matrix_view(kernel)
    size = 6 // groups
    blocks = jnp.kron(jnp.eye(groups), jnp.ones((size, size)))
    residual = blocks * (matrix.T @ matrix) - 2.0 * jnp.eye(6)
    factor = 1e-3 * (64 / 6) ** 2
    np.testing.assert_allclose(gradient, factor * 4 * (matrix @ residual).reshape(shape), rtol=1e-4, atol=1e-5)
    constant = groups * max(size - matrix.shape[0], 0) * 4.0
    np.testing.assert_allclose(value, factor * (by_units(kernel, ROOT_TWO, groups) - constant), rtol=1e-5)


def test_groups_are_not_held_against_each_other():
    twice = ROOT_TWO * jnp.concatenate([jnp.eye(3), jnp.eye(3)], axis=1)
    assert float(parseval(1.0, groups=2).loss(twice, (), None)[0]) < 1e-8
    assert float(parseval(1.0).loss(twice, (), None)[0]) > 1


def test_angles_do_not_see_lengths(key):
    kernel = jax.random.normal(key, (6, 4))
    penalty = parseval(1e-3, angles_only=True)
    value, gradient = value_and_gradient(penalty, kernel)
    longer = kernel * jnp.array([[0.1, 1.0, 3.0, 20.0]])
    np.testing.assert_allclose(penalty.loss(longer, (), None)[0], value, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(kernel * gradient, axis=0), 0.0, atol=1e-6)
    unit = kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
    np.testing.assert_allclose(value, 1e-3 * 16**2 * by_units(unit, 1.0), rtol=1e-5)


def test_angles_of_units_without_weights_are_finite():
    kernel = jnp.zeros((3, 2)).at[0, 0].set(2.0)
    value, gradient = value_and_gradient(parseval(1.0, angles_only=True), kernel)
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, 0.0)


def test_only_the_mask_is_penalised(key):
    params = {"bias": jnp.ones(4), "head": jax.random.normal(key, (4, 2)), "kernel": jax.random.normal(key, (3, 4))}
    only = {"bias": False, "head": False, "kernel": True}
    _, gradient = value_and_gradient(parseval(mask=only), params)
    assert np.all(np.asarray(gradient["kernel"]) != 0)
    assert not np.any(gradient["head"])
    _, gradient = value_and_gradient(parseval(), params)
    assert np.all(np.asarray(gradient["head"]) != 0)
    assert not np.any(gradient["bias"])


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"angles_only": True}])
def test_strength_zero_is_exactly_zero(key, options):
    value, gradient = value_and_gradient(parseval(0.0, **options), jax.random.normal(key, (3, 4)))
    assert float(value) == 0.0
    assert not np.any(gradient)


@pytest.mark.parametrize("angles_only", [False, True])
def test_narrow_types_are_computed_in_float32(key, angles_only):
    kernel = jax.random.normal(key, (6, 4)).astype(jnp.bfloat16)
    penalty = parseval(1e-3, angles_only=angles_only)
    value, gradient = value_and_gradient(penalty, kernel)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(value, penalty.loss(kernel.astype(jnp.float32), (), None)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Use √2 for"),
        ({"groups": 0}, "got groups=0; wanted a finite number ≥ 1. Use 1 for all units"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        parseval(**options)


def test_refuses_what_the_parameters_do_not_allow():
    with pytest.raises(UserError, match="got groups=3 for a kernel with 4 units; wanted a divisor"):
        parseval(groups=3).init(jnp.zeros((3, 4)))
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        parseval().init({"bias": jnp.ones(3)})
