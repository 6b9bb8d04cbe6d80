"""On networks that state their wiring, inference finds the same."""

import jax
import jax.numpy as jnp
import pytest

import pliant
from pliant.networks import cnn, kumar_cnn, lyle_cnn, mlp, moe_mlp, octax_cnn, residual_mlp, resnet18, t5, vit
from pliant.types import Text, Wiring, by_path

VECTORS = jax.random.normal(jax.random.key(1), (3, 8))
IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
TEXT = Text(source=jnp.array([[3, 4, 5, 1, 0, 0]] * 2), decoder=jnp.array([[0, 7, 8, 9]] * 2))
MLP = {"widths": (6, 5)}
CASES = {
    "mlp": (mlp((8,), 3, **MLP, norm="layer"), VECTORS),
    "crelu": (mlp((8,), 3, **MLP, activation="crelu"), VECTORS),
    "fourier": (mlp((8,), 3, **MLP, activation="fourier"), VECTORS),
    "maxmin": (mlp((8,), 3, widths=(6, 8), activation="maxmin"), VECTORS),
    "newton-schulz": (mlp((8,), 3, **MLP, linear="newton-schulz"), VECTORS),
    "weight-norm": (mlp((8,), 3, **MLP, linear="weight-norm"), VECTORS),
    "spectral-norm": (mlp((8,), 3, **MLP, linear="spectral-norm"), VECTORS),
    "residual-mlp": (residual_mlp((8,), 3, width=6, num_blocks=2, hidden_width=5, norm="layer"), VECTORS),
    "moe-mlp": (moe_mlp((8,), 3, widths=(7,), num_experts=3, expert_width=5, mixture_width=6), VECTORS),
    "cnn": (cnn((8, 8, 3), 3, channels=(4, 6), kernel_sizes=(3, 3), strides=(1, 2), pool=(2, 1), widths=(9,)), IMAGES),
    "lyle-cnn": (lyle_cnn((8, 8, 3), 3, widths=(6, 5)), IMAGES),
    "kumar-cnn": (kumar_cnn((8, 8, 3), 3, widths=(6, 5), padding="SAME"), IMAGES),
    "octax-cnn": (octax_cnn((8, 8, 3), {"policy": 3, "value": 1}, widths=(6,)), IMAGES),
    "resnet18": (resnet18((8, 8, 3), 3, width=4, num_blocks=(2,)), IMAGES),
    "vit": (vit((8, 8, 3), 3, patch_size=4, width=8, num_blocks=1, num_heads=2, mlp_width=12), IMAGES),
    "gated-t5": (
        t5(
            (6, 4),
            10,
            width=8,
            num_heads=2,
            head_width=4,
            mlp_width=12,
            gated=True,
            tie_embeddings=False,
            activation="relu",
        ),
        TEXT,
    ),
    "t5": (t5((6, 4), 10, width=8, num_heads=2, head_width=4, mlp_width=12), TEXT),
}
_STATE = "state of "
"""Before the names of running statistics, which are those of parameters otherwise."""
CHOICES = {
    "router/kernel": "other",  # the network keeps methods of kernels away from its router
    "patch/kernel": "embed",  # the network calls the product with patches an embedding
}
"""Roles that a network chooses and that its program does not say."""


@pytest.mark.parametrize("name", CASES)
def test_the_stated_wiring_is_found(name):
    """Running statistics are given with the parameters, and stated as frozen."""
    network, x = CASES[name]
    params, state = network.init(jax.random.key(0))
    kept = {f"{_STATE}{key}": value for key, value in state.items()}

    def apply(both, x):
        own, state = ({key: both[key] for key in each} for each in (params, kept))
        return network.apply(own, {key.removeprefix(_STATE): state[key] for key in state}, x, train=False)[:2]

    both, frozen = params | kept, frozenset(by_path(kept))
    inferred = pliant.infer_wiring(apply, both, x, Wiring((), {}, frozen=frozen))
    shapes = {path: leaf.shape for path, leaf in by_path(both).items()}
    stated, found = network.wiring, inferred.wiring
    assert [_told(layer, shapes) for layer in found.layers] == [_told(layer, shapes) for layer in stated.layers]
    roles = {path: CHOICES.get(path, role) for path, role in found.roles.items() if path not in frozen}
    assert roles == dict(stated.roles)
    assert found.heads == stated.heads
    assert found.biases == {kernel: bias for kernel, bias in stated.biases.items() if roles[kernel] != "other"}
    assert found.indirect == stated.indirect


def _told(layer, shapes):
    slots = [[slot._replace(axis=slot.axis % len(shapes[slot.path])) for slot in each] for each in _slots(layer)]
    kept = {slot.path.removeprefix(_STATE) for slot in layer.statistics or ()}
    return (layer.name, layer.width, layer.activation, layer.traits, layer.branch, kept, *map(set, slots))


def _slots(layer):
    return [feed.slot for feed in layer.feeds], layer.readers
