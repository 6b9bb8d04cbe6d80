"""The optimizer, layers and unit resets of pliant for PyTorch: `pip install 'pliant[torch]'`.

Same mathematics as in `pliant.optimizers`, `pliant.networks` and `pliant.interventions`, without JAX. Nothing else of
pliant imports this package.
"""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "got a Python without torch; wanted torch ≥ 2.4. Install it with pip install 'pliant[torch]'.", name="torch"
    ) from error

from pliant.torch._adamo import AdamO, param_groups
from pliant.torch._maxmin import MaxMin
from pliant.torch._newton_schulz import newton_schulz, reproject_
from pliant.torch._redo import HiddenLayer, Reader, ReDo

__all__ = [
    "AdamO",
    "HiddenLayer",
    "MaxMin",
    "ReDo",
    "Reader",
    "newton_schulz",
    "param_groups",
    "reproject_",
]
