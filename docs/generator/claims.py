"""The page of claims: every experiment with its verdicts, from the tables that come with the package."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from generator.tables import cell, markdown_table
from pliant.experiments import (
    EXPERIMENTS,
    OUTCOMES,
    Experiment,
    NotMeasuredError,
    Results,
    frame_cells,
    run_cells,
    score_cells,
    score_table,
    score_title,
    shown_effect,
    stored_results,
    verdict_table,
)

_NOWHERE = Path("no", "run", "folders")


def page() -> str:
    """The page in Markdown."""
    found = verdict_table(EXPERIMENTS.values(), "cpu", _NOWHERE)
    counts = [[outcome, str((found["verdict"] == outcome).sum())] for outcome in OUTCOMES]
    parts = [
        "# Claims of the papers",
        "Which sentences of the papers hold on what was measured here, at the scale `cpu`. `pliant claims` prints the "
        "same from your own runs, `pliant reproduce NAME` makes them.",
        markdown_table(["verdict", "claims"], counts),
        "An effect is the mean difference over paired seeds with its 95 % interval (Student's). A comparison *holds* "
        "if the whole interval is above the wanted effect, and *does not hold* if no part of it is. "
        "Fewer than three seeds decide nothing. Of several comparisons that led to the verdict the tightest is shown.",
        "The scale `cpu` has smaller networks and fewer tasks than the papers. A claim that does not hold there may "
        "hold at the published size, and the other way round. Intervals do not account for the number of claims.",
    ]
    contradicted = [
        [f"[{cell(row['claim'])}](#{_anchor(row['experiment'])})", cell(row["sentence"]), cell(row["reason"])]
        for row in found[found["verdict"] == "does not hold"].to_dict("records")
    ]
    if contradicted:
        parts += ["## What contradicts the papers", markdown_table(["claim", "sentence", "why"], contradicted)]
    for experiment in EXPERIMENTS.values():
        parts += _section(experiment, found[found["experiment"] == experiment.name])
    return "\n\n".join(parts) + "\n"


def _section(experiment: Experiment, verdicts: pd.DataFrame) -> list[str]:
    results = stored_results(experiment, "cpu", _NOWHERE)
    header, *runs = run_cells(experiment, results)
    runs = [[cell(label), f"`{benchmark}`", *map(cell, about)] for label, benchmark, *about in runs]
    claims = [
        [cell(row["claim"]), cell(f"{row['sentence']} ({row['source']})"), _told(row), shown_effect(row) or "–"]
        for row in verdicts.to_dict("records")
    ]
    return [
        f"## {experiment.name}",
        f"**{experiment.question}** {experiment.reference}.",
        f"The source: {experiment.shows}",
        f"```sh\npliant reproduce {experiment.name}\n```",
        markdown_table(header, runs),
        *_scores(experiment, results),
        markdown_table(["claim", "what the source says", "verdict", "effect > wanted"], claims),
    ]


def _scores(experiment: Experiment, results: Mapping[str, Results]) -> list[str]:
    if not results:
        return []
    table = score_table(results, experiment.scores)
    parts = [f"Measured: {score_title(table)}.", _table(score_cells(table))]
    for name in experiment.tables:
        command = f"`pliant show {experiment.name} --table {name}`"
        with suppress(NotMeasuredError):
            parts += [f"{name.capitalize()} ({command}):", _table(frame_cells(experiment.table(name, results)))]
    return parts


def _table(cells: list[list[str]]) -> str:
    header, *rows = cells
    return markdown_table(header, [list(map(cell, row)) for row in rows])


def _told(row: dict[str, Any]) -> str:
    reason = f": {row['reason']}" if row["reason"] and row["verdict"] != "not run" else ""
    return cell(f"{row['verdict']}{reason}")


def _anchor(name: str) -> str:
    return name.replace("/", "").lower()
