"""Terms of the loss that preserve plasticity."""

from pliant.penalties._churn import C_CHAIN, ChurnState, churn
from pliant.penalties._distillation import DistillationState, distillation
from pliant.penalties._effective_rank import EFFECTIVE_RANK, effective_rank
from pliant.penalties._feature_init import FEATURE_INIT, feature_init
from pliant.penalties._gram import GRAM_PENALTY, gram
from pliant.penalties._infer import INFER, infer, with_auxiliary_heads
from pliant.penalties._l2 import L2, l2
from pliant.penalties._l2_init import L2_INIT, l2_init
from pliant.penalties._parseval import PARSEVAL, parseval
from pliant.penalties._spectral import SPECTRAL, SpectralState, spectral
from pliant.penalties._wasserstein_init import WASSERSTEIN_INIT, WassersteinInitState, wasserstein_init

__all__ = [
    "C_CHAIN",
    "EFFECTIVE_RANK",
    "FEATURE_INIT",
    "GRAM_PENALTY",
    "INFER",
    "L2",
    "L2_INIT",
    "PARSEVAL",
    "SPECTRAL",
    "WASSERSTEIN_INIT",
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
