"""Diagnostics: pure functions of arrays, and the registry of those that runs measure."""

from typing import Any

from pliant.diagnostics._blas import one_blas_thread
from pliant.diagnostics._brownian_twin import random_step
from pliant.diagnostics._churn import PolicyChurn, policy_churn, value_churn
from pliant.diagnostics._curvature_volatility import CurvatureVolatility, batch_tridiagonals, curvature_volatility
from pliant.diagnostics._dead import dead, firing_rates
from pliant.diagnostics._distance import Distance, distance
from pliant.diagnostics._dormancy import dormancy_scores, dormant, is_dormant
from pliant.diagnostics._examine import Examined, examine
from pliant.diagnostics._excess_loss import ExcessLossPlasticity, excess_loss_fraction, excess_loss_plasticity
from pliant.diagnostics._gradient_cosine import GradientCosine, gradient_cosine, gradient_gram
from pliant.diagnostics._gradient_noise import GradientMoments, GradientNoise, gradient_moments, gradient_noise
from pliant.diagnostics._gradient_norm import GradientNorm, gradient_norm
from pliant.diagnostics._grama import gradient_scores, grama, incoming_gradients, zero_gradient
from pliant.diagnostics._hessian import (
    TopEigenvalues,
    Tridiagonal,
    hessian_vector_product,
    lanczos,
    probe_loss,
    top_eigenvalues,
    top_tridiagonal,
)
from pliant.diagnostics._hessian_density import HessianDensity, hessian_density
from pliant.diagnostics._hessian_rank import HessianRank, dense_hessian, hessian_rank
from pliant.diagnostics._jacobian import input_output_jacobian, intermediate_jacobian, layer_jacobians
from pliant.diagnostics._jacobian_moments import JacobianMoments, jacobian_moments
from pliant.diagnostics._jacobian_spectrum import JacobianSpectrum, jacobian_gaps, jacobian_spectrum
from pliant.diagnostics._layer_fractions import LayerFractions
from pliant.diagnostics._measure import failure, measure, summarize
from pliant.diagnostics._ntk import NTK, ntk
from pliant.diagnostics._ntk_spectrum import MeasuredNTK, NTKSpectrum, layer_traces, ntk_spectrum, rayleigh
from pliant.diagnostics._probe_plasticity import ProbePlasticity, probe_plasticity, sine_targets
from pliant.diagnostics._quadrature import Quadrature, quadrature
from pliant.diagnostics._rank import effective_rank, feature_rank, participation_ratio, srank, stable_rank
from pliant.diagnostics._readiness import Readiness, readiness
from pliant.diagnostics._registry import DIAGNOSTICS, SETS, choose, find_diagnostic
from pliant.diagnostics._representation import RepresentationChange, representation_change
from pliant.diagnostics._returned import returned
from pliant.diagnostics._revival import Revival, revival
from pliant.diagnostics._sample_plasticity import sample_plasticity
from pliant.diagnostics._saturated import is_linearized, linearized, saturated
from pliant.diagnostics._trained import Trained, find_trained
from pliant.diagnostics._update_norm import UpdateNorm, update_norm
from pliant.diagnostics._weight_spectra import WeightSpectrum, weight_spectra
from pliant.diagnostics._weights import IsometryDeviation, WeightNorm, isometry_deviation, weight_norm
from pliant.errors import UserError
from pliant.tracing import perturbable

__all__ = [
    "DIAGNOSTICS",
    "NTK",
    "SETS",
    "CurvatureVolatility",
    "Distance",
    "Examined",
    "ExcessLossPlasticity",
    "GradientCosine",
    "GradientMoments",
    "GradientNoise",
    "GradientNorm",
    "HessianDensity",
    "HessianRank",
    "IsometryDeviation",
    "JacobianMoments",
    "JacobianSpectrum",
    "LayerFractions",
    "MeasuredNTK",
    "NTKSpectrum",
    "PolicyChurn",
    "ProbePlasticity",
    "Quadrature",
    "Readiness",
    "RepresentationChange",
    "Revival",
    "TopEigenvalues",
    "Trained",
    "Tridiagonal",
    "UpdateNorm",
    "WeightNorm",
    "WeightSpectrum",
    "batch_tridiagonals",
    "choose",
    "curvature_volatility",
    "dead",
    "dense_hessian",
    "distance",
    "dormancy_scores",
    "dormant",
    "effective_rank",
    "examine",
    "excess_loss_fraction",
    "excess_loss_plasticity",
    "failure",
    "feature_rank",
    "find_diagnostic",
    "find_trained",
    "firing_rates",
    "gradient_cosine",
    "gradient_gram",
    "gradient_moments",
    "gradient_noise",
    "gradient_norm",
    "gradient_scores",
    "grama",
    "hessian_density",
    "hessian_rank",
    "hessian_vector_product",
    "incoming_gradients",
    "input_output_jacobian",
    "intermediate_jacobian",
    "is_dormant",
    "is_linearized",
    "isometry_deviation",
    "jacobian_gaps",
    "jacobian_moments",
    "jacobian_spectrum",
    "lanczos",
    "layer_jacobians",
    "layer_traces",
    "linearized",
    "measure",
    "ntk",
    "ntk_spectrum",
    "one_blas_thread",
    "participation_ratio",
    "perturbable",
    "policy_churn",
    "probe_loss",
    "probe_plasticity",
    "quadrature",
    "random_step",
    "rayleigh",
    "readiness",
    "representation_change",
    "returned",
    "revival",
    "sample_plasticity",
    "saturated",
    "sine_targets",
    "srank",
    "stable_rank",
    "summarize",
    "top_eigenvalues",
    "top_tridiagonal",
    "update_norm",
    "value_churn",
    "weight_norm",
    "weight_spectra",
    "zero_gradient",
]


def __getattr__(name: str) -> Any:
    if name == "tapped":
        raise UserError(got="'tapped'", wanted="its new name", do="Call pliant.diagnostics.perturbable.")
    raise AttributeError(f"module 'pliant.diagnostics' has no attribute {name!r}")
