"""Reads a traced program: its units and parameters, where parameters are used, and the paths between features."""

from pliant.tracing._follow import Beside, Follower, Places, Product
from pliant.tracing._frozen import find_frozen
from pliant.tracing._graph import OPEN, REMAT, Graph, Node, called, graph_of, scanned
from pliant.tracing._labels import NONE, POINTWISE, PRODUCTS, Labels, along, moved
from pliant.tracing._parameter_uses import (
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
from pliant.tracing._paths import Function, jacobian_shape, layer_starts, segment
from pliant.tracing._perturbation import evaluate, perturbable, run_one

__all__ = [
    "NONE",
    "OPEN",
    "POINTWISE",
    "PRODUCTS",
    "REMAT",
    "Beside",
    "Derivatives",
    "Follower",
    "Function",
    "Graph",
    "Labels",
    "Node",
    "ParameterUse",
    "Places",
    "Product",
    "Program",
    "along",
    "at_consumers",
    "at_leaf",
    "at_product",
    "called",
    "derivatives_at",
    "evaluate",
    "find_frozen",
    "graph_of",
    "is_float",
    "jacobian_shape",
    "layer_starts",
    "longest_array",
    "map_examples",
    "moved",
    "parameter_derivatives",
    "perturbable",
    "program_of",
    "run_one",
    "scanned",
    "segment",
]
