"""Orthogonal layers, their activations and the penalties of spectra, against code that we did not write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks import from_nnx, group_sort, max_min, newton_schulz, reproject
from pliant.networks.blocks._newton_schulz import OrthogonalDense
from pliant.penalties import parseval, spectral
from pliant.types import Wiring

SHAPES = [(7, 5), (5, 7), (6, 6)]


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def polar(matrix):
    u, _, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return u @ v


def torch_or_skip():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def torchlip_or_skip():
    torch_or_skip()
    return pytest.importorskip("deel.torchlip", reason="deel-torchlip is not installed")


def orthogonium_or_skip(module):
    torch_or_skip()
    return pytest.importorskip(f"orthogonium.{module}", reason="orthogonium is not installed")


class Single(nnx.Module):
    """One orthogonal layer as a network."""

    def __init__(self, shape, options, rngs):
        self.layer = OrthogonalDense(*shape, rngs=rngs, **options)

    def __call__(self, x, *, train, key):
        return self.layer(x, train=train), {}


def layer_with(kernel, bias, **options):
    """The function of a Newton–Schulz layer with these weights, whose guard has settled."""
    network = from_nnx(lambda rngs: Single(kernel.shape, options, rngs), Wiring((), {}))
    params, state = jax.jit(network.init)(jax.random.key(0))
    params["layer"] |= {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}

    @jax.jit
    def output(x):
        def settle(_, state):
            return network.apply(params, state, x, train=True, key=None)[2]

        settled = jax.lax.fori_loop(0, 50, settle, state)
        return network.apply(params, settled, x, train=False, key=None)[0]

    return output


@pytest.mark.parametrize("shape", SHAPES)
def test_parseval_by_numpys_singular_values(shape):
    sigma = np.linalg.svd(draw(shape).astype(np.float64), compute_uv=False)
    value, _ = parseval(1e-3).loss(jnp.asarray(draw(shape)), (), None)
    np.testing.assert_allclose(value, 1e-3 * (64 / shape[1]) ** 2 * np.sum((sigma**2 - 2) ** 2), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_norm_by_numpys_singular_values(shape):
    kernel, penalty = jnp.asarray(draw(shape)), spectral(1.0)
    state = jax.lax.fori_loop(0, 100, lambda _, state: penalty.loss(kernel, state, None)[1], penalty.init(kernel))
    sigma = np.linalg.svd(draw(shape).astype(np.float64), compute_uv=False)[0]
    np.testing.assert_allclose(penalty.loss(kernel, state, None)[0], (sigma**2 - 1) ** 2, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_norm_in_lockstep_with_pytorch(shape):
    """The same kernel, moving, and the same first vector: the same estimate after every iteration, and gradient."""
    torch = torch_or_skip()
    penalty = spectral(1.0, exponent=1)
    state = penalty.init(jnp.asarray(draw(shape)))
    linear = torch.nn.Linear(*shape, bias=False)
    layer = torch.nn.utils.parametrizations.spectral_norm(linear, n_power_iterations=1)
    theirs = layer.parametrizations.weight
    theirs[0]._v.copy_(torch.tensor(np.asarray(state.u[0])))
    loss = jax.jit(jax.value_and_grad(lambda kernel, state: penalty.loss(kernel, state, None), has_aux=True))
    for step in range(5):
        kernel = draw(shape) + 0.1 * step * draw(shape, seed=1)
        weight = torch.tensor(kernel.T, requires_grad=True)
        theirs.original = torch.nn.Parameter(weight.detach())
        sigma = (theirs.original.detach().norm() / layer.weight.detach().norm()).item()
        (value, state), gradient = loss(jnp.asarray(kernel), state)
        np.testing.assert_allclose(value, (sigma - 1) ** 2, rtol=1e-4)
        u, v = (vector.numpy() for vector in (theirs[0]._v, theirs[0]._u))
        np.testing.assert_allclose(state.u[0], u, atol=1e-5)
        np.testing.assert_allclose(gradient, 2 * (sigma - 1) * np.outer(u, v), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_reprojection_is_numpys_polar_factor(shape):
    np.testing.assert_allclose(reproject(jnp.asarray(draw(shape))), polar(draw(shape)), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["matrix_exp", "householder"])
def test_layer_is_pytorchs_orthogonal_one(shape, name):
    """With its weights, whichever way they were made orthogonal."""
    torch = torch_or_skip()
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(*shape), name="weight", orthogonal_map=name)
    ours = layer_with(layer.weight.detach().numpy().T, layer.bias.detach().numpy())
    x = draw((4, shape[0]), seed=1)
    np.testing.assert_allclose(ours(jnp.asarray(x)), layer(torch.tensor(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_iteration_is_torchlips_bjorck(shape, iterations):
    torch, torchlip = torch_or_skip(), torchlip_or_skip()
    matrix = draw(shape) / np.linalg.norm(draw(shape), 2)
    theirs = torchlip.normalizers.bjorck_normalization(torch.tensor(matrix), eps=0.0, maxiter=iterations)
    ours = newton_schulz(jnp.asarray(matrix), iterations=iterations)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_iteration_and_its_gradient_are_orthogoniums_bjorck(shape, iterations):
    torch, module = torch_or_skip(), orthogonium_or_skip("reparametrizers")
    matrix, weights = draw(shape) / np.linalg.norm(draw(shape), 2), draw(shape, seed=1)
    leaf = torch.tensor(matrix, requires_grad=True)
    theirs = module.BatchedBjorckOrthogonalization(shape, niters=iterations)(leaf)
    (theirs * torch.tensor(weights)).sum().backward()
    ours, back = jax.vjp(lambda m: newton_schulz(m, iterations=iterations), jnp.asarray(matrix))
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(back(jnp.asarray(weights))[0], leaf.grad.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_is_orthogoniums(shape):
    """The same raw weights, not orthogonal ones."""
    torch, module = torch_or_skip(), orthogonium_or_skip("layers")
    torch.manual_seed(0)
    layer = module.OrthoLinear(*shape)
    kernel = polar(draw(shape)).astype(np.float32) + 0.1 * draw(shape, seed=1)
    layer.parametrizations.weight.original = torch.nn.Parameter(torch.tensor(kernel.T))
    x = draw((4, shape[0]), seed=2)
    theirs = layer(torch.tensor(x)).detach().numpy()
    ours = layer_with(kernel, layer.bias.detach().numpy(), iterations=12)
    np.testing.assert_allclose(ours(jnp.asarray(x)), theirs, atol=1e-4)


@pytest.mark.parametrize("group_size", [2, 3, 6])
def test_group_sort_is_torchlips(group_size):
    torch, torchlip = torch_or_skip(), torchlip_or_skip()
    x = draw((4, 12))
    theirs = torchlip.GroupSort(group_size)(torch.tensor(x)).numpy()
    np.testing.assert_array_equal(group_sort(jnp.asarray(x), group_size), theirs)


def test_max_min_is_torchlips_and_orthogoniums_in_another_order():
    """Theirs pairs unit i with unit i + n/2, and puts the maxima first."""
    torch, torchlip = torch_or_skip(), torchlip_or_skip()
    x = draw((4, 12))
    np.testing.assert_array_equal(max_min(jnp.asarray(x)), torchlip.GroupSort2()(torch.tensor(x)).numpy())
    theirs = orthogonium_or_skip("layers").MaxMin()(torch.tensor(x)).numpy()
    paired = np.stack([x[:, :6], x[:, 6:]], axis=-1).reshape(4, 12)
    ours = np.asarray(max_min(jnp.asarray(paired))).reshape(4, 6, 2)
    np.testing.assert_array_equal(np.concatenate([ours[..., 1], ours[..., 0]], axis=1), theirs)
