"""Reads a network's traced program: its layers, where parameters are used, and the paths between features."""

from pliant.diagnostics.tracing._infer import Form, as_returned, find_frozen, infer
from pliant.diagnostics.tracing._parameter_uses import (
    Derivatives,
    ParameterUse,
    Program,
    at_consumers,
    at_leaf,
    at_product,
    derivatives_at,
    is_float,
    longest_array,
    map_examples,
    parameter_derivatives,
    program_of,
)
from pliant.diagnostics.tracing._paths import Function, jacobian_shape, layer_starts, segment
from pliant.diagnostics.tracing._perturbation import perturbable

__all__ = [
    "Derivatives",
    "Form",
    "Function",
    "ParameterUse",
    "Program",
    "as_returned",
    "at_consumers",
    "at_leaf",
    "at_product",
    "derivatives_at",
    "find_frozen",
    "infer",
    "is_float",
    "jacobian_shape",
    "layer_starts",
    "longest_array",
    "map_examples",
    "parameter_derivatives",
    "perturbable",
    "program_of",
    "segment",
]
