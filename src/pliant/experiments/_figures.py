"""The figures of experiments, in the form of the papers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pliant.experiments._quantities import NotMeasuredError, Score, not_measured
from pliant.experiments._tables import Results
from pliant.results import Panel, Series, matrix_figure, point_panels, score_panels, task_panels

Draw: TypeAlias = Callable[[Mapping[str, Results]], Figure]


def over_tasks(
    title: str,
    *panels: tuple[str, str, str],
    methods: Mapping[str, Sequence[str]] = {},  # never changed
) -> Draw:
    """Curves over tasks: a panel for each (title, label of the run, metric); the headline where no metric is given.

    Panels whose run or metric is missing are left out.

    Args:
      title: above all.
      panels: what to draw.
      methods: those of a panel, by its title; by default all.
    """

    def draw(results: Mapping[str, Results]) -> Figure:
        shown = []
        for name, run, metric in panels:
            if run in results:
                own = results[run]
                chosen = metric or own.headline
                chance = own.chance if chosen == own.headline else None
                is_shown = own.metrics["method"].isin(methods[name]) if name in methods else own.metrics["seed"] >= 0
                table = own.metrics[is_shown & (own.metrics["metric"] == chosen)]
                if np.isfinite(table["value"]).any():
                    shown.append(Panel(name, table, chosen, chance))
        return task_panels(_some(shown), title)

    return draw


def against(title: str, x: str, y: str, *panels: tuple[str, Mapping[str, Mapping[float, Score]]]) -> Draw:
    """Scores against a setting, on a logarithmic axis: a panel for each (title, series by name: score by setting)."""

    def draw(results: Mapping[str, Results]) -> Figure:
        shown: dict[str, list[Series]] = {}
        for name, series in panels:
            found = {
                each: {at: list(values) for at, score in scores.items() if (values := _values(score, results))}
                for each, scores in series.items()
            }
            shown[name] = [Series(each, scores) for each, scores in found.items() if scores]
        return score_panels(dict(_some([(name, own) for name, own in shown.items() if own])), x, y, title)

    return draw


def matrix(title: str, what: str, rows: Sequence[str], columns: Mapping[str, str], metric: str) -> Draw:
    """The end of a metric by method and run.

    Args:
      title: above all.
      what: what the metric is.
      rows: methods.
      columns: labels of runs, by what the figure calls them.
      metric: of the runs.
    """

    def draw(results: Mapping[str, Results]) -> Figure:
        found = {
            column: {row: np.asarray(_values(Score(row, metric, "last", run), results)) for row in rows}
            for column, run in columns.items()
        }
        mean, error = (
            pd.DataFrame({column: {row: of(each) for row, each in own.items()} for column, own in found.items()})
            for of in (_mean, _error)
        )
        _some([1] if mean.notna().any(axis=None) else [])
        return matrix_figure(mean, error, what, title)

    return draw


def scatter(title: str, y: str, *panels: tuple[str, str, Mapping[str, Sequence[str]]]) -> Draw:
    """One metric against another at the end of runs, a point a seed and method.

    Args:
      title: above all.
      y: the metric that is explained.
      panels: title, the metric on the x axis, and labels of runs by the name of a group.
    """

    def draw(results: Mapping[str, Results]) -> Figure:
        shown = {}
        for name, x, groups in panels:
            points = {}
            for group, runs in groups.items():
                tables = [
                    pd.DataFrame({"x": a, "y": b}).dropna()
                    for run in runs
                    if run in results
                    for method in results[run].metrics["method"].unique()
                    if (a := _series(Score(method, x, "last", run), results)) is not None
                    and (b := _series(Score(method, y, "last", run), results)) is not None
                ]
                if tables:
                    points[group] = pd.concat(tables)
            if points:
                shown[name] = (x.replace("_", " "), y.replace("_", " "), points)
        return point_panels(dict(_some(list(shown.items()))), title)

    return draw


def _series(score: Score, results: Mapping[str, Results]) -> pd.Series | None:
    try:
        return score.by_seed(results)
    except NotMeasuredError:
        return None


def _values(score: Score, results: Mapping[str, Results]) -> list[float]:
    found = _series(score, results)
    return [] if found is None else found.dropna().tolist()


def _mean(scores: np.ndarray) -> float:
    return float(scores.mean()) if scores.size else float("nan")


def _error(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1) / np.sqrt(scores.size)) if scores.size > 1 else float("nan")


def _some(shown: list[Any]) -> list[Any]:
    """What is shown, if anything is."""
    if not shown:
        raise not_measured("this experiment")
    return shown
