"""From a name to a method: the registry, and methods in a user's own file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pliant import interventions, networks, optimizers, penalties, specs, targets
from pliant.methods._combine import combine
from pliant.types import Method

FAMILIES: Mapping[str, tuple[Method, ...]] = {
    "baselines": (
        optimizers.SGD,
        optimizers.ADAM,
        optimizers.ADAM_TUNED,
        optimizers.ADAMW,
        optimizers.WEIGHT_DECAY,
        penalties.L2,
        networks.LAYERNORM,
        optimizers.LAYERNORM_WEIGHT_DECAY,
        optimizers.MUON,
        optimizers.RMSPROP,
    ),
    "kernels near isometry": (
        optimizers.ADAMO,
        optimizers.ADAMO_MAXMIN,
        penalties.GRAM_PENALTY,
        penalties.PARSEVAL,
        interventions.NEWTON_SCHULZ,
        interventions.NEWTON_SCHULZ_MAXMIN,
        interventions.FIRE,
    ),
    "pulled towards the start": (
        penalties.L2_INIT,
        interventions.L2_INIT_DECOUPLED,
        penalties.WASSERSTEIN_INIT,
        penalties.INFER,
        penalties.FEATURE_INIT,
    ),
    "norms and spectra": (
        penalties.SPECTRAL,
        penalties.EFFECTIVE_RANK,
        networks.SPECTRAL_NORM_LAYER,
        networks.WEIGHT_NORM,
        interventions.UNIT_SPHERE,
        interventions.NAP,
        interventions.WEIGHT_CLIPPING,
    ),
    "resets of layers and networks": (
        interventions.FULL_RESET,
        interventions.RESET_DISTILL,
        interventions.HEAD_RESET,
        interventions.LAST_K_RESET,
        interventions.OPTIMIZER_RESET,
        interventions.SHRINK_PERTURB,
        interventions.HARE_TORTOISE,
        interventions.PLASTICITY_INJECTION,
        optimizers.SOFT_RESET,
    ),
    "resets of units and weights": (
        interventions.REDO,
        interventions.REDO_SCHEDULED,
        interventions.CONTINUAL_BACKPROP,
        interventions.REGRAMA,
        interventions.SNR,
        interventions.SELECTIVE_WEIGHT_REINIT,
        optimizers.ADAM_PER_WEIGHT,
    ),
    "useful weights spared": (optimizers.UPGD, interventions.DASH),
    "other networks": (
        networks.MAX_MIN,
        networks.CRELU,
        networks.FOURIER,
        networks.LEAKY,
        networks.SMOOTH_LEAKY,
        networks.RATIONAL,
        networks.AID,
        networks.RESIDUAL,
        networks.MIXTURE_OF_EXPERTS,
    ),
    "pace": (optimizers.CYCLIC_LR, optimizers.REWARMED_LR, penalties.C_CHAIN),
    "values as classes": (targets.TWO_HOT, targets.HL_GAUSS),
}
"""All methods, in the order in which they are listed. A method stands in the file of its mechanism."""
METHODS: Mapping[str, Method] = {method.name: method for family in FAMILIES.values() for method in family}


def find(*methods: Any) -> Method:
    """Finds a method by its name in the registry, or as `path/to/file.py:name`; "+" combines several.

    Args:
      *methods: a registered name, a Python file and the name of a `Method` in it (the file is executed), or a `Method`;
        several of them, or with "+" between them, are combined, see `combine`.

    Raises:
      UserError: if there is no such method, file or name, or if what is there is not a `Method`.

    Example:
      >>> find("adamo").reference
      'Rosseau et al. 2026, equations 16–20'
      >>> find("redo+l2-init").name
      'redo+l2-init'
    """
    return combine(*(_find_one(part) for spec in methods for part in split_spec(spec)))


def split_spec(spec: Any) -> Sequence[Any]:
    """The members of a combination: splits at every plus, but for those in a path, from its first slash on.

    Example:
      >>> split_spec("redo+./my+file.py:mine")
      ['redo', './my+file.py:mine']
    """
    if not isinstance(spec, str):
        return [spec]
    parts = re.findall(r"[^+]*/.*?\.py:[^+]+|[^+]+", spec)
    return parts if "+".join(parts) == spec else [spec]


def _find_one(spec: Any) -> Method:
    return specs.find("method", spec, METHODS, lambda found: isinstance(found, Method), "a pliant.types.Method")
