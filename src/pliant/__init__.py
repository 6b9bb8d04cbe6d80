"""Keep neural networks plastic: methods, task streams, diagnostics and experiments in JAX."""

from pliant import _xla

_xla.guard_reductions()  # before anything computes: see _xla.py

from pliant import (  # noqa: E402
    diagnostics,
    interventions,
    isometry,
    methods,
    networks,
    optimizers,
    penalties,
    results,
    streams,
    training,
    types,
)

__version__ = "0.1.0"

__all__ = [
    "diagnostics",
    "interventions",
    "isometry",
    "methods",
    "networks",
    "optimizers",
    "penalties",
    "results",
    "streams",
    "training",
    "types",
]
