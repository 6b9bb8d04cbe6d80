"""Reads a network's traced program: its layers, where parameters are used, and the paths between features."""

from pliant.diagnostics.tracing._axes import regrouped
from pliant.diagnostics.tracing._graph import OPEN, REMAT, Graph, Node, called, scanned
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
from pliant.diagnostics.tracing._perturbation import evaluate, perturbable, run_one

__all__ = [
    "OPEN",
    "REMAT",
    "Derivatives",
    "Form",
    "Function",
    "Graph",
    "Node",
    "ParameterUse",
    "Program",
    "as_returned",
    "at_consumers",
    "at_leaf",
    "at_product",
    "called",
    "derivatives_at",
    "evaluate",
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
    "regrouped",
    "run_one",
    "scanned",
    "segment",
]
