"""Jacobians between layers against PyTorch's, of a convolutional network with the same weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from pliant.diagnostics import input_output_jacobian, intermediate_jacobian, layer_jacobians  # noqa: E402
from torch_twins import CHANNELS, CLASSES, SIZE, WIDTHS, twins  # noqa: E402

X = np.random.default_rng(0).standard_normal((3, SIZE, SIZE, 2)).astype(np.float32)


def ours(measure):
    network, params, _ = twins()

    def function(x):
        return network.apply(params, {}, x, train=False, key=None)[:2]

    return jax.tree.map(np.asarray, jax.jit(lambda x: measure(function, x))(X))


def theirs(first, last):
    """By each example, of the modules from one to the other; their images have the channels first."""
    modules = twins().module
    names = list(dict(modules.named_children()))
    start, end = names.index(first), names.index(last) + 1
    at = modules[:start](torch.tensor(X.transpose(0, 3, 1, 2)))
    found = torch.func.vmap(torch.func.jacrev(lambda h: modules[start:end](h[None])[0]))(at)
    return found.detach().numpy(), at.ndim - 1


def channels_last(jacobian, num_in):
    """Their axes (example, channel, height, wide, …) in our order, then flat."""
    num_out = jacobian.ndim - 1 - num_in
    out = jacobian.transpose(0, 2, 3, 1, *range(4, jacobian.ndim)) if num_out == 3 else jacobian
    images = num_out + 1
    whole = out.transpose(*range(images), images + 1, images + 2, images) if num_in == 3 else out
    rows = int(np.prod(whole.shape[1:images]))
    return whole.reshape(len(whole), rows, -1)


def assert_same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_layer_by_layer():
    found = ours(lambda function, x: layer_jacobians(function, x, ("conv_0", "conv_1", "dense_0", "dense_1")))
    assert found["conv_1"].shape == (3, SIZE * SIZE * CHANNELS[1], SIZE * SIZE * CHANNELS[0])
    segments = {
        "conv_0": ("conv_0", "conv_relu_0"),
        "conv_1": ("conv_1", "conv_relu_1"),
        "dense_0": ("flatten", "dense_relu_0"),
        "dense_1": ("dense_1", "dense_relu_1"),
    }
    for name, segment in segments.items():
        assert_same(found[name], channels_last(*theirs(*segment)))


def test_from_input_to_output_and_from_between():
    found = ours(input_output_jacobian)
    assert found.shape == (3, CLASSES, SIZE * SIZE * 2)
    assert_same(found, channels_last(*theirs("conv_0", "head")))
    found = ours(lambda function, x: intermediate_jacobian(function, x, "conv_0", "dense_1"))
    assert found.shape == (3, WIDTHS[1], SIZE * SIZE * CHANNELS[0])
    assert_same(found, channels_last(*theirs("conv_1", "dense_relu_1")))
