"""The optimizer, layers, unit resets and diagnosis of pliant for PyTorch: `pip install 'pliant[torch]'`.

The mathematics is that of `pliant.optimizers`, `pliant.networks` and `pliant.interventions`, without JAX: only
`diagnose` imports it, when it is first used. Nothing else in pliant imports this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pliant.errors import extra

with extra("torch", "pliant.torch"):
    import torch  # noqa: F401

from pliant.torch._adamo import AdamO, param_groups
from pliant.torch._attach import attach
from pliant.torch._hidden_layers import HiddenLayer, Reader
from pliant.torch._infer import infer_wiring
from pliant.torch._maxmin import MaxMin
from pliant.torch._newton_schulz import newton_schulz, reproject_
from pliant.torch._plastic import Plastic
from pliant.torch._redo import ReDo
from pliant.torch._slots import Slot
from pliant.torch._wiring import WiredLayer, Wiring

if TYPE_CHECKING:
    from pliant.torch._diagnose import diagnose

__all__ = [
    "AdamO",
    "HiddenLayer",
    "MaxMin",
    "Plastic",
    "ReDo",
    "Reader",
    "Slot",
    "WiredLayer",
    "Wiring",
    "attach",
    "diagnose",
    "infer_wiring",
    "newton_schulz",
    "param_groups",
    "reproject_",
]


def __getattr__(name: str) -> Any:
    if name == "diagnose":
        return importlib.import_module("pliant.torch._diagnose").diagnose
    raise AttributeError(f"module 'pliant.torch' has no attribute {name!r}")
