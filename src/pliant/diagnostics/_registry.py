"""The diagnostics that runs sample, by name, and the sets that they come in."""

from collections.abc import Mapping, Sequence

from pliant.diagnostics._brownian_twin import BROWNIAN_TWIN
from pliant.diagnostics._churn import CHURN
from pliant.diagnostics._dead import DEAD
from pliant.diagnostics._distance import DISTANCE_FROM_INIT
from pliant.diagnostics._dormancy import DORMANT
from pliant.diagnostics._excess_loss import EXCESS_LOSS_PLASTICITY
from pliant.diagnostics._gradient_cosine import GRADIENT_COSINE
from pliant.diagnostics._gradient_norm import GRADIENT_NORM
from pliant.diagnostics._grama import GRAMA
from pliant.diagnostics._hessian import HESSIAN_TOP
from pliant.diagnostics._hessian_density import HESSIAN_DENSITY
from pliant.diagnostics._jacobian_spectrum import JACOBIAN
from pliant.diagnostics._ntk_spectrum import NTK_SPECTRUM
from pliant.diagnostics._probe_plasticity import PROBE_PLASTICITY
from pliant.diagnostics._rank import EFFECTIVE_RANK, FEATURE_RANK, SRANK, STABLE_RANK
from pliant.diagnostics._representation import REPRESENTATION_CHANGE
from pliant.diagnostics._revival import REVIVAL
from pliant.diagnostics._sample_plasticity import SAMPLE_PLASTICITY
from pliant.diagnostics._saturated import SATURATED
from pliant.diagnostics._update_norm import UPDATE_NORM
from pliant.diagnostics._weight_spectra import WEIGHT_SPECTRA
from pliant.diagnostics._weights import ISOMETRY_DEVIATION, WEIGHT_NORM
from pliant.errors import unknown_name
from pliant.types import Diagnostic

DIAGNOSTICS: Mapping[str, Diagnostic] = {
    diagnostic.name: diagnostic
    for diagnostic in (
        DORMANT,
        DEAD,
        REVIVAL,
        SATURATED,
        GRAMA,
        EFFECTIVE_RANK,
        SRANK,
        STABLE_RANK,
        FEATURE_RANK,
        ISOMETRY_DEVIATION,
        WEIGHT_SPECTRA,
        WEIGHT_NORM,
        DISTANCE_FROM_INIT,
        GRADIENT_NORM,
        UPDATE_NORM,
        JACOBIAN,
        NTK_SPECTRUM,
        REPRESENTATION_CHANGE,
        CHURN,
        SAMPLE_PLASTICITY,
        PROBE_PLASTICITY,
        EXCESS_LOSS_PLASTICITY,
        GRADIENT_COSINE,
        HESSIAN_TOP,
        HESSIAN_DENSITY,
        BROWNIAN_TWIN,
    )
}

SETS: Mapping[str, tuple[str, ...]] = {
    "basic": ("dormant", "effective-rank", "isometry-deviation", "weight-norm"),
    "standard": tuple(name for name, each in DIAGNOSTICS.items() if each.cost in ("cheap", "spectral")),
    "full": tuple(DIAGNOSTICS),
}
"""What a single word stands for."""


def choose(words: Sequence[str]) -> tuple[str, ...]:
    """The diagnostics that words name, each once, in the order of the registry.

    Args:
      words: names of diagnostics or sets, also several in one with commas between.

    Raises:
      UserError: for an unknown word.

    Example:
      >>> choose(("weight-norm,dormant",))
      ('dormant', 'weight-norm')
    """
    chosen: set[str] = set()
    for word in (part for text in words for part in text.split(",")):
        if word not in SETS and word not in DIAGNOSTICS:
            raise unknown_name("diagnostic", word, [*SETS, *DIAGNOSTICS], do="See `pliant list diagnostics`.")
        chosen |= set(SETS.get(word, (word,)))
    return tuple(name for name in DIAGNOSTICS if name in chosen)
