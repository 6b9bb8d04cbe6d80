"""The same convolutional network in JAX and in PyTorch, with the same weights."""

import functools
import itertools
from collections import OrderedDict
from typing import NamedTuple

import jax
import numpy as np
import pytest

from pliant.networks import cnn
from pliant.types import Network

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # waiting for one another costs small tensors more than they do

SIZE, CHANNELS, WIDTHS, CLASSES = 4, (3, 5), (9, 7), 3
"""Images are SIZE × SIZE × 2."""


class Twins(NamedTuple):
    """A network of two convolutions, two dense layers and a head."""

    network: Network
    params: dict
    module: "torch.nn.Sequential"


@functools.cache
def twins():
    options = {"channels": CHANNELS, "kernel_sizes": (3, 3), "strides": (1, 1), "pool": (1, 1), "widths": WIDTHS}
    network = cnn((SIZE, SIZE, 2), CLASSES, **options)
    params, _ = network.init(jax.random.key(0))
    layers = OrderedDict()
    for i, (num_in, num_out) in enumerate(itertools.pairwise((2, *CHANNELS))):
        layers[f"conv_{i}"] = torch.nn.Conv2d(num_in, num_out, 3, padding=1)
        layers[f"conv_relu_{i}"] = torch.nn.ReLU()
    layers["flatten"] = torch.nn.Flatten()
    for i, (num_in, num_out) in enumerate(itertools.pairwise((SIZE * SIZE * CHANNELS[-1], *WIDTHS))):
        layers[f"dense_{i}"] = torch.nn.Linear(num_in, num_out)
        layers[f"dense_relu_{i}"] = torch.nn.ReLU()
    layers["head"] = torch.nn.Linear(WIDTHS[-1], CLASSES)
    module = torch.nn.Sequential(layers)
    module.load_state_dict(to_torch(params))
    return Twins(network, params, module)


def to_torch(params):
    """The parameters under PyTorch's names and in its layouts."""
    result = {}
    for name, layer in params.items():
        kernel = np.array(layer["kernel"])
        if name == "dense_0":  # rows (height, wide, channel) become (channel, height, wide)
            kernel = kernel.reshape(SIZE, SIZE, CHANNELS[-1], -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        result[f"{name}.weight"] = torch.tensor(kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
        result[f"{name}.bias"] = torch.tensor(np.array(layer["bias"]))
    return result


def images(num):
    """Images as JAX wants them, and their classes."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((num, SIZE, SIZE, 2)), rng.integers(0, CLASSES, num)


def nchw(x):
    """Images as PyTorch wants them."""
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
