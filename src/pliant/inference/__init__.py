"""Infers the wiring of anybody's network from its traced program."""

from pliant.inference._wiring import Inferred, infer_wiring

__all__ = ["Inferred", "infer_wiring"]
