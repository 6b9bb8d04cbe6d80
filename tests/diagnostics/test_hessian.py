from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from pliant.diagnostics import (
    DIAGNOSTICS,
    hessian_vector_product,
    lanczos,
    probe_loss,
    quadrature,
    top_eigenvalues,
    top_tridiagonal,
)
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from strict_types import unchecked
from subjects import measure, subject

few = settings(max_examples=15, deadline=None, database=None)


def quadratic(curvature):
    """A loss whose Hessian is diagonal, and parameters."""
    curvature = jnp.asarray(curvature, jnp.float32)
    return (lambda x: (curvature * x * x).sum() / 2), jnp.zeros(curvature.shape)


def host(arrays):
    return [np.asarray(array) for array in arrays]


@jax.jit
def top_of_quadratic(curvature):
    return top_tridiagonal(*quadratic(curvature), jax.random.key(0))


def top(*curvature):
    return top_eigenvalues(*host(top_of_quadratic(jnp.array(curvature))))


def dense_hessian(loss, params):
    _, unravel = ravel_pytree(params)
    return lambda params: jax.hessian(lambda x: loss(unravel(x)))(ravel_pytree(params)[0])


def eigenvalues(matrix):
    return np.linalg.eigvalsh(np.asarray(matrix, np.float64))


@pytest.fixture(scope="module")
def net():
    """A small network with a loss, and compiled functions of its parameters."""
    key = jax.random.key(0)
    network = mlp((3,), 2, widths=(5, 4), activation="tanh")
    params, state = network.init(key)
    x, y = jax.random.normal(key, (16, 3)), jax.random.normal(jax.random.key(9), (16, 2))
    of = subject(network, params, state, x, y)

    def loss(params):
        return jnp.square(network.apply(params, state, x, train=False, key=None)[0] - y).mean()

    diagnostic = DIAGNOSTICS["hessian-top"]
    run = jax.jit(lambda params: diagnostic.measure(of._replace(params=params)))
    return SimpleNamespace(
        params=params,
        loss=loss,
        subject=of,
        dense=jax.jit(dense_hessian(loss, params)),
        numbers=lambda params: diagnostic.summarize(tuple(host(run(params)))).numbers,
    )


def test_golden_product():
    found = hessian_vector_product(lambda p: p["a"] ** 2 * p["b"], {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0})
    assert {name: float(value) for name, value in found.items()} == {"a": 10.0, "b": 2.0}


def test_product_is_that_of_the_dense_matrix(net):
    flat, unravel = ravel_pytree(net.params)
    vector = jax.random.normal(jax.random.key(1), flat.shape)
    found = jax.jit(lambda vector: hessian_vector_product(net.loss, net.params, unravel(vector)))(vector)
    np.testing.assert_allclose(ravel_pytree(found)[0], net.dense(net.params) @ vector, rtol=1e-4, atol=1e-5)


def test_golden_top():
    np.testing.assert_allclose(top(3.0, -5.0, 1.0), [3.0, -5.0, -5.0], rtol=1e-5)
    np.testing.assert_allclose(top(3.0, -2.0, 1.0), [3.0, 3.0, -2.0], rtol=1e-5)


@pytest.mark.parametrize("start", ["rademacher", "normal"])
def test_nodes_of_all_steps_are_the_eigenvalues(key, start):
    curvature = [4.0, 1.0, 0.25, -1.0, 0.0, 2.0, -3.0, 0.5]
    found = lanczos(*quadratic(curvature), key, num_steps=8, num_starts=3, start=start)
    assert found.alphas.shape == (3, 8)
    assert found.betas.shape == (3, 7)
    for alphas, betas in zip(*host(found), strict=True):
        nodes, weights = quadrature(alphas, betas)
        np.testing.assert_allclose(nodes, sorted(curvature), atol=1e-4)
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)
        if start == "rademacher":
            np.testing.assert_allclose(weights, 1 / 8, rtol=1e-3)
            np.testing.assert_allclose((weights * nodes).sum(), np.mean(curvature), rtol=1e-5)


def test_golden_linear_regression(key):
    """H = 2XᵀX/n."""
    x = jax.random.normal(key, (12, 4))
    arrays = top_tridiagonal(lambda w: jnp.square(x @ w - jnp.arange(12.0)).mean(), jnp.ones(4), key)
    exact = eigenvalues(2 * x.T @ x / 12)
    np.testing.assert_allclose(top_eigenvalues(*host(arrays)), [exact[-1], exact[-1], exact[0]], rtol=1e-4)


@given(st.floats(0.01, 100.0), st.sampled_from([-1.0, 1.0]), st.integers(0, 2**31))
@few
def test_eigenvalues_scale_with_the_loss_and_order_does_not_matter(scale, sign, seed):
    curvature = np.random.default_rng(seed).uniform(-1.0, 3.0, 6)
    algebraic, magnitude, smallest = top(*curvature)
    np.testing.assert_allclose([algebraic, smallest], [curvature.max(), curvature.min()], atol=1e-4)
    wanted = (smallest, magnitude, algebraic) if sign < 0 else (algebraic, magnitude, smallest)
    found = top(*(sign * scale * curvature[::-1]))
    np.testing.assert_allclose(found, sign * scale * np.array(wanted), rtol=1e-3, atol=1e-4 * scale)


def test_more_steps_than_distinct_eigenvalues_find_no_ghosts(key):
    """Lanczos breaks down after three steps; what comes after them is cut off."""
    curvature = [2.0] * 10 + [-1.0] * 20 + [0.5] * 30
    for alphas, betas in zip(*host(lanczos(*quadratic(curvature), key, num_steps=20, num_starts=2)), strict=True):
        nodes, weights = quadrature(alphas, betas)
        np.testing.assert_allclose(nodes[:3], [-1.0, 0.5, 2.0], atol=1e-5)
        np.testing.assert_allclose(weights[:3], [2 / 6, 3 / 6, 1 / 6], rtol=1e-4)
        assert np.isnan(nodes[3:]).all()
        assert not weights[3:].any()


def test_a_network_at_zero_residual_has_the_eigenvalues_of_its_tangent_kernel(key):
    """They are 2λ(JJᵀ)/n: 8 for 4 examples of 2 outputs, and else 0. Lanczos is asked for more, and finds no ghosts."""
    network = mlp((3,), 2, widths=(30,))
    params, state = network.init(key)
    x = jax.random.normal(key, (4, 3))

    def function(params, x):
        return network.apply(params, state, x, train=False, key=None)[0]

    flat, unravel = ravel_pytree(params)
    jacobian = jax.jit(jax.jacrev(lambda flat: function(unravel(flat), x).ravel()))(flat)
    exact = 2 * eigenvalues(jacobian @ jacobian.T) / 8
    loss = probe_loss(function, params, x, key, scale=0.0)
    (alphas,), (betas,) = host(jax.jit(lambda params: lanczos(loss, params, key, 30, 1))(params))
    nodes, weights = quadrature(alphas, betas)
    nodes = nodes[~np.isnan(nodes)]
    np.testing.assert_allclose(nodes[np.abs(nodes) > 1e-5 * exact[-1]], exact, rtol=1e-3)
    np.testing.assert_allclose(top_eigenvalues(alphas, betas).algebraic, exact[-1], rtol=1e-5)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("after", [0.0, 1e-9, 1e-6])
def test_golden_breakdown(after):
    nodes, weights = quadrature(np.array([1.0, 1.0, np.nan]), np.array([2.0, after]))
    np.testing.assert_allclose(nodes, [-1.0, 3.0, np.nan])
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0])


def test_a_small_link_that_is_no_breakdown_is_kept():
    nodes, _ = quadrature(np.array([1.0, 2.0]), np.array([2e-6]))
    np.testing.assert_allclose(nodes, [1.0, 2.0])


def test_quadrature_is_exact_for_polynomials(key):
    """zᵀ Hᵏ z for k up to 2m − 1."""
    curvature = np.array([3.0, -2.0, 1.0, 0.5, -0.25, 2.0])
    (alphas,), (betas,) = host(lanczos(*quadratic(curvature), key, num_steps=3, num_starts=1))
    nodes, weights = quadrature(alphas, betas)
    for k in range(6):
        np.testing.assert_allclose((weights * nodes**k).sum(), np.mean(curvature**k), rtol=1e-4, err_msg=str(k))


def test_a_constant_loss_has_eigenvalues_of_zero():
    assert top(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)


def test_one_parameter():
    assert top(-4.0) == (-4.0, -4.0, -4.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_nan_out(bad):
    assert np.isnan(top(1.0, bad, 3.0)).all()
    assert np.isnan(top_eigenvalues(np.array([1.0, 2.0]), np.array([bad]))).all()


def test_nothing_to_measure_is_refused(key):
    loss, params = quadratic([1.0])
    for call in (hessian_vector_product, lanczos, top_tridiagonal):
        with pytest.raises(UserError, match="got no parameters; wanted at least one array"):
            call(loss, {}, key)
    for wrong in ({"num_steps": 0}, {"num_starts": 0}):
        with pytest.raises(UserError, match="wanted at least 1 each"):
            lanczos(loss, params, key, **wrong)
    with pytest.raises(UserError, match="got an empty diagonal; wanted at least one step"):
        unchecked(quadrature)(np.zeros(0), np.zeros(0))
    with pytest.raises(UserError, match=r"got an output of shape \(0, 2\); wanted at least one example"):
        probe_loss(lambda w, x: x * w, jnp.ones(()), jnp.ones((0, 2)), key)


def test_seeds_together_are_seeds_one_by_one():
    seeds = jnp.array([[3.0, -5.0, 1.0], [1.0, 2.0, 4.0]])
    for i, (alphas, betas) in enumerate(zip(*jax.jit(jax.vmap(top_of_quadratic))(seeds), strict=True)):
        alone = top_of_quadratic(seeds[i])
        np.testing.assert_allclose(alphas, alone[0], rtol=1e-4)
        np.testing.assert_allclose(betas, alone[1], rtol=1e-4)


def test_probe_loss_is_the_variance_of_its_noise(key):
    inputs = jnp.ones((500, 2)) * jnp.arange(500.0)[:, None]
    loss = probe_loss(lambda w, x: w * x, jnp.asarray(2.0), inputs, key, scale=3.0)
    np.testing.assert_allclose(loss(jnp.asarray(2.0)), 9 * (2 * inputs).var(), rtol=0.1)


def test_probe_loss_does_not_follow_its_own_target(key):
    """Its gradient sees the targets as constants, also if it is made inside what is differentiated."""
    x = jnp.array([[1.0], [2.0]])
    slope = jax.grad(lambda w: probe_loss(lambda w, x: w * x, w, x, key, scale=0.0)(w + 1.0))(jnp.asarray(1.0))
    np.testing.assert_allclose(slope, 2 * np.mean([1.0, 4.0]), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_diagnostic_of_an_mlp_is_that_of_the_dense_matrix(net, scale):
    params = jax.tree.map(lambda leaf: scale * leaf, net.params)
    exact, found = eigenvalues(net.dense(params)), net.numbers(params)
    wanted = {"hessian_top": exact[-1], "hessian_smallest": exact[0]}
    wanted["hessian_top_magnitude"] = max(exact[-1], exact[0], key=abs)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_network_with_large_weights_is_found_to_be_sharp(net):
    large = jax.tree.map(lambda leaf: 3 * leaf, net.params)
    assert net.numbers(large)["hessian_top"] > 3 * net.numbers(net.params)["hessian_top"]


def test_diagnostic_of_nan(net):
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, net.params)
    assert np.isnan(list(net.numbers(broken).values())).all()


def test_half_precision_is_widened(net):
    """Rounded products lose the orthogonality of Lanczos: an eigenvalue was found eight times too large."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net.params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    found, exact = net.numbers(half), net.numbers(wide)
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_diagnostic_on_a_cnn(key):
    """Cross-entropy; the convolution with many channels is a primitive of its own on the CPU."""
    network = cnn((4, 4, 4), 3, channels=(3,), kernel_sizes=(3,), strides=(2,), pool=(1,), widths=())
    params, state = network.init(key)
    x, y = jax.random.normal(key, (8, 4, 4, 4)), jnp.arange(8) % 3

    def loss(params):
        output = network.apply(params, state, x, train=False, key=None)[0]
        return -jax.nn.log_softmax(output)[jnp.arange(8), y].mean()

    found = measure("hessian-top", subject(network, params, state, x, y))
    exact = eigenvalues(jax.jit(dense_hessian(loss, params))(params))
    np.testing.assert_allclose(found.numbers["hessian_top"], exact[-1], rtol=1e-3)
    np.testing.assert_allclose(found.numbers["hessian_smallest"], exact[0], rtol=0.05)
    assert not found.arrays


def test_no_examples_are_refused(net):
    with pytest.raises(UserError, match="got an empty batch"):
        measure("hessian-top", net.subject._replace(probe=jax.tree.map(lambda leaf: leaf[:0], net.subject.probe)))
