"""Networks behind one seam: `init`, `apply` and the wiring. The only folder that imports Flax."""

from collections.abc import Callable, Mapping
from typing import NoReturn

from pliant.errors import UserError
from pliant.networks._cnn import CNN, cnn, kumar_cnn, lyle_cnn, octax_cnn
from pliant.networks._functional import from_linen, from_nnx
from pliant.networks._mlp import MLP, mlp
from pliant.networks._moe_mlp import MIXTURE_OF_EXPERTS, MoEMLP, moe_mlp
from pliant.networks._outputs import branch_wiring, side_by_side, takes_outputs, with_gains, with_heads
from pliant.networks._residual_mlp import RESIDUAL, ResidualMLP, residual_mlp
from pliant.networks._resnet import ResNet, resnet18
from pliant.networks._t5 import T5, t5
from pliant.networks._t5_weights import PretrainedT5, pretrained_t5, t5_pretrained, t5_weights
from pliant.networks._texts import takes_texts
from pliant.networks._vit import ViT, lyle_vit, vit
from pliant.networks.blocks import (
    ACTIVATIONS,
    AID,
    CRELU,
    FOURIER,
    LAYERNORM,
    LEAKY,
    MAX_MIN,
    RATIONAL,
    SMOOTH_LEAKY,
    SPECTRAL_NORM_LAYER,
    WEIGHT_NORM,
    Activation,
    activation,
    aid,
    cans,
    cans_coefficients,
    crelu,
    delta_orthogonal,
    fourier,
    group_sort,
    max_min,
    newton_schulz,
    orthogonal,
    rational,
    reproject,
    smooth_leaky,
)
from pliant.types import Network
from pliant.xla.convolution import convolution, max_pool

NETWORKS: Mapping[str, Callable[..., Network]] = {
    "mlp": mlp,
    "residual-mlp": residual_mlp,
    "moe-mlp": moe_mlp,
    "cnn": cnn,
    "lyle-cnn": lyle_cnn,
    "kumar-cnn": kumar_cnn,
    "octax-cnn": octax_cnn,
    "resnet18": resnet18,
    "vit": vit,
    "lyle-vit": lyle_vit,
    "t5": t5,
    "t5-pretrained": pretrained_t5,
}
"""Factories `(input_shape, num_outputs, **options) -> Network` by name."""

__all__ = [
    "ACTIVATIONS",
    "AID",
    "CNN",
    "CRELU",
    "FOURIER",
    "LAYERNORM",
    "LEAKY",
    "MAX_MIN",
    "MIXTURE_OF_EXPERTS",
    "MLP",
    "NETWORKS",
    "RATIONAL",
    "RESIDUAL",
    "SMOOTH_LEAKY",
    "SPECTRAL_NORM_LAYER",
    "T5",
    "WEIGHT_NORM",
    "Activation",
    "MoEMLP",
    "PretrainedT5",
    "ResNet",
    "ResidualMLP",
    "ViT",
    "activation",
    "aid",
    "branch_wiring",
    "cans",
    "cans_coefficients",
    "cnn",
    "convolution",
    "crelu",
    "delta_orthogonal",
    "fourier",
    "from_linen",
    "from_nnx",
    "group_sort",
    "kumar_cnn",
    "lyle_cnn",
    "lyle_vit",
    "max_min",
    "max_pool",
    "mlp",
    "moe_mlp",
    "newton_schulz",
    "octax_cnn",
    "orthogonal",
    "pretrained_t5",
    "rational",
    "reproject",
    "residual_mlp",
    "resnet18",
    "side_by_side",
    "smooth_leaky",
    "t5",
    "t5_pretrained",
    "t5_weights",
    "takes_outputs",
    "takes_texts",
    "vit",
    "with_gains",
    "with_heads",
]


def __getattr__(name: str) -> NoReturn:
    if name == "TEXT_NETWORKS":
        got, wanted = "pliant.networks.TEXT_NETWORKS", "pliant.networks.takes_texts(factory)"
        raise UserError(got=got, wanted=wanted, do="Use that in its place.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
