"""The diagnostics that runs measure, by name, and named sets of them."""

from collections.abc import Mapping, Sequence

from pliant.diagnostics._brownian_twin import BROWNIAN_TWIN
from pliant.diagnostics._churn import CHURN
from pliant.diagnostics._curvature_volatility import CURVATURE_VOLATILITY
from pliant.diagnostics._dead import DEAD
from pliant.diagnostics._distance import DISTANCE_FROM_INIT
from pliant.diagnostics._dormancy import DORMANT
from pliant.diagnostics._excess_loss import EXCESS_LOSS_PLASTICITY
from pliant.diagnostics._gradient_cosine import GRADIENT_COSINE
from pliant.diagnostics._gradient_noise import GRADIENT_NOISE
from pliant.diagnostics._gradient_norm import GRADIENT_NORM
from pliant.diagnostics._grama import GRAMA
from pliant.diagnostics._hessian import HESSIAN_TOP
from pliant.diagnostics._hessian_density import HESSIAN_DENSITY
from pliant.diagnostics._hessian_rank import HESSIAN_RANK
from pliant.diagnostics._jacobian_spectrum import JACOBIAN
from pliant.diagnostics._ntk_spectrum import NTK_SPECTRUM
from pliant.diagnostics._probe_loss import PROBE_LOSS, START_LOSS
from pliant.diagnostics._probe_plasticity import PROBE_PLASTICITY
from pliant.diagnostics._rank import EFFECTIVE_RANK, FEATURE_RANK, SRANK, STABLE_RANK
from pliant.diagnostics._readiness import READINESS
from pliant.diagnostics._representation import REPRESENTATION_CHANGE
from pliant.diagnostics._revival import REVIVAL
from pliant.diagnostics._sample_plasticity import SAMPLE_PLASTICITY
from pliant.diagnostics._saturated import SATURATED
from pliant.diagnostics._update_norm import UPDATE_NORM
from pliant.diagnostics._weight_spectra import WEIGHT_SPECTRA
from pliant.diagnostics._weights import ISOMETRY_DEVIATION, WEIGHT_NORM
from pliant.errors import UserError, unknown_name
from pliant.settings import cast, options
from pliant.specs import find, split_options
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
        START_LOSS,
        PROBE_LOSS,
        READINESS,
        GRADIENT_NOISE,
        JACOBIAN,
        NTK_SPECTRUM,
        REPRESENTATION_CHANGE,
        CHURN,
        SAMPLE_PLASTICITY,
        PROBE_PLASTICITY,
        EXCESS_LOSS_PLASTICITY,
        GRADIENT_COSINE,
        HESSIAN_TOP,
        CURVATURE_VOLATILITY,
        HESSIAN_RANK,
        HESSIAN_DENSITY,
        BROWNIAN_TWIN,
    )
}

SETS: Mapping[str, tuple[str, ...]] = {
    "basic": ("dormant", "effective-rank", "isometry-deviation", "weight-norm"),
    "standard": tuple(name for name, each in DIAGNOSTICS.items() if each.cost in ("cheap", "spectral")),
    "full": tuple(DIAGNOSTICS),
}
"""Diagnostics by the name of a set."""

_PLACES = {name: place for place, name in enumerate(DIAGNOSTICS)}


def choose(words: Sequence[str | Diagnostic]) -> tuple[Diagnostic, ...]:
    """The diagnostics that words name, each once: registered ones in the order of the registry, then others as given.

    Args:
      words: names of diagnostics or sets, `path/to/file.py:name`, also several in one text with commas between; or
        diagnostics. A name may be followed by options, as in `find_diagnostic`; that diagnostic then replaces the one
        of its name in sets.

    Raises:
      UserError: for an unknown word, a file without such a diagnostic, and two diagnostics of one name.

    Example:
      >>> mine = Diagnostic("mine", "my own", "cheap", lambda subject: 0.0, lambda found: Measured({"mine": found}))
      >>> [each.name for each in choose([mine, "weight-norm,dormant"])]
      ['dormant', 'weight-norm', 'mine']
    """
    parts = [part for word in words for part in (word.split(",") if isinstance(word, str) else [word])]
    texts = dict.fromkeys(part for part in parts if isinstance(part, str) and part not in SETS)
    named = {part: find_diagnostic(part) for part in texts}
    with_options = {each.name for part, each in named.items() if split_options(part)[1]}
    found: dict[int, Diagnostic] = {}  # by id: what a user's own holds may not be hashable
    for part in parts:
        if isinstance(part, str) and part in SETS:
            members = [DIAGNOSTICS[name] for name in SETS[part] if name not in with_options]
        else:
            members = [named[part] if isinstance(part, str) else find_diagnostic(part)]
        found |= {id(each): each for each in members}
    chosen = sorted(found.values(), key=lambda each: _PLACES.get(each.name, len(_PLACES)))
    names = [each.name for each in chosen]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            got=f"two diagnostics named {twice!r}",
            wanted="every name once",
            do="Rename yours, or leave one of them out.",
        )
    return tuple(chosen)


def find_diagnostic(spec: str | Diagnostic) -> Diagnostic:
    """Finds a diagnostic by its name in the registry, as `path/to/file.py:name`, or takes the diagnostic itself.

    Options follow the name, `:OPTION=VALUE` for each: `probe-plasticity:num_steps=500:num_targets=5`. See
    `Diagnostic.make`.

    Raises:
      UserError: if there is no such diagnostic, file, name or option, or if what is there is not a `Diagnostic`.

    Example:
      >>> find_diagnostic("srank").cost
      'spectral'
      >>> find_diagnostic("probe-plasticity:initial=true").needs
      ('rule', 'initial')
    """
    name, settings = split_options(spec) if isinstance(spec, str) else (spec, {})
    found = find(
        "diagnostic",
        name,
        DIAGNOSTICS,
        lambda found: isinstance(found, Diagnostic),
        "a pliant.types.Diagnostic",
        also=SETS,
    )
    return _made(found, settings) if settings else found


def _made(diagnostic: Diagnostic, settings: Mapping[str, str]) -> Diagnostic:
    """The same diagnostic with options, which are texts."""
    if diagnostic.make is None:
        raise UserError(
            got=f"options of the diagnostic {diagnostic.name!r}: {', '.join(settings)}",
            wanted="none: it has no options",
            do=f"Write {diagnostic.name} alone.",
        )
    known, values = options(diagnostic.make), {}
    for option, text in settings.items():
        if option not in known:
            do = f"See `pliant show {diagnostic.name}`."
            raise unknown_name(f"option of {diagnostic.name!r}", option, known, do=do)
        default, annotation = known[option].default, known[option].annotation
        values[option] = cast(f"{diagnostic.name}:{option}", text, default, annotation)
    return diagnostic.make(**values)
