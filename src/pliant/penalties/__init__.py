"""Terms of the loss that preserve plasticity."""

from pliant.penalties._churn import ChurnState, churn
from pliant.penalties._distillation import DistillationState, distillation
from pliant.penalties._effective_rank import effective_rank
from pliant.penalties._feature_init import feature_init
from pliant.penalties._gram import gram
from pliant.penalties._infer import infer, with_auxiliary_heads
from pliant.penalties._l2 import l2
from pliant.penalties._l2_init import l2_init
from pliant.penalties._parseval import parseval
from pliant.penalties._spectral import SpectralState, spectral
from pliant.penalties._wasserstein_init import WassersteinInitState, wasserstein_init

__all__ = [
    "ChurnState",
    "DistillationState",
    "SpectralState",
    "WassersteinInitState",
    "churn",
    "distillation",
    "effective_rank",
    "feature_init",
    "gram",
    "infer",
    "l2",
    "l2_init",
    "parseval",
    "spectral",
    "wasserstein_init",
    "with_auxiliary_heads",
]
