"""What is found in the same models, written in five libraries.

A row is a hidden layer: its units, its activation, what feeds them, and what reads them. `norm` stands for scale and
offset, and for the running statistics where the library keeps them among the parameters. `×16`: units repeat behind a
flatten. What is not listed is no hidden layer, and a note says why.
"""

import importlib

import jax
import jax.numpy as jnp
import pytest
from tests.inference.frameworks import models

import pliant

VECTORS = jax.random.normal(jax.random.key(0), (4, 8))
TOKENS = jax.random.normal(jax.random.key(0), (2, 5, 8))
IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
NUMBERS = jnp.arange(10).reshape(2, 5)

LAYERS = {
    "mlp": (VECTORS, ["6 relu: a -> b", "5 tanh: b -> head"], []),
    "cnn": (IMAGES, ["4 relu: conv norm -> dense×16", "6 gelu: dense -> head"], []),
    "transformer": (TOKENS, ["12 gelu: up -> down"], ["attention", "down", "embed"]),
    "gated": (TOKENS, ["12 silu: gate up -> down"], ["down", "embed"]),
    "resnet": (
        IMAGES,
        [
            "4 relu: conv1 norm1 -> conv2",
            "6 relu: conv3 norm3 -> conv4",
            "6 relu: conv4 short norm4 norm5 -> head",
        ],
        ["conv2", "stem"],
    ),
    "separable": (
        IMAGES,
        [
            "4 relu: stem norm1 -> depthwise",
            "4 relu: depthwise excite norm2 -> squeeze pointwise",
            "2 relu: squeeze -> excite",
            "6 relu: pointwise norm3 -> head",
        ],
        [],
    ),
    "dueling": (VECTORS, ["6 relu: torso -> v a", "5 relu: v -> head_v", "4 relu: a -> head_a"], []),
    "group_norm": (IMAGES, ["4 relu: conv1 norm -> conv2", "6 relu: conv2 -> head"], []),
    "prelu": (VECTORS, ["6 custom: a slope1 -> b", "5 custom: b slope2 -> head"], []),
    "grouped": (IMAGES, ["4 relu: conv -> grouped", "6 relu: grouped -> head×64"], []),
    "tied": (NUMBERS, ["12 relu: up -> down"], ["down"]),
}
"""By model: its inputs, its layers, and the modules whose units are none."""
FRAMEWORKS = ("linen", "nnx", "equinox", "haiku", "plain")
FAST = {("linen", "group_norm"), ("nnx", "transformer"), ("equinox", "cnn"), ("haiku", "gated"), ("plain", "separable")}
CASES = [
    pytest.param(framework, model, marks=() if (framework, model) in FAST else pytest.mark.whole)
    for framework in FRAMEWORKS
    for model in LAYERS
]


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize(("framework", "model"), CASES)
def test_layers(framework, model):
    pytest.importorskip({"linen": "flax", "nnx": "flax", "plain": "jax"}.get(framework, framework))
    kit = importlib.import_module(f"tests.inference.frameworks.{framework}")
    x, layers, not_layers = LAYERS[model]
    x = x.transpose(0, 3, 1, 2) if kit.CHANNELS_FIRST and x.ndim == 4 else x
    apply, params = kit.made(getattr(models, model), kit, x)
    inferred = pliant.infer_wiring(apply, params, x)
    wiring = inferred.wiring
    assert sorted(_row(layer, kit) for layer in wiring.layers) == sorted(_sorted(layer, kit) for layer in layers)
    noted = {_module(path) for path in inferred.notes if path != "output"}
    assert noted == set(not_layers)
    for path, role in wiring.roles.items():
        assert role == _role(path, wiring), path
    kernels = {path for path, role in wiring.roles.items() if role in ("matrix", "head")}
    assert all(_module(bias) == _module(kernel) for kernel, bias in wiring.biases.items())
    biases = {path for path, role in wiring.roles.items() if role == "bias"}
    assert set(wiring.biases) <= kernels
    assert set(wiring.biases.values()) == biases
    heads = {_module(path) for path in wiring.heads["output"].leaves}
    assert heads == {_module(path) for path, role in wiring.roles.items() if role == "head"}


def _row(layer, kit):
    """A layer as in `LAYERS`; every module must feed with all that it has."""
    fed = dict.fromkeys(_module(feed.slot.path) for feed in layer.feeds)
    kept = {_module(slot.path) for slot in layer.statistics}
    assert kept == ({name for name in fed if name.startswith("norm")} if kit.STATISTICS and kept else set())
    read = []
    for slot in layer.readers:
        times = slot.repeats if kit.CHANNELS_FIRST else slot.tiles
        assert slot.tiles * slot.repeats == times
        read.append(_module(slot.path) + (f"×{times}" if times > 1 else ""))
    assert layer.axis == (1 if kit.CHANNELS_FIRST and layer.readers[0].repeats > 1 else layer.axis)
    return _sorted(f"{layer.width} {layer.activation}: {' '.join(fed)} -> {' '.join(read)}")


def _sorted(row, kit=None):
    head, _, rest = row.partition(": ")
    fed, _, read = rest.partition(" -> ")
    names = [name for name in fed.split() if kit is None or kit.SLOPES or not name.startswith("slope")]
    return head, sorted(names), sorted(read.split())


def _module(path):
    return next(part for part in path.split("/") if part not in ("params", "batch_stats"))


def _role(path, wiring):
    """What a parameter is, by its module's name and its own."""
    module, leaf = _module(path), path.removesuffix("/value").rpartition("/")[2]
    if path in wiring.frozen or module.startswith("slope"):
        return "other"
    if module.startswith("norm"):
        return "norm"
    if leaf in ("b", "bias"):
        return "bias"
    if module == "embed" and wiring.heads["output"].leaves == ():
        return "embed"
    return "head" if module.startswith("head") else "matrix"
