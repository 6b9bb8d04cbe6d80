import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import intermediate_jacobian, jacobian_moments
from pliant.errors import UserError
from pliant.networks import convolution


def linear(matrix):
    """A function whose Jacobian is the matrix, for every example."""
    return lambda x: (x @ jnp.asarray(matrix, jnp.float32).T, {})


def test_golden(key):
    """Orthogonal rows: every sample has the sum exactly. One of the singular values is 0."""
    found = jacobian_moments(linear([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), jnp.ones((2, 3)), key)
    np.testing.assert_allclose(found.squared_sum, [10.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(found.sigma_rms, np.sqrt([10 / 3, 10 / 3]), rtol=1e-6)
    np.testing.assert_allclose(found.sigma_max, [3.0, 3.0], rtol=1e-6)


def test_the_smaller_side_counts_the_singular_values(key):
    tall = np.eye(5, 2) * 2
    for matrix in (tall, tall.T):
        found = jacobian_moments(linear(matrix), jnp.ones((1, matrix.shape[1])), key)
        np.testing.assert_allclose(found.sigma_rms, [2.0], rtol=1e-6)


def test_the_error_is_as_stated(key):
    """Of 500 examples with the same Jacobian: no bias, and the variance 2 (‖G‖² − Σ G_ii²) / S with G = J Jᵀ."""
    matrix = np.random.default_rng(0).standard_normal((6, 9))
    gram = matrix @ matrix.T
    found = jacobian_moments(linear(matrix), jnp.ones((500, 9)), key, num_samples=8)
    wanted = np.sqrt(2 * (np.square(gram).sum() - np.square(np.diag(gram)).sum()) / 8)
    assert wanted <= np.sqrt(2 / 8) * np.trace(gram)
    np.testing.assert_allclose(found.squared_sum.mean(), np.trace(gram), atol=4 * wanted / np.sqrt(500))
    np.testing.assert_allclose(found.squared_sum.std(), wanted, rtol=0.2)
    largest = np.linalg.norm(matrix, 2)
    assert np.all(np.asarray(found.sigma_max) <= largest * (1 + 1e-5))
    np.testing.assert_allclose(found.sigma_max, np.full(500, largest), rtol=0.02)


@pytest.mark.parametrize("num_iterations", [5, 20, 200])
def test_the_power_method_comes_near_from_below(key, num_iterations):
    """A flat spectrum is hard; the mean error stays below the bound all the same."""
    function = linear(np.diag(np.linspace(0.9, 1.0, 50)))
    found = np.asarray(jacobian_moments(function, jnp.ones((20, 50)), key, num_iterations=num_iterations).sigma_max)
    assert np.all(found <= 1 + 1e-5)
    assert (1 - found**2).mean() <= 0.871 * np.log(50) / (num_iterations - 1)
    np.testing.assert_allclose(found, np.ones(20), rtol=0.05 if num_iterations < 20 else 0.03)


def test_between_features_of_a_convolutional_network(key):
    """Against the exact Jacobian, with its values above and below."""
    kernels = 0.3 * jax.random.normal(key, (2, 3, 3, 4, 4))

    def function(x):
        first = jax.nn.relu(convolution(x, kernels[0]))
        second = jnp.tanh(convolution(first, kernels[1]))
        return second.mean(axis=(1, 2)), {"first": first, "second": second}

    x = jax.random.normal(key, (2, 4, 4, 4))
    exact = np.asarray(intermediate_jacobian(function, x, "first", "second"), np.float64)
    sigma = np.linalg.svd(exact, compute_uv=False)
    found = jax.jit(lambda x: jacobian_moments(function, x, key, "first", "second", num_samples=64))(x)
    np.testing.assert_allclose(found.squared_sum, np.square(sigma).sum(axis=1), rtol=0.15)
    np.testing.assert_allclose(found.sigma_max, sigma[:, 0], rtol=0.03)


def test_a_function_with_a_gradient_of_its_own(key):
    """Forward mode of a custom gradient is made from its backward mode."""

    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    found = jacobian_moments(lambda x: (doubled(x), {}), jnp.ones((1, 3)), key)
    np.testing.assert_allclose([found.sigma_max[0], found.sigma_rms[0]], [2.0, 2.0], rtol=1e-6)


def test_jit_and_vmap_over_seeds(key):
    keys = jax.random.split(key, 2)
    matrices = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32)

    def measure(matrix, key):
        return jacobian_moments(lambda x: (jnp.tanh(x @ matrix.T), {}), jnp.ones((2, 4)) / 4, key)

    mapped = jax.jit(jax.vmap(measure))(matrices, keys)
    alone = [measure(*each) for each in zip(matrices, keys, strict=True)]
    for found, wanted in zip(mapped, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-4)


def test_zeros_and_nan(key):
    x = jnp.array([[0.0, 0.0], [1.0, jnp.nan], [1.0, 1.0]])
    found = jacobian_moments(lambda x: (x**2, {}), x, key)
    for values in found:
        assert float(values[0]) == 0.0
        assert np.isnan(values[1])
        assert float(values[2]) > 0


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (jnp.ones((0, 2)), {}, "got an empty batch; wanted at least one example"),
        (jnp.ones((1, 2)), {"num_samples": 0}, "got num_samples=0; wanted a finite number ≥ 1"),
        (jnp.ones((1, 2)), {"num_iterations": 0}, "got num_iterations=0; wanted a finite number ≥ 1"),
        (jnp.ones((1, 2)), {"start": "x"}, "got the feature 'x'; wanted one of"),
    ],
)
def test_what_cannot_be_measured_is_refused(key, inputs, options, message):
    with pytest.raises(UserError, match=message):
        jacobian_moments(linear(np.eye(2)), inputs, key, **options)
