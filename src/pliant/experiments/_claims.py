"""Claims: testable sentences of a paper as declared checks, and their verdicts."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pliant.errors import UserError
from pliant.experiments._quantities import NotMeasuredError, Quantity
from pliant.experiments._tables import Results
from pliant.results import FEWEST_SEEDS, Estimate, mean_estimate

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
      The verdict. A comparison with fewer than three seeds is undecided, and so is one in which a seed has no number,
      as where a method diverges. A claim whose run, method or metric is missing, or whose run is unfinished, was not
      run.

    Raises:
      UserError: for a claim without comparisons, one that compares a quantity with itself, or an unknown `Score.over`.

    Example:
      >>> import pandas as pd
      >>> from pliant.experiments import Score
      >>> rows = [(m, s, 1, "accuracy", s / 100 + 0.5 * (m == "a")) for m in "ab" for s in range(3)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> claim = Claim("better", "a beats b.", "figure 1", (Difference(Score("a"), Score("b"), by=0.1),))
      >>> judge(claim, {"": Results(metrics, "accuracy", 1)}).outcome
      'holds'
    """
    _check(claim)
    used = {run for each in claim.comparisons for quantity in _quantities(each) for run in quantity.runs}
    waiting = {name or "the run": each.lacks for name, each in results.items() if {name, ""} & used and each.lacks}
    if waiting:
        return Verdict("not run", (), 0, "; ".join(f"{name}: {lacks}" for name, lacks in waiting.items()))
    try:
        found = [_effect(each, results) for each in claim.comparisons]
    except NotMeasuredError as error:
        return Verdict("not run", (), 0, error.got)
    effects = tuple(each.estimate for each in found)
    num_seeds = min(each.num_seeds for each in found)
    outcome = _joint(claim, effects)
    lost = {seed for each in found for seed in each.lost}
    if outcome == "holds":
        reason = ""
    elif outcome == "does not hold":
        reason = f"not: {_named(claim, effects, outcome)}"
    elif lost:
        seeds = ", ".join(map(str, sorted(lost)))
        reason = f"no number of seed {seeds} (diverged, constant or not measured)"
    elif num_seeds < FEWEST_SEEDS:
        reason = f"too few seeds ({num_seeds})"
    else:
        reason = f"too uncertain: {_named(claim, effects, outcome)}"
    return Verdict(outcome, effects, num_seeds, reason)


def _joint(claim: Claim, effects: Sequence[Estimate]) -> Outcome:
    outcomes = [_outcome(effect, each.by) for effect, each in zip(effects, claim.comparisons, strict=True)]
    if "does not hold" in outcomes:
        return "does not hold"
    return "undecided" if "undecided" in outcomes else "holds"


def _named(claim: Claim, effects: Sequence[Estimate], outcome: Outcome) -> str:
    """The comparisons with an outcome, that which decides first; of many the first, and how many more."""
    shown = [_shown(each) for _, each in _by_margin(claim, effects, outcome)]
    return "; ".join(shown[:_FEW] + [f"and {len(shown) - _FEW} more"] * (len(shown) > _FEW))


def _by_margin(claim: Claim, effects: Sequence[Estimate], outcome: Outcome) -> list[tuple[Estimate, Difference]]:
    """The comparisons with an outcome: those that fail most, or are nearest to failing, first."""
    pairs = zip(effects, claim.comparisons, strict=True)
    chosen = [(effect, each) for effect, each in pairs if _outcome(effect, each.by) == outcome]
    return sorted(chosen, key=lambda pair: np.nan_to_num(pair[0].value - pair[1].by, nan=-np.inf))


def deciding(claim: Claim, verdict: Verdict) -> tuple[Estimate, float] | None:
    """The effect that decides a verdict, and the smallest that counts; None if it was not run.

    Of several comparisons that led to the verdict it is the one that is nearest to failing, or fails most.

    Args:
      claim: what is claimed.
      verdict: what results say.

    Example:
      >>> comparisons = (Difference(0.5, 0.3, by=0.1), Difference(0.5, 0.0, by=0.1))
      >>> claim = Claim("better", "a beats b and c.", "figure 1", comparisons)
      >>> effects = (Estimate(0.2, 0.15, 0.25), Estimate(0.5, 0.4, 0.6))
      >>> deciding(claim, Verdict("holds", effects, 3, ""))
      (Estimate(value=0.2, low=0.15, high=0.25), 0.1)
    """
    chosen = _by_margin(claim, verdict.effects, verdict.outcome) if verdict.effects else []
    return (chosen[0][0], chosen[0][1].by) if chosen else None


class _Effect(NamedTuple):
    """What a comparison has found."""

    estimate: Estimate
    """Without an interval if a seed was lost: those that survive are no sample of all."""
    num_seeds: int
    lost: Sequence[int]
    """Seeds of both sides, of which one has no number."""


def _effect(each: Difference, results: Mapping[str, Results]) -> _Effect:
    sides = [side.by_seed(results) if isinstance(side, Quantity) else float(side) for side in (each.more, each.less)]
    seeds = [set(side.index) for side in sides if isinstance(side, pd.Series)]
    differences = pd.Series(sides[0] - sides[1]).loc[sorted(set.intersection(*seeds))]
    numbers = differences.dropna()
    if numbers.empty:
        raise NotMeasuredError(
            got=f"no seed with numbers for {_shown(each)}",
            wanted="seeds in which both were measured",
            do="Run the same seeds.",
        )
    lost = sorted(set(differences.index) - set(numbers.index))
    found = mean_estimate(numbers.to_numpy())
    return _Effect(Estimate(found.value, np.nan, np.nan) if lost else found, len(numbers), lost)


def _check(claim: Claim) -> None:
    """Refuses a claim that says nothing."""
    if not claim.comparisons:
        raise UserError(
            got=f"the claim {claim.name!r} without comparisons", wanted="at least one", do="Add a `Difference`."
        )
    for each in claim.comparisons:
        quantities = _quantities(each)
        if not quantities or (len(quantities) == 2 and quantities[0] == quantities[1]):
            raise UserError(
                got=f"the claim {claim.name!r}, which compares {_shown(each)}",
                wanted="a quantity and something else",
                do="Compare it with another quantity, or with a number.",
            )


def _outcome(effect: Estimate, by: float) -> Outcome:
    if not np.isfinite(effect.low):
        return "undecided"
    if effect.low > by:
        return "holds"
    return "does not hold" if effect.high <= by else "undecided"


def _quantities(each: Difference) -> list[Quantity]:
    return [side for side in (each.more, each.less) if isinstance(side, Quantity)]


def _shown(each: Difference) -> str:
    """A comparison as text.

    Example:
      >>> from pliant.experiments import Score
      >>> _shown(Difference(Score("adamo", over="rise"), 0.0, by=-0.05))
      'rise of the headline of adamo > -0.05'
      >>> _shown(Difference(Score("adam", "dormant_fraction"), Score("adamo", "dormant_fraction"), by=0.1))
      'dormant fraction of adam − dormant fraction of adamo > 0.1'
    """
    sides = [str(side) if isinstance(side, Quantity) else f"{side:g}" for side in (each.more, each.less)]
    return f"{' − '.join(sides[:1] if sides[1] == '0' else sides)} > {each.by:g}"
