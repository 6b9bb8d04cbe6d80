"""The parts that networks are made of: linear layers, norms, activations, attention, and a hidden layer as a whole."""

from pliant.networks.blocks._activations import (
    ACTIVATIONS,
    CRELU,
    FOURIER,
    LEAKY,
    MAX_MIN,
    SMOOTH_LEAKY,
    Activation,
    activation,
    crelu,
    fourier,
    group_sort,
    max_min,
    smooth_leaky,
)
from pliant.networks.blocks._aid import AID, aid
from pliant.networks.blocks._attention import (
    PROJECTIONS,
    Attention,
    Drop,
    FeedForward,
    Initializer,
    attention_piece,
    dropping,
    feed_forward_piece,
)
from pliant.networks.blocks._hidden_units import (
    HiddenUnits,
    Modules,
    Piece,
    activate,
    apply_units,
    dense_piece,
    norm_piece,
    wiring_of,
    wiring_of_branches,
)
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._layer_activation import LayerActivation, NextKey, activation_roles, key_stream
from pliant.networks.blocks._linear import Linear, LinearKind, linear_layers
from pliant.networks.blocks._newton_schulz import cans, cans_coefficients, newton_schulz, reproject
from pliant.networks.blocks._norms import LAYERNORM, BatchNorm, LayerNorm, RMSNorm
from pliant.networks.blocks._orthogonal import delta_orthogonal, orthogonal
from pliant.networks.blocks._rational import RATIONAL, rational
from pliant.networks.blocks._spectral_norm import SPECTRAL_NORM_LAYER
from pliant.networks.blocks._weight_norm import WEIGHT_NORM
from pliant.networks.blocks._wiring import Owned, activation_for, multiplied, owned, require_sizes

__all__ = [
    "ACTIVATIONS",
    "AID",
    "CRELU",
    "FOURIER",
    "LAYERNORM",
    "LEAKY",
    "MAX_MIN",
    "PROJECTIONS",
    "RATIONAL",
    "SMOOTH_LEAKY",
    "SPECTRAL_NORM_LAYER",
    "WEIGHT_NORM",
    "Activation",
    "Attention",
    "BatchNorm",
    "Drop",
    "FeedForward",
    "HiddenUnits",
    "Initializer",
    "KernelLayer",
    "LayerActivation",
    "LayerNorm",
    "Linear",
    "LinearKind",
    "Modules",
    "NextKey",
    "Owned",
    "Piece",
    "RMSNorm",
    "activate",
    "activation",
    "activation_for",
    "activation_roles",
    "aid",
    "apply_units",
    "attention_piece",
    "cans",
    "cans_coefficients",
    "crelu",
    "delta_orthogonal",
    "dense_piece",
    "dropping",
    "feed_forward_piece",
    "fourier",
    "group_sort",
    "key_stream",
    "linear_layers",
    "max_min",
    "multiplied",
    "newton_schulz",
    "norm_piece",
    "orthogonal",
    "owned",
    "rational",
    "reproject",
    "require_sizes",
    "smooth_leaky",
    "wiring_of",
    "wiring_of_branches",
]
