"""Claims: testable sentences of a paper as declared checks, and their verdicts."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pliant.experiments._quantities import NotMeasuredError, Quantity
from pliant.experiments._tables import Results
from pliant.results import FEWEST_SEEDS, Estimate, paired_difference

_FEW = 3  # comparisons that a reason names
Outcome = Literal["does not hold", "holds", "undecided", "not run"]


class Difference(NamedTuple):
    """One quantity exceeds another by more than so much; either may be a number instead.

    A negative `by` is a margin: the first is lower by less than that. Networks that learn nothing are within any margin
    of each other, so a claim with one also compares what it is about with chance.
    """

    more: Quantity | float
    less: Quantity | float
    by: float
    """The smallest effect that counts, in the unit of the quantities."""


class Claim(NamedTuple):
    """A sentence of a paper that runs can confirm or refute.

    It holds if all its comparisons do.
    """

    name: str
    sentence: str
    """What the source says, in our words."""
    source: str
    """Section and figure."""
    comparisons: tuple[Difference, ...]


class Verdict(NamedTuple):
    """What results say about a claim."""

    outcome: Outcome
    effects: tuple[Estimate, ...]
    """Of each comparison: `more` minus `less`, mean over shared seeds with a 95 % interval; none if it was not run."""
    num_seeds: int
    """Shared by the quantities of a comparison; the fewest."""
    reason: str
    """Why it is undecided or was not run, or which comparison does not hold; empty if it holds."""


def judge(claim: Claim, results: Mapping[str, Results]) -> Verdict:
    """Evaluates a claim on results.

    A comparison holds if the whole 95 % interval of its effect, over paired seeds, is above `Difference.by`. It does
    not hold if no part of it is. Otherwise it is undecided: more seeds would tell. A claim holds if all its
    comparisons do, and does not hold if one does not.

    Args:
      claim: what is claimed.
      results: by the label of the run.

    Returns:
      The verdict. A claim with fewer than three seeds is undecided; one whose run, method or metric is missing, or
      whose run is unfinished, was not run.

    Example:
      >>> import pandas as pd
      >>> from pliant.experiments import Score
      >>> rows = [(m, s, 1, "accuracy", s / 100 + 0.5 * (m == "a")) for m in "ab" for s in range(3)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> claim = Claim("better", "a beats b.", "figure 1", (Difference(Score("a"), Score("b"), by=0.1),))
      >>> judge(claim, {"": Results(metrics, "accuracy", 1)}).outcome
      'holds'
    """
    used = {run for each in claim.comparisons for quantity in _quantities(each) for run in quantity.runs}
    waiting = [name or "the run" for name, each in results.items() if {name, ""} & used and not each.is_finished]
    if waiting:
        return Verdict("not run", (), 0, f"{', '.join(waiting)} is unfinished")
    try:
        found = [_effect(each, results) for each in claim.comparisons]
    except NotMeasuredError as error:
        return Verdict("not run", (), 0, error.got)
    effects = tuple(effect for effect, _ in found)
    num_seeds = min(number for _, number in found)
    outcomes = [
        _outcome(effect, number, each.by) for (effect, number), each in zip(found, claim.comparisons, strict=True)
    ]
    if "does not hold" in outcomes:
        failed = _named(claim.comparisons, outcomes, "does not hold")
        return Verdict("does not hold", effects, num_seeds, f"not: {failed}")
    if "undecided" not in outcomes:
        return Verdict("holds", effects, num_seeds, "")
    if num_seeds < FEWEST_SEEDS:
        return Verdict("undecided", effects, num_seeds, f"too few seeds ({num_seeds})")
    open_ones = _named(claim.comparisons, outcomes, "undecided")
    return Verdict("undecided", effects, num_seeds, f"too uncertain: {open_ones}")


def _named(comparisons: Sequence[Difference], outcomes: Sequence[Outcome], outcome: Outcome) -> str:
    """The comparisons with an outcome; of many the first, and how many more."""
    shown = [_shown(each) for each, one in zip(comparisons, outcomes, strict=True) if one == outcome]
    return "; ".join(shown[:_FEW] + [f"and {len(shown) - _FEW} more"] * (len(shown) > _FEW))


def deciding(claim: Claim, verdict: Verdict) -> tuple[Estimate, float] | None:
    """The effect that decides a verdict, and the smallest that counts; None if it was not run.

    Of several comparisons it is the one that is nearest to failing, or fails most.

    Args:
      claim: what is claimed.
      verdict: what results say.

    Example:
      >>> comparisons = (Difference(0.5, 0.3, by=0.1), Difference(0.5, 0.0, by=0.1))
      >>> claim = Claim("better", "a beats b and c.", "figure 1", comparisons)
      >>> effects = (Estimate(0.2, 0.1, 0.3), Estimate(0.5, 0.4, 0.6))
      >>> deciding(claim, Verdict("holds", effects, 3, ""))
      (Estimate(value=0.2, low=0.1, high=0.3), 0.1)
    """
    pairs = [(effect, each.by) for effect, each in zip(verdict.effects, claim.comparisons, strict=False)]
    return min(pairs, key=lambda pair: pair[0].value - pair[1], default=None)


def _effect(each: Difference, results: Mapping[str, Results]) -> tuple[Estimate, int]:
    more, less = (side if isinstance(side, float) else side.by_seed(results) for side in (each.more, each.less))
    differences = pd.Series(more - less).dropna()
    if differences.empty:
        raise NotMeasuredError(
            got=f"no seed with numbers for {_shown(each)}",
            wanted="seeds in which both were measured",
            do="Run the same seeds.",
        )
    return paired_difference(differences, 0 * differences), len(differences)


def _outcome(effect: Estimate, num_seeds: int, by: float) -> Outcome:
    if num_seeds < FEWEST_SEEDS or not np.isfinite(effect.low):
        return "undecided"
    if effect.low > by:
        return "holds"
    return "does not hold" if effect.high <= by else "undecided"


def _quantities(each: Difference) -> list[Quantity]:
    return [side for side in (each.more, each.less) if not isinstance(side, float)]


def _shown(each: Difference) -> str:
    """A comparison as text.

    Example:
      >>> from pliant.experiments import Score
      >>> _shown(Difference(Score("adamo", over="rise"), 0.0, by=-0.05))
      'rise of the headline of adamo > -0.05'
      >>> _shown(Difference(Score("adam", "dormant_fraction"), Score("adamo", "dormant_fraction"), by=0.1))
      'dormant fraction of adam − dormant fraction of adamo > 0.1'
    """
    sides = [f"{side:g}" if isinstance(side, float) else str(side) for side in (each.more, each.less)]
    return f"{' − '.join(sides[:1] if sides[1] == '0' else sides)} > {each.by:g}"
