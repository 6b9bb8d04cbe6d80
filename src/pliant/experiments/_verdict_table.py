"""Verdicts as a table: a row a claim, contradictions first."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from pliant.experiments._claims import Outcome, Verdict, deciding, judge
from pliant.experiments._experiment import Experiment
from pliant.experiments._reproduce import stored_results
from pliant.experiments._tables import RUNS
from pliant.experiments.benchmarks import Scale

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""In the order in which verdicts are reported: contradictions first."""


def verdict_table(experiments: Iterable[Experiment], scale: Scale = "cpu", runs: Path = RUNS) -> pd.DataFrame:
    """Judges all claims of experiments on the results that there are.

    Use it to see what of the papers holds: in a report, or as data.

    Args:
      experiments: whose claims.
      scale: of the results.
      runs: the folder of run folders; where it has none, the tables that come with the package are read.

    Returns:
      A row a claim, contradictions first. Columns: `claim`; `experiment`; `sentence` and `source`; `verdict`; `effect`,
      `low` and `high` of the comparison that decides, with its 95 % interval, and `wanted`, the smallest that counts;
      `num_seeds`; `num_comparisons`; `reason`, why it does not hold, is undecided or was not run.

    Example:
      >>> from pliant.experiments import EXPERIMENTS
      >>> table = verdict_table([EXPERIMENTS["isometry/continual-octax"]], "paper", Path("nowhere"))
      >>> table[["claim", "verdict"]].values.tolist()
      [['octax-adamo-better', 'not run'], ['octax-fewer-dormant', 'not run']]
    """
    chosen = list(experiments)
    verdicts = {}
    for experiment in chosen:
        results = stored_results(experiment, scale, runs)
        verdicts[experiment.name] = {claim.name: judge(claim, results) for claim in experiment.claims}
    return tabulated(chosen, verdicts)


def tabulated(experiments: Iterable[Experiment], verdicts: Mapping[str, Mapping[str, Verdict]]) -> pd.DataFrame:
    """The table of verdicts that are known, by experiment and claim; see `verdict_table`."""
    rows = []
    for experiment in experiments:
        for claim in experiment.claims:
            verdict = verdicts[experiment.name][claim.name]
            effect, wanted = deciding(claim, verdict) or ((math.nan,) * 3, math.nan)
            rows.append(
                {
                    "claim": claim.name,
                    "experiment": experiment.name,
                    "sentence": claim.sentence,
                    "source": claim.source,
                    "verdict": verdict.outcome,
                    **dict(zip(("effect", "low", "high"), effect, strict=True)),
                    "wanted": wanted,
                    "num_seeds": verdict.num_seeds,
                    "num_comparisons": len(claim.comparisons),
                    "reason": verdict.reason,
                }
            )
    table = pd.DataFrame(rows)
    return table.sort_values("verdict", key=lambda outcomes: outcomes.map(OUTCOMES.index), kind="stable")


def shown_effect(row: Mapping[Any, Any]) -> str:
    """The effect of a row with its interval and what was wanted; empty if it was not run.

    Example:
      >>> shown_effect({"effect": 0.863, "low": 0.855, "high": 0.871, "wanted": 0.1, "num_comparisons": 2})
      '0.863 [0.855, 0.871] > 0.1 (of 2 comparisons)'
    """
    if math.isnan(row["effect"]):
        return ""
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:.3g}, {row['high']:.3g}]"
    among = f" (of {row['num_comparisons']} comparisons)" if row["num_comparisons"] > 1 else ""
    return f"{row['effect']:.3g}{interval} > {row['wanted']:g}{among}"
