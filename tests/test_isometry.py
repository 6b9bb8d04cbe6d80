import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import UserError
from pliant.isometry import from_matrix, gram_deviation, gram_deviation_gradient, matrix_view

DIAGONAL = jnp.diag(jnp.array([2.0, 1.0, 0.5]))


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1]), jnp.float32)


def test_golden():
    assert float(gram_deviation(DIAGONAL)) == 9.5625
    gradient, bound = gram_deviation_gradient(DIAGONAL)
    np.testing.assert_array_equal(gradient, np.diag([24.0, 0.0, -1.5]))
    assert float(bound) == 4.0


def test_a_column_without_a_task_gradient_is_still_pulled():
    gradient, _ = gram_deviation_gradient(jnp.array([[1.0, 0.6], [0.0, 0.8]]))
    np.testing.assert_allclose(gradient[:, 1], [2.4, 0.0], atol=1e-6)


def test_matrix_view_flattens_all_axes_but_the_last():
    kernel = jnp.arange(36.0).reshape(3, 1, 2, 6)
    np.testing.assert_array_equal(matrix_view(kernel), np.arange(36.0).reshape(6, 6))


LAYOUTS = {
    (12, 5): ((0,), (1, 0)),
    (5, 3, 2, 2): ((0,), (1, 2, 3, 0)),
    (6, 2, 4): ((-2, -1), (0, 1, 2)),
    (2, 4, 6): ((-1,), (0, 1, 2)),
    (3, 4, 2, 5): ((1, -1), (0, 2, 1, 3)),
}


@pytest.mark.parametrize("shape", LAYOUTS)
def test_any_layout_has_its_matrix(shape):
    """By hand: inputs first, then outputs. The inverse leads back."""
    axes, order = LAYOUTS[shape]
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    num_out = np.prod([shape[axis] for axis in axes])
    matrix = matrix_view(kernel, axes)
    np.testing.assert_array_equal(matrix, kernel.transpose(order).reshape(-1, num_out))
    np.testing.assert_array_equal(from_matrix(matrix, shape, axes), kernel)


@pytest.mark.parametrize("rectangular", ["none", "fan"])
@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (6, 2, 4), (3, 4, 2, 5)])
def test_the_deviation_of_any_layout_is_that_of_its_matrix(shape, rectangular):
    axes, _ = LAYOUTS[shape]
    kernel = normal(4, shape)
    matrix = matrix_view(kernel, axes)
    assert float(gram_deviation(kernel, 1.2, rectangular, axes)) == float(gram_deviation(matrix, 1.2, rectangular))
    found, bound = gram_deviation_gradient(kernel, 1.2, rectangular, axes)
    wanted, same_bound = gram_deviation_gradient(matrix, 1.2, rectangular)
    np.testing.assert_array_equal(found, from_matrix(wanted, shape, axes))
    assert float(bound) == float(same_bound)


@pytest.mark.parametrize("axes", [(), (2,), (-3,), (0, 1), (1, -1), (1, 1)])
def test_axes_that_split_no_kernel_are_refused(axes):
    with pytest.raises(UserError, match=r"got output_axes=\(.*\) for a kernel of shape \(3, 4\); wanted diff"):
        matrix_view(jnp.ones((3, 4)), axes)


@pytest.mark.parametrize("rectangular", ["none", "fan"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3, 3, 0, 2)])
def test_an_empty_kernel_has_an_empty_gradient(shape, rectangular):
    gradient, bound = gram_deviation_gradient(jnp.ones(shape), 1.0, rectangular)
    assert gradient.shape == shape
    assert float(bound) >= 1.0
    assert float(gram_deviation(jnp.ones(shape), 1.0, rectangular)) == 0.0


@pytest.mark.parametrize("function", [matrix_view, gram_deviation, gram_deviation_gradient])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_vectors_are_refused(function, shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=r"got a parameter of shape \(.*\); wanted a dense \(in, out\).*Leave biases"):
        function(jnp.ones(shape))


@pytest.mark.parametrize("function", [gram_deviation, gram_deviation_gradient])
def test_unknown_rectangular_is_refused(function, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=r"got rectangular='Fan'; wanted 'none' or 'fan'\. Leave it out for 'none'"):
        function(DIAGONAL, rectangular="Fan")


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5)])
def test_no_deviation_and_no_pull_at_an_isometry(shape):
    left, _, right = np.linalg.svd(normal(0, shape), full_matrices=False)
    kernel = jnp.asarray(1.5 * left @ right, jnp.float32)
    gradient, bound = gram_deviation_gradient(kernel, 1.5)
    assert float(gram_deviation(kernel, 1.5)) < 1e-10
    np.testing.assert_allclose(gradient, np.zeros(shape), atol=1e-5)
    np.testing.assert_allclose(bound, 2.25, rtol=1e-5)


shapes = st.sampled_from([(1, 1), (1, 6), (5, 3), (3, 5), (4, 4), (1, 2, 3, 4), (2, 2, 3, 5)])
cases = given(shapes, st.floats(0.25, 2.0), st.sampled_from(["none", "fan"]), st.integers(0, 2**31))


@cases
@settings(max_examples=20, deadline=None, database=None)
def test_closed_form_is_the_derivative(shape, gain, rectangular, seed):
    kernel = normal(seed, shape)
    found, bound = gram_deviation_gradient(kernel, gain, rectangular)
    wanted = jax.grad(gram_deviation)(kernel, gain, rectangular)
    scale = 4 * np.linalg.norm(kernel) * float(bound)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * scale)


@cases
@settings(max_examples=20, deadline=None, database=None)
def test_it_is_a_function_of_the_singular_values(shape, gain, rectangular, seed):
    kernel = normal(seed, shape)
    matrix = np.asarray(matrix_view(kernel), np.float64)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    fan = max(1.0, matrix.shape[1] / matrix.shape[0]) if rectangular == "fan" else 1.0
    wanted = ((sigma**2 - gain**2 * fan) ** 2).sum()
    found = gram_deviation(kernel, gain, rectangular)
    _, bound = gram_deviation_gradient(kernel, gain, rectangular)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(bound) ** 2)
    assert float(bound) >= max(sigma.max() ** 2, gain**2 * fan) * (1 - 1e-6)
    largest = np.abs(sigma**2 - gain**2 * fan).max()
    assert float(bound) <= gain**2 * fan + np.sqrt(len(sigma)) * largest * (1 + 1e-5) + 1e-5
    if rectangular == "none":
        np.testing.assert_allclose(
            gram_deviation(jnp.asarray(matrix.T, jnp.float32), gain), found, rtol=1e-5, atol=1e-6
        )


def test_the_bound_is_loose_far_from_an_isometry():
    kernel = normal(3, (64, 64))
    sigma = np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)
    assert float(gram_deviation_gradient(kernel)[1]) > 2 * sigma.max() ** 2


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_the_larger_sides_gram_has_the_same_gradient(shape):
    kernel = normal(1, shape)
    tall = np.asarray(kernel if shape[0] > shape[1] else kernel.T, np.float64)
    wanted = 4 * (tall @ tall.T - np.eye(6)) @ tall
    found, _ = gram_deviation_gradient(kernel)
    np.testing.assert_allclose(found, wanted if shape[0] > shape[1] else wanted.T, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_computed_in_float32():
    kernel = normal(2, (8, 5)).astype(jnp.bfloat16)
    gradient, bound = gram_deviation_gradient(kernel)
    assert gradient.dtype == bound.dtype == gram_deviation(kernel).dtype == jnp.float32
    np.testing.assert_array_equal(gradient, gram_deviation_gradient(kernel.astype(jnp.float32))[0])
    assert jax.grad(gram_deviation)(kernel).dtype == jnp.bfloat16


def test_gradients_survive_a_singular_kernel():
    assert np.all(np.isfinite(jax.grad(gram_deviation)(jnp.zeros((4, 3)))))
    assert float(gram_deviation(jnp.zeros((4, 3)))) == 3.0


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 2, 3, 4)])
def test_all_orders_and_forward_mode(shape):
    """Against JAX's own derivatives of the definition, with respect to the kernel and the gain."""

    def by_definition(kernel, gain):
        matrix = kernel.reshape(-1, shape[-1])
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        return jnp.sum((tall.T @ tall - gain**2 * jnp.eye(tall.shape[1])) ** 2)

    kernel, gain = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32), jnp.float32(1.3)
    for derive in (jax.grad, jax.jacfwd, jax.hessian, lambda f, argnums: jax.jacrev(jax.jacrev(f, argnums), argnums)):
        ours, theirs = (derive(f, argnums=(0, 1))(kernel, gain) for f in (gram_deviation, by_definition))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), ours, theirs)
