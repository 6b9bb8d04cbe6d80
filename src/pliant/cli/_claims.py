"""`pliant claims`: which of the papers' claims hold on what was measured."""

import dataclasses
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from pliant.cli._terminal import print_line, print_table
from pliant.errors import unknown_name
from pliant.experiments import EXPERIMENTS, OUTCOMES, RUNS, Experiment, Scale, shown_effect, verdict_table
from pliant.results import text_table


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
    format: Literal["table", "csv", "markdown", "latex"] = "table"
    """Format of the table; csv has all columns and digits."""

    def __call__(self) -> None:
        """Prints a verdict for every claim, contradictions first."""
        found = verdict_table(chosen_experiments(self.name), self.scale, self.runs)
        counted = ", ".join(f"{(found['verdict'] == outcome).sum()} {outcome}" for outcome in OUTCOMES)
        title = f"{len(found)} claims at the scale {self.scale}: {counted}"
        if self.format == "table":
            print_table(claims_table(found))
            print_line(title)
        elif self.format == "csv":
            print_line(found.to_csv(index=False).rstrip("\n"))
        else:
            cells = [list(_COLUMNS), *map(_cells, _rows(found))]
            print_line(text_table(title, cells, self.format, _LATEX_COLUMNS).rstrip("\n"))


_COLUMNS = ("claim", "verdict", "effect [95 % interval] > wanted", "seeds", "what the source says")
_LATEX_COLUMNS = r"p{0.2\textwidth}p{0.25\textwidth}p{0.15\textwidth}rp{0.25\textwidth}"


def chosen_experiments(name: str) -> list[Experiment]:
    """The experiments whose names begin so; "all" are all of them.

    Raises:
      UserError: if there is none.
    """
    chosen = [each for full, each in EXPERIMENTS.items() if name == "all" or full.startswith(name)]
    if not chosen:
        raise unknown_name("experiment", name, EXPERIMENTS, do="See `pliant list experiments`.")
    return chosen


def claims_table(found: pd.DataFrame) -> Table:
    """A table of verdicts for the terminal.

    Args:
      found: from `verdict_table`.
    """
    table = Table(*_COLUMNS)
    for row in _rows(found):
        table.add_row(*map(escape, _cells(row)))
    return table


def _rows(found: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]


def _cells(row: dict[str, object]) -> list[str]:
    outcome = f"{row['verdict']}: {row['reason']}" if row["reason"] else str(row["verdict"])
    said = f"{row['sentence']} ({row['source']})"
    return [f"{row['experiment']}: {row['claim']}", outcome, shown_effect(row), str(row["num_seeds"] or "–"), said]
