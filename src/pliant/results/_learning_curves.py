"""Figures of a metric within tasks, drawn from stored curves: a panel for each environment."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from pliant.results._axes import begins_at_zero, said_of_axis
from pliant.results._column import WIDTH, for_column, legend_below
from pliant.results._figures import caption, finite_rows, mean_and_error
from pliant.results._look import line_style, literal
from pliant.results._phases import apart, placed

_MOST_COLUMNS = 2  # of panels, which are legible in a column of a paper
_HEIGHT = 4.0  # inches of a single panel
_MOST_BORDERS = 100  # more vertical lines would hide the curves
_MARKERS = 8  # of a line, so that they stay apart


@for_column
def learning_curves(curves: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draws a metric against environment steps, or updates: a panel an environment, a line a method.

    Use it to see how agents learn when environments come and go. A panel shows all phases of its environment one after
    the other, and leaves out what was trained in between; thin vertical lines separate the phases. Lines are means over
    seeds, ± one standard error shaded, as in `headline_figure`.

    Args:
      curves: in long form, see `RunFolder.curves`; a column `environment` names the panels, without it there is one.
        The axis is the metric `env_steps` if all methods have it, or else `step`.
      metric: any in the table.
      title: above the panels.

    Raises:
      UserError: if the table has no such metric, or no finite number of it.

    Example:
      >>> rows = [("a", 0, task, 4 * task - 2 * rest, "loss", 0.5, name)
      ...         for task, name in ((1, "x"), (2, "y"), (3, "x")) for rest in (1, 0)]
      >>> columns = ["method", "seed", "task", "step", "metric", "value", "environment"]
      >>> figure = learning_curves(pd.DataFrame(rows, columns=columns), "loss", "two environments")
      >>> [(axes.get_title(), axes.lines[-1].get_xdata().tolist()) for axes in figure.axes]
      [('x', [2.0, 4.0, nan, 6.0, 8.0]), ('y', [2.0, 4.0])]
    """
    if "environment" not in curves:
        curves = curves.assign(environment="")
    points, unit = placed(curves)
    chosen = finite_rows(curves, metric).merge(points, on=["method", "task", "step"])
    panels, methods = list(chosen["environment"].unique()), list(chosen["method"].unique())
    num_columns = min(_MOST_COLUMNS, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    height = _HEIGHT if num_columns == 1 else 0.8 + 2.4 * num_rows
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    drawn: list[np.ndarray] = []
    grid = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        own = chosen[chosen["environment"] == panel]
        borders = sorted(set(own["offset"]) - {0.0})
        for border in borders if len(borders) <= _MOST_BORDERS else ():
            axes.axvline(border, color="0.8", linewidth=0.6, zorder=0)
        for method, of_method in own.groupby("method", sort=False):
            table = of_method.pivot(index="seed", columns=["task", "x"], values="value").sort_index(axis=1)
            tasks, x = (table.columns.get_level_values(level).to_numpy() for level in ("task", "x"))
            x, mean, error = apart(tasks, x, *mean_and_error(table.to_numpy()))
            style = line_style(methods.index(method))
            every = max(1, len(x) // _MARKERS)
            label = literal(str(method))
            axes.plot(x, mean, **style, label=label, markevery=every)
            axes.fill_between(x, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
            drawn.append(mean)
        axes.set(title=literal(panel), xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(7 if num_columns == 1 else 4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.remove()
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    named = [handles[name] for name in map(literal, map(str, methods))]
    values = np.concatenate(drawn)
    for place, axes in enumerate(figure.axes):
        axes.set_xlabel(unit if place + num_columns >= len(panels) else "")
        if begins_at_zero(metric, values):
            axes.set_ylim(bottom=0)
    figure.supylabel(literal(metric.replace("_", " ")))
    figure.suptitle(literal(title))
    said = (caption(chosen), "vertical lines separate phases", said_of_axis(metric, values))
    legend_below(figure, named, "; ".join(filter(None, said)))
    return figure
