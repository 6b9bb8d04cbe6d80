"""Figures of several panels: metrics over tasks, scores against a setting, two metrics, matrices of scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pliant.results._axes import begins_at_zero, said_of_axis
from pliant.results._column import CAPTION, WIDTH, for_column, legend_below
from pliant.results._figures import caption, finite_rows, mean_and_error
from pliant.results._look import line_style, literal

_HEIGHT = 2.9  # inches of a row of panels
_COLUMNS = 2  # more would be illegible in a column


class Panel(NamedTuple):
    """What a panel shows."""

    title: str
    metrics: pd.DataFrame
    """In long form, see `RunFolder.metrics`."""
    metric: str
    chance: float | None = None
    """Chance level of the metric, drawn as a dotted line."""


@for_column
def task_panels(panels: Sequence[Panel], title: str) -> Figure:
    """Draws metrics against the task: a panel each, a line a method, mean over seeds, ± one standard error shaded.

    Use it for the figure of an experiment: several runs, or several metrics of one. A method has the same line in all
    panels.

    Args:
      panels: what to draw.
      title: above all.

    Example:
      >>> rows = [("a", 0, task, "loss", 1 / task) for task in (1, 2)]
      >>> table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> figure = task_panels([Panel("first", table, "loss"), Panel("second", table, "loss")], "two runs")
      >>> [axes.get_title() for axes in figure.axes]
      ['first', 'second']
    """
    chosen = [finite_rows(panel.metrics, panel.metric) for panel in panels]
    methods = list(dict.fromkeys(str(method) for own in chosen for method in own["method"]))
    figure, grid = _grid(len(panels))
    is_cut = False
    for axes, panel, rows in zip(grid, panels, chosen, strict=True):
        drawn = [np.array([] if panel.chance is None else [panel.chance])]
        for method, own in rows.groupby("method", sort=False):
            table = own.pivot(index="seed", columns="task", values="value").sort_index(axis=1)
            mean, error = mean_and_error(table.to_numpy())
            style = line_style(methods.index(str(method)))
            every = max(1, len(mean) // 8)
            axes.plot(table.columns, mean, **style, label=literal(str(method)), markevery=every)
            axes.fill_between(table.columns, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
            drawn.append(mean)
        if panel.chance is not None:
            axes.axhline(panel.chance, color="0.45", linestyle=(0, (1, 2)), linewidth=1.5, zorder=0)
        if begins_at_zero(panel.metric, np.concatenate(drawn)):
            axes.set_ylim(bottom=0)
        is_cut |= bool(said_of_axis(panel.metric, np.concatenate(drawn)))
        axes.set(xlabel="task", ylabel=literal(panel.metric.replace("_", " ")), title=literal(panel.title))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis = "not all axes begin at 0" if is_cut else ""
    chance = "dotted: chance" if any(panel.chance is not None for panel in panels) else ""
    _finish(figure, methods, title, "; ".join(filter(None, (caption(pd.concat(chosen)), chance, axis))))
    return figure


class Series(NamedTuple):
    """Scores of seeds against a number, such as a strength or a width."""

    name: str
    scores: Mapping[float, Sequence[float]]
    """By the number."""


@for_column
def score_panels(panels: Mapping[str, Sequence[Series]], x: str, y: str, title: str) -> Figure:
    """Draws scores against a setting on a logarithmic axis: a panel each, a line a series, mean over seeds with bars.

    Args:
      panels: by title.
      x: what the setting is.
      y: what the score is.
      title: above all.

    Example:
      >>> figure = score_panels({"a": [Series("adamo", {0.1: [1.0, 2.0], 1.0: [3.0]})]}, "strength", "accuracy", "t")
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [1.5, 3.0]
    """
    names = list(dict.fromkeys(series.name for own in panels.values() for series in own))
    figure, grid = _grid(len(panels))
    for axes, (name, own) in zip(grid, panels.items(), strict=True):
        for series in own:
            places = sorted(series.scores)
            found = [mean_and_error(np.asarray(series.scores[place], float)[:, None]) for place in places]
            mean, error = (np.concatenate(each) for each in zip(*found, strict=True))
            style = line_style(names.index(series.name))
            line = axes.errorbar(places, mean, error, **style, capsize=3).lines[0]
            line.set_label(literal(series.name))
        axes.set(xlabel=literal(x), ylabel=literal(y), title=literal(name), xscale="log")
    _finish(figure, names, title, "mean over seeds; bars: ± one standard error")
    return figure


@for_column
def point_panels(panels: Mapping[str, tuple[str, str, Mapping[str, pd.DataFrame]]], title: str) -> Figure:
    """Draws one metric against another: a panel each, a point for every row.

    Args:
      panels: by title: what x and y are, and tables with columns `x` and `y` by name.
      title: above all.

    Example:
      >>> points = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})
      >>> figure = point_panels({"p": ("norm", "loss", {"mnist": points})}, "t")
      >>> figure.axes[0].lines[0].get_xydata().tolist()
      [[1.0, 3.0], [2.0, 4.0]]
    """
    names = list(dict.fromkeys(name for _, _, own in panels.values() for name in own))
    figure, grid = _grid(len(panels))
    for axes, (panel, (x, y, own)) in zip(grid, panels.items(), strict=True):
        for name, table in own.items():
            style = line_style(names.index(name))
            shown = {"linestyle": "none", "markersize": 4}
            axes.plot(table["x"], table["y"], **(style | shown), label=literal(name))
        axes.set(xlabel=literal(x), ylabel=literal(y), title=literal(panel))
    _finish(figure, names, title, "a point is one seed")
    return figure


@for_column
def matrix_figure(mean: pd.DataFrame, error: pd.DataFrame, what: str, title: str) -> Figure:
    """Draws a matrix of scores, each with its standard error; darker is more.

    Args:
      mean: a row and a column for each setting; NaN for what was not run.
      error: of the same shape; NaN for a single seed.
      what: what the scores are.
      title: above all.

    Example:
      >>> mean = pd.DataFrame({"mlp": [0.25]}, index=["adam"])
      >>> figure = matrix_figure(mean, mean / 5, "increase of the loss", "interventions")
      >>> figure.axes[0].texts[0].get_text()
      '0.25 ± 0.05'
    """
    figure = Figure(figsize=(WIDTH, 2.0 + 0.42 * mean.shape[0]), layout="constrained")
    axes = figure.subplots()
    means, errors = mean.to_numpy(float), error.to_numpy(float)
    image = axes.imshow(means, cmap="cividis_r", aspect="auto")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2 if np.isfinite(means).any() else 0.0
    for row, column in np.ndindex(means.shape):
        value, spread = means[row, column], errors[row, column]
        text = "–" if math.isnan(value) else f"{value:.2f}" + ("" if math.isnan(spread) else f" ± {spread:.2f}")
        color = "white" if value > middle else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=CAPTION - 1, color=color)
    axes.set_xticks(range(mean.shape[1]), list(map(literal, map(str, mean.columns))))
    axes.set_yticks(range(mean.shape[0]), list(map(literal, map(str, mean.index))))
    axes.set_title(literal(title))
    figure.colorbar(image, ax=axes, label=literal(what))
    figure.supxlabel("mean over seeds ± one standard error", fontsize=CAPTION, color="0.35")
    return figure


def _grid(number: int) -> tuple[Figure, list[Axes]]:
    columns = min(_COLUMNS, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(WIDTH, _HEIGHT * rows + 0.4), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[number:]:
        axes.remove()
    return figure, grid[:number]


def _finish(figure: Figure, names: Sequence[str], title: str, note: str) -> None:
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle in axes.lines:
            handles.setdefault(str(handle.get_label()), handle)
    figure.suptitle(literal(title))
    legend_below(figure, [handles[literal(name)] for name in names if literal(name) in handles], note)
