"""Keep neural networks plastic: methods, task streams, diagnostics and experiments in JAX.

Subpackages are imported when they are first used, so `import pliant` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pliant.xla import guard

if TYPE_CHECKING:
    from pliant import (
        cluster,
        diagnostics,
        experiments,
        inference,
        interventions,
        isometry,
        masks,
        methods,
        networks,
        optimizers,
        penalties,
        results,
        streams,
        supervised,
        training,
        tuning,
        types,
    )
    from pliant._diagnose import diagnose
    from pliant._run import run
    from pliant._tune import tune
    from pliant.inference import infer_wiring
    from pliant.methods import attach

guard.guard_reductions()  # before anything computes: see xla/guard.py

__version__ = "0.1.0"

__all__ = [
    "attach",
    "cluster",
    "diagnose",
    "diagnostics",
    "experiments",
    "infer_wiring",
    "inference",
    "interventions",
    "isometry",
    "masks",
    "methods",
    "networks",
    "optimizers",
    "penalties",
    "results",
    "run",
    "streams",
    "supervised",
    "training",
    "tune",
    "tuning",
    "types",
]


def __getattr__(name: str) -> Any:
    if name == "attach":
        return importlib.import_module("pliant.methods").attach
    if name in ("diagnose", "run", "tune"):
        return getattr(importlib.import_module(f"pliant._{name}"), name)
    if name == "infer_wiring":
        return importlib.import_module("pliant.inference").infer_wiring
    if name in __all__:
        return importlib.import_module(f"pliant.{name}")
    raise AttributeError(f"module 'pliant' has no attribute {name!r}")
