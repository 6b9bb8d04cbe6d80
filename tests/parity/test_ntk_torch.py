"""Our kernel against PyTorch's, with the same weights: the product of the Jacobians that `torch.func` makes."""

import jax
import numpy as np
import pytest

from pliant.diagnostics import ntk
from pliant.networks import mlp

torch = pytest.importorskip("torch")


def test_kernel_of_an_mlp(key):
    network = mlp((64,), 10, widths=(128, 128))
    params, state = network.init(key)
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    inputs = jax.random.normal(key, (16, 64))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    ).double()
    for layer, name in zip(theirs[::2], ("dense_0", "dense_1", "head"), strict=True):
        layer.weight.data = torch.tensor(np.asarray(params[name]["kernel"], np.float64).T)
        layer.bias.data = torch.tensor(np.asarray(params[name]["bias"], np.float64))

    def function(weights, x):
        return torch.func.functional_call(theirs, weights, (x[None],))[0]

    weights = {name: leaf.detach() for name, leaf in theirs.named_parameters()}
    jacobians = torch.func.vmap(torch.func.jacrev(function), (None, 0))(
        weights, torch.tensor(np.asarray(inputs)).double()
    )
    rows = torch.cat([leaf.reshape(160, -1) for leaf in jacobians.values()], dim=1)
    wanted = (rows @ rows.T).numpy()

    def apply(params, x):
        return network.apply(params, state, x, train=False, key=None)[0]

    def found(mode):
        return jax.jit(lambda params, x: ntk(apply, params, x, mode=mode).matrix)(params, inputs)

    full, trace = found("full"), found("trace")
    np.testing.assert_allclose(full, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    mean = np.einsum("acbc->ab", wanted.reshape(16, 10, 16, 10)) / 10
    np.testing.assert_allclose(trace, mean, rtol=0, atol=1e-4 * np.abs(mean).max())
