"""The tables of runs, tunings and experiments, printed in several formats."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import pandas as pd

from pliant import results, tuning
from pliant.cli._plot import require_finished
from pliant.cli._terminal import print_line, print_table
from pliant.errors import UserError
from pliant.experiments import Results, Score, frame_cells, score_cells, score_table, score_title
from pliant.results import RunFolder
from pliant.tuning import TuningFolder

Format: TypeAlias = Literal["table", "csv", "markdown", "latex"]


def print_scores(found: Mapping[str, Results], scores: Sequence[Score], title: str, format: Format = "table") -> None:
    """Prints scores of all methods and runs: means over seeds with their standard errors.

    Args:
      found: by the label of the run.
      scores: see `score_table`; all over the same tasks.
      title: above the table.
      format: of the table.
    """
    table = score_table(found, scores)
    if format == "csv":
        _print_csv(table)
        return
    print_cells(f"{title}: {score_title(table)}", score_cells(table), format)


def print_frame(name: str, table: pd.DataFrame, format: Format = "table") -> None:
    """Prints any table; in csv with all digits."""
    if format == "csv":
        _print_csv(table)
    else:
        print_cells(name, frame_cells(table), format)


def print_tuning(folder: TuningFolder, format: Format = "table") -> None:
    """Prints the table of a tuning."""
    table = tuning.tuning_table(folder)
    title = f"{folder.title}: {folder.record.headline.replace('_', ' ')}"
    if format == "csv":
        _print_csv(table)
    else:
        print_cells(title, tuning.tuning_cells(table), format)


def print_run(
    folder: RunFolder, format: Format = "table", baseline: str | None = None, *, profile: bool = False
) -> None:
    """Prints the table of a run; with a baseline also the comparison, in csv as further columns; and its profile."""
    require_finished(folder)
    scores = folder.select(folder.headline)
    if profile and format == "csv":
        if baseline is not None:
            got = f"--baseline {baseline} and --profile in csv"
            raise UserError(got=got, wanted="one of them", do="Print one after the other.")
        table = results.profile_table(scores, folder.headline, environments=folder.environments)
        _print_csv(table)
        return
    named = folder.headline.replace("_", " ")
    summary, further = folder.summary(), {}
    if baseline is not None:
        comparison = results.compare(scores, folder.headline, baseline, folder.environments)
        further[f"Each method minus {baseline}, paired by seed: {named}"] = results.comparison_cells(
            comparison, baseline
        )
        if format == "csv":
            shared = comparison.rename(columns={"num_seeds": "num_shared_seeds"})
            summary = summary.merge(shared, on="method", how="left")
    if profile:
        table = results.profile_table(scores, folder.headline, environments=folder.environments)
        further[f"Share of scores in the last five tasks [95 %]: {named}"] = results.profile_cells(
            table, folder.headline
        )
    if format == "table":
        print_table(results.summary_table(summary, folder.seconds, folder.headline, folder.title))
        for title, cells in further.items():
            print_table(results.terminal_table(title, cells))
        return
    print_line(results.summary_text(summary, folder.seconds, folder.headline, folder.title, format).rstrip("\n"))
    if format != "csv":
        for title, cells in further.items():
            print_line("\n" + results.text_table(title, cells, format).rstrip("\n"))


def print_cells(
    title: str, cells: Sequence[Sequence[str]], format: Literal["table", "markdown", "latex"] = "table"
) -> None:
    """Prints a table, the header first."""
    if format == "table":
        print_table(results.terminal_table(title, cells))
    else:
        print_line(results.text_table(title, cells, format).rstrip("\n"))


def _print_csv(table: pd.DataFrame) -> None:
    print_line(table.to_csv(index=False, lineterminator="\n").rstrip("\n"))
