import functools
import math

import jax
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS
from pliant.networks import NETWORKS, cnn, kumar_cnn, lyle_cnn, mlp, moe_mlp, residual_mlp, t5, vit

IMAGE = (16, 16, 1)
NARROW = {  # networks of half the units, by the multiplier and by their own options
    "mlp": (lambda **o: mlp(IMAGE, 3, **o), {"widths": (6, 8)}, {"widths": (3, 4)}),
    "cnn": (
        lambda **o: cnn(IMAGE, 3, kernel_sizes=(3,), strides=(2,), pool=(1,), **o),
        {"channels": (4,), "widths": (6,)},
        {"channels": (2,), "widths": (3,)},
    ),
    "moe-mlp": (
        lambda **o: moe_mlp(IMAGE, 3, **o),
        {"widths": (6,), "expert_width": 8, "mixture_width": 10},
        {"widths": (3,), "expert_width": 4, "mixture_width": 5},
    ),
    "moe-mlp with defaults": (lambda **o: moe_mlp(IMAGE, 3, **o), {"widths": (6,)}, {"widths": (3,)}),
    "residual-mlp": (
        lambda **o: residual_mlp(IMAGE, 3, width=6, **o),
        {"widths": (6, 8)},
        {"widths": (3, 4)},
    ),
    "vit": (lambda **o: vit(IMAGE, 3, width=8, num_blocks=1, **o), {}, {"mlp_width": 16}),
    "t5": (lambda **o: t5((3, 3), 5, width=4, **o), {"mlp_width": 6}, {"mlp_width": 3}),
}


def shapes(network):
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(network.init, jax.random.key(0)))


def size(network):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0))[0]))


@pytest.mark.parametrize("name", NARROW)
def test_all_hidden_layers_are_multiplied(name, key):
    make, wide, narrow = NARROW[name]
    one, other = make(**wide, width_multiplier=0.5), make(**narrow)
    assert one.wiring.roles == other.wiring.roles
    assert [(layer.name, layer.width) for layer in one.wiring.layers] == [
        (layer.name, layer.width) for layer in other.wiring.layers
    ]
    jax.tree.map(np.testing.assert_array_equal, one.init(key), other.init(key))


@pytest.mark.parametrize("make", [kumar_cnn, lyle_cnn])
def test_fixed_channels_are_multiplied_too(make):
    params, _ = shapes(make((32, 32, 3), 10, width_multiplier=0.5))
    whole, _ = shapes(make((32, 32, 3), 10))
    for layer in ("conv_0", "conv_1", "dense_0", "dense_1"):
        assert 2 * params[layer]["kernel"][-1] == whole[layer]["kernel"][-1]


def test_without_a_tenth_of_its_units_the_published_mlp_has_as_many_parameters_with_crelu():
    """Kumar et al. 2023 remove 9 % of the units of an MLP with two hidden layers of 100 units."""
    make = functools.partial(mlp, (28, 28, 1), 10, widths=(100, 100))
    assert size(make(activation="crelu", width_multiplier=0.91)) == pytest.approx(size(make()), rel=0.01)


@pytest.mark.parametrize(("name", "share"), [("crelu", 1.0), ("fourier", 0.5)])
def test_methods_that_double_features_have_no_more_weights_between_hidden_layers(name, share):
    plain, _ = shapes(mlp((8, 8, 1), 10))
    params, _ = shapes(mlp((8, 8, 1), 10, **METHODS[name].network))
    weights = [math.prod(network["dense_2"]["kernel"]) for network in (plain, params)]
    assert weights[1] == pytest.approx(share * weights[0], rel=0.02)


@pytest.mark.parametrize("name", ["mlp", "cnn", "moe-mlp", "residual-mlp", "vit", "t5"])
@pytest.mark.parametrize("multiplier", [0.0, -0.5, float("nan")])
def test_multipliers_are_positive(name, multiplier):
    shape = (8, 8) if name == "t5" else IMAGE
    with pytest.raises(UserError, match=r"got width_multiplier=.*; wanted .* Use 1 for the widths as they are"):
        NETWORKS[name](shape, 3, width_multiplier=multiplier)


def test_nothing_left_of_a_layer():
    with pytest.raises(UserError, match="got a layer of width 0; wanted widths ≥ 1"):
        mlp(IMAGE, 3, widths=(4, 2), width_multiplier=0.2)
