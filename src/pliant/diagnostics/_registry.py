"""The diagnostics that runs sample, by name, and the sets that they come in."""

from collections.abc import Mapping, Sequence

from pliant.diagnostics._brownian_twin import BROWNIAN_TWIN
from pliant.diagnostics._dormancy import DORMANT
from pliant.diagnostics._rank import EFFECTIVE_RANK
from pliant.diagnostics._weights import ISOMETRY_DEVIATION, WEIGHT_NORM
from pliant.errors import unknown_name
from pliant.types import Diagnostic

DIAGNOSTICS: Mapping[str, Diagnostic] = {
    diagnostic.name: diagnostic
    for diagnostic in (DORMANT, EFFECTIVE_RANK, ISOMETRY_DEVIATION, WEIGHT_NORM, BROWNIAN_TWIN)
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
