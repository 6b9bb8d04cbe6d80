"""Curvature of a larger network against PyTorch: torch.func for products, SciPy and NumPy for eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

from pliant.diagnostics import hessian_density, lanczos, top_eigenvalues, top_tridiagonal
from pliant.networks import mlp

torch = pytest.importorskip("torch")

SIZES = (64, 64, 64, 10)
NUM_EXAMPLES = 64
LEAVES = [(name, part) for name in ("dense_0", "dense_1", "head") for part in ("kernel", "bias")]


def tensor(array):
    return torch.tensor(np.asarray(array, np.float64))


@pytest.fixture(scope="module")
def ours():
    """Loss and parameters of an MLP with cross-entropy."""
    network = mlp(SIZES[:1], SIZES[-1], widths=SIZES[1:-1], activation="tanh")
    params, _ = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (NUM_EXAMPLES, SIZES[0]))
    y = jnp.arange(NUM_EXAMPLES) % SIZES[-1]

    def loss(params):
        output = network.apply(params, {}, x, train=False, key=None)[0]
        return -jax.nn.log_softmax(output)[jnp.arange(NUM_EXAMPLES), y].mean()

    return loss, params, x, y


@pytest.fixture(scope="module")
def multiply(ours):
    """The Hessian of the same loss times a vector, in PyTorch and float64: reverse mode twice, for H is symmetric."""
    _, params, x, y = ours
    leaves = [tensor(params[name][part]) for name, part in LEAVES]
    x, y = tensor(x), torch.tensor(np.asarray(y)).long()

    def loss(*leaves):
        hidden = torch.tanh(x @ leaves[0] + leaves[1])
        hidden = torch.tanh(hidden @ leaves[2] + leaves[3])
        return torch.nn.functional.cross_entropy(hidden @ leaves[4] + leaves[5], y)

    gradient = torch.func.grad(loss, argnums=tuple(range(6)))

    def product(vector):
        parts = torch.split(tensor(vector.ravel()), [leaf.numel() for leaf in leaves])
        tangents = tuple(part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True))
        found = torch.func.vjp(gradient, *leaves)[1](tangents)
        return torch.cat([part.ravel() for part in found]).numpy()

    size = sum(leaf.numel() for leaf in leaves)
    return LinearOperator((size, size), matvec=product, dtype=np.float64)


def test_eigenvalues_at_both_ends(ours, multiply):
    loss, params, _, _ = ours
    start = np.random.default_rng(0).standard_normal(multiply.shape[0])
    exact = np.sort(eigsh(multiply, k=2, which="BE", v0=start, return_eigenvectors=False, tol=1e-4))
    arrays = jax.jit(lambda params: top_tridiagonal(loss, params, jax.random.key(2), num_steps=40))(params)
    found = top_eigenvalues(*map(np.asarray, arrays))
    np.testing.assert_allclose([found.algebraic, found.smallest], exact[[-1, 0]], rtol=1e-3)


def test_trace_and_moments_of_the_density(ours, multiply):
    """Those of vᵀHᵏv for k = 1, 2, 3 that PyTorch finds with the very vectors that Lanczos starts with."""
    loss, params, _, _ = ours
    size, key = multiply.shape[0], jax.random.key(3)
    arrays = jax.jit(lambda params: lanczos(loss, params, key, num_steps=10, num_starts=4))(params)
    found = hessian_density(np.asarray(arrays.alphas), np.asarray(arrays.betas), size)
    moments = []
    for start in jax.random.split(key, 4):
        _, unravel = ravel_pytree(params)
        parts = unravel(jax.random.rademacher(start, (size,), jnp.float32))
        vector = np.concatenate([np.ravel(parts[name][part]) for name, part in LEAVES]) / np.sqrt(size)
        once = multiply @ vector
        twice = multiply @ once
        moments.append([vector @ once, once @ once, once @ twice])
    for k, theirs in enumerate(np.array(moments).T, start=1):
        np.testing.assert_allclose((found.weights * found.nodes**k).sum(axis=1), theirs, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.trace, size * np.mean(moments, axis=0)[0], rtol=1e-4)
