"""Our layers against PyTorch's, with the same weights: outputs, gradients and estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.networks import from_nnx, mlp
from pliant.networks.blocks._spectral_norm import SpectralNorm
from pliant.networks.blocks._weight_norm import WeightNorm
from pliant.types import Wiring

torch = pytest.importorskip("torch")
parametrizations = torch.nn.utils.parametrizations

SHAPES = {"tall": (7, 5), "wide": (5, 7), "conv": (3, 5, 2, 4)}


class Single(nnx.Module):
    """One layer as a network."""

    def __init__(self, make, shape, rngs):
        self.layer = make(shape, rngs=rngs)

    def __call__(self, x, *, train, key):
        return self.layer(x, train=train), {}


def case(make, shape):
    """A network of one layer with random weights, inputs, and PyTorch's plain layer with the same weights."""
    network = from_nnx(lambda rngs: Single(make, shape, rngs), Wiring((), {}))
    params, state = network.init(jax.random.key(0))
    kernel, bias, size = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate((shape, shape[-1:], shape[-1:]))
    )
    params["layer"] |= {"kernel": kernel, "bias": bias}
    if "scale" in params["layer"]:
        params["layer"]["scale"] = size
    is_conv = len(shape) == 4
    x = jax.random.normal(jax.random.key(3), (6, 5, 5, shape[2]) if is_conv else (6, shape[0]))
    theirs = torch.nn.Conv2d(shape[2], shape[3], shape[:2], padding="same") if is_conv else torch.nn.Linear(*shape)
    theirs.weight.data, theirs.bias.data = to_torch(kernel), tensor(bias)
    return network, params, state, x, theirs


def tensor(array):
    return torch.tensor(np.asarray(array))


def to_torch(kernel):
    """Outputs first."""
    return tensor(jnp.transpose(kernel, (3, 2, 0, 1)) if kernel.ndim == 4 else kernel.T)


def call(theirs, x):
    """PyTorch's layer on our inputs; channels last, as ours."""
    images = x.ndim == 4
    y = theirs(tensor(x).permute(0, 3, 1, 2) if images else tensor(x))
    return y.permute(0, 2, 3, 1) if images else y


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1.0, np.abs(theirs).max()))


def gradients(network, params, state, x, *, train):
    def loss(params):
        y, _, after = network.apply(params, state, x, train=train, key=None)
        return jnp.sum(jnp.sin(y)), (y, after)

    return jax.grad(loss, has_aux=True)(params)


def rows(vector, shape):
    """A vector over the rows of our matrix view, in PyTorch's order: channels, then the kernel's rows and columns."""
    return vector.reshape(shape[:-1]).transpose(2, 0, 1).reshape(-1) if len(shape) == 4 else vector


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_spectral_norm(shape, train):
    """The same vectors at the start, and as many iterations: σ, vectors, outputs and gradients after each call."""
    network, params, state, x, theirs = case(SpectralNorm, shape)
    state = network.apply(params, state, x, train=True, key=None)[2]  # of these weights, or the estimate is no norm
    parametrizations.spectral_norm(theirs)
    inside = theirs.parametrizations.weight[0]
    inside._v, inside._u = tensor(rows(state["layer"]["u"], shape)), tensor(state["layer"]["v"])
    theirs.train(train)
    for _ in range(3):
        theirs.zero_grad()
        y = call(theirs, x)
        y.sin().sum().backward()
        found, (ours, state) = gradients(network, params, state, x, train=train)
        close(ours, y)
        close(state["layer"]["v"], inside._u)
        close(rows(state["layer"]["u"], shape), inside._v)
        matrix = params["layer"]["kernel"].reshape(-1, shape[-1])
        sigma = state["layer"]["u"] @ matrix @ state["layer"]["v"]
        close(sigma, inside._u @ theirs.parametrizations.weight.original.flatten(1) @ inside._v)
        close(to_torch(found["layer"]["kernel"]), theirs.parametrizations.weight.original.grad)
        close(found["layer"]["bias"], theirs.bias.grad)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_weight_norm(shape):
    network, params, state, x, theirs = case(WeightNorm, shape)
    parametrizations.weight_norm(theirs)
    size, direction = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    close(jnp.linalg.norm(params["layer"]["kernel"].reshape(-1, shape[-1]), axis=0), size.flatten())
    size.data = tensor(params["layer"]["scale"]).reshape(size.shape)
    y = call(theirs, x)
    y.sin().sum().backward()
    found, (ours, _) = gradients(network, params, state, x, train=True)
    close(ours, y)
    close(to_torch(found["layer"]["kernel"]), direction.grad)
    close(found["layer"]["scale"], size.grad.flatten())
    close(found["layer"]["bias"], theirs.bias.grad)


def test_layer_norm(key):
    """The network that Normalize-and-Project is made for, without biases."""
    network = mlp((9,), 3, widths=(8, 6), norm="layer", use_bias=False)
    params, state = network.init(key)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = jax.random.normal(key, (7, 9))
    layers = []
    for i, shape in enumerate([(9, 8), (8, 6)]):
        dense, norm = torch.nn.Linear(*shape, bias=False), torch.nn.LayerNorm(shape[1], eps=1e-6)
        dense.weight.data = to_torch(params[f"dense_{i}"]["kernel"])
        norm.weight.data, norm.bias.data = tensor(params[f"norm_{i}"]["scale"]), tensor(params[f"norm_{i}"]["bias"])
        layers += [dense, norm, torch.nn.ReLU()]
    head = torch.nn.Linear(6, 3, bias=False)
    head.weight.data = to_torch(params["head"]["kernel"])
    theirs = torch.nn.Sequential(*layers, head)
    y = theirs(tensor(x))
    y.sin().sum().backward()
    found, (ours, _) = gradients(network, params, state, x, train=True)
    close(ours, y)
    for i in range(2):
        close(to_torch(found[f"dense_{i}"]["kernel"]), theirs[3 * i].weight.grad)
        close(found[f"norm_{i}"]["scale"], theirs[3 * i + 1].weight.grad)
        close(found[f"norm_{i}"]["bias"], theirs[3 * i + 1].bias.grad)
    close(to_torch(found["head"]["kernel"]), head.weight.grad)
