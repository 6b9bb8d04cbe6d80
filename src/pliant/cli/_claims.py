"""`pliant claims`: which of the papers' claims hold on what was measured."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from pliant.cli._terminal import print_line, print_table
from pliant.errors import unknown_name
from pliant.experiments import EXPERIMENTS, RUNS, Claim, Outcome, Scale, Verdict, deciding, judge, stored_results


@dataclasses.dataclass(frozen=True)
class Claims:
    """The options of `pliant claims`."""

    name: Positional[str] = ""
    """Experiment, or the beginning of several names, such as isometry/; by default all."""
    scale: Scale = "cpu"
    """Of the results: smoke, cpu or paper."""
    runs: Path = RUNS
    """Folder of the run folders that `pliant reproduce` has made. Where it has none, the tables that come with pliant
    are read."""

    def __call__(self) -> None:
        """Prints a verdict for every claim, contradictions first."""
        chosen = {name: each for name, each in EXPERIMENTS.items() if name.startswith(self.name)}
        if not chosen:
            raise unknown_name("experiment", self.name, EXPERIMENTS, do="See `pliant list experiments`.")
        verdicts = {}
        for name, experiment in chosen.items():
            results = stored_results(experiment, self.scale, self.runs)
            verdicts[name] = {claim.name: judge(claim, results) for claim in experiment.claims}
        print_table(claims_table(verdicts, self.scale))
        outcomes = Counter(verdict.outcome for each in verdicts.values() for verdict in each.values())
        counted = (f"{outcomes[outcome]} {outcome}" for outcome in _ORDER)
        print_line(f"{outcomes.total()} claims: {', '.join(counted)}")


_ORDER: tuple[Outcome, ...] = ("does not hold", "holds", "undecided", "not run")


def claims_table(verdicts: Mapping[str, Mapping[str, Verdict]], scale: Scale) -> Table:
    """A row a claim, contradictions first.

    Args:
      verdicts: by the name of the experiment, then of the claim.
      scale: of the results.
    """
    table = Table(
        "claim", "verdict", "effect [95 % interval] ≥ wanted", "seeds", "what the source says", title=f"scale: {scale}"
    )
    rows = [
        (_ORDER.index(verdict.outcome), experiment, name, verdict)
        for experiment, each in verdicts.items()
        for name, verdict in each.items()
    ]
    for _, experiment, name, verdict in sorted(rows, key=lambda row: row[0]):
        claim = next(claim for claim in EXPERIMENTS[experiment].claims if claim.name == name)
        outcome = verdict.outcome + (f": {verdict.reason}" if verdict.reason else "")
        effects = _shown(claim, verdict)
        said = f"{claim.sentence} ({claim.source})"
        table.add_row(*map(escape, (f"{experiment}: {name}", outcome, effects, str(verdict.num_seeds or "–"), said)))
    return table


def _shown(claim: Claim, verdict: Verdict) -> str:
    found = deciding(claim, verdict)
    if found is None:
        return ""
    effect, by = found
    interval = "" if math.isnan(effect.low) else f" [{effect.low:.3g}, {effect.high:.3g}]"
    number = len(verdict.effects)
    return f"{effect.value:.3g}{interval} ≥ {by:g}" + (f" (tightest of {number})" if number > 1 else "")
