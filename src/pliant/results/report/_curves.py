"""What the figures of a metric draw: for each method the mean over seeds, its standard error, and single seeds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from pliant.results._axes import begins_at_zero, said_of_axis
from pliant.results._figures import caption, mean_and_error
from pliant.results._phases import apart, placed
from pliant.results.report._numbers import short, shown
from pliant.sampling import evenly

_MOST_DESCRIBED = 8  # methods, in the text for readers who do not see the figure


def over_tasks(
    metrics: pd.DataFrame, metric: str, most: int, *, chance: float | None = None, has_seeds: bool = True
) -> dict[str, Any] | None:
    """A figure of a metric against the task, as JSON data; None if the metric has no finite number.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      metric: its name.
      most: points a line, evenly spaced.
      chance: chance level of the metric.
      has_seeds: whether the lines of single seeds are kept.
    """
    own = metrics[metrics["metric"] == metric]
    finite = own[np.isfinite(own["value"])]
    if finite.empty:
        return None
    own = own[own["task"].isin(finite["task"].unique())]  # some diagnostics are measured after a few tasks only
    lines = {}
    for method, of_method in own.groupby("method", sort=False):
        table = of_method.pivot(index="seed", columns="task", values="value")
        places = evenly(table.shape[1], most)
        x, scores = table.columns.to_numpy()[places], table.to_numpy()[:, places]
        lines[str(method)] = _line(x, np.where(np.isfinite(scores), scores, np.nan), table.index, has_seeds)
    return _figure(metric, "task", lines, caption(finite), chance)


def within_tasks(curves: pd.DataFrame, metric: str, most: int) -> dict[str, dict[str, Any]]:
    """Figures of a metric within tasks, as JSON data, by environment: its phases one after the other.

    Args:
      curves: in long form, see `RunFolder.curves`, with a column `environment`.
      metric: its name.
      most: points a line, evenly spaced.
    """
    points, unit = placed(curves)
    own = curves[curves["metric"] == metric].merge(points, on=["method", "task", "step"])
    figures = {}
    for environment, panel in own[np.isfinite(own["value"])].groupby("environment", sort=False):
        lines = {}
        for method, of_method in panel.groupby("method", sort=False):
            table = of_method.pivot(index="seed", columns=["task", "x"], values="value").sort_index(axis=1)
            places = evenly(table.shape[1], most)
            tasks, x = (table.columns.get_level_values(level).to_numpy()[places] for level in ("task", "x"))
            x, *rows = apart(tasks, x, *table.to_numpy()[:, places])
            lines[str(method)] = _line(x, np.stack(rows), table.index, has_seeds=True)
        borders = sorted(set(panel["offset"]) - {0.0})
        said = f"{caption(panel)}; vertical lines separate phases" if borders else caption(panel)
        figures[str(environment)] = _figure(metric, unit, lines, said, None) | {"borders": short(borders)}
    return figures


def _line(x: np.ndarray, scores: np.ndarray, seeds: Iterable[int], has_seeds: bool) -> dict[str, Any]:
    """One method: where no seed has a number, there is a gap."""
    mean, error = mean_and_error(scores)
    line: dict[str, Any] = {"x": short(x), "mean": short(mean)}
    if len(scores) > 1:
        line["error"] = short(error)
        if has_seeds:
            line["seeds"] = {str(seed): short(row) for seed, row in zip(seeds, scores, strict=True)}
    return line


def _figure(metric: str, unit: str, lines: dict[str, Any], said: str, chance: float | None) -> dict[str, Any]:
    numbers = [value for line in lines.values() for value in line["mean"] if value is not None]
    drawn = np.array([*numbers, *([] if chance is None else [chance])])
    notes = [said, said_of_axis(metric, drawn), "" if chance is None else f"dotted: chance, {chance:.3g}"]
    return {
        "metric": metric,
        "name": metric.replace("_", " "),
        "unit": unit,
        "from_zero": begins_at_zero(metric, drawn),
        "chance": chance,
        "lines": lines,
        "caption": "; ".join(filter(None, notes)),
        "alt": _described(metric.replace("_", " "), unit, lines),
    }


def _described(name: str, unit: str, lines: dict[str, Any]) -> str:
    """The figure in words: where each line begins and ends."""
    ends = []
    for method, line in list(lines.items())[:_MOST_DESCRIBED]:
        finite = [value for value in line["mean"] if value is not None]
        ends.append(
            f"{method} from {shown(finite[0])} to {shown(finite[-1])}" if finite else f"{method} without numbers"
        )
    more = len(lines) - len(ends)
    rest = f"; and {more} more methods" if more > 0 else ""
    return f"{name} against {unit}, mean over seeds: {'; '.join(ends)}{rest}. The numbers are in the table below."
