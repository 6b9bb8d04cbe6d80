"""Networks behind one seam: `init`, `apply` and the wiring. The only folder that imports Flax."""

from collections.abc import Callable, Mapping

from pliant.networks._activations import ACTIVATIONS, Activation, activation, crelu, group_sort, max_min
from pliant.networks._functional import from_linen, from_nnx
from pliant.networks._mlp import MLP, mlp
from pliant.networks._orthogonal import orthogonal
from pliant.networks._t5 import t5
from pliant.types import Network

NETWORKS: Mapping[str, Callable[..., Network]] = {"mlp": mlp, "t5": t5}
"""Factories `(input_shape, num_outputs, **options) -> Network` by name."""
TEXT_NETWORKS = ("t5",)
"""Those that read and write texts; all others take arrays of numbers."""

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NETWORKS",
    "TEXT_NETWORKS",
    "Activation",
    "activation",
    "crelu",
    "from_linen",
    "from_nnx",
    "group_sort",
    "max_min",
    "mlp",
    "orthogonal",
    "t5",
]
