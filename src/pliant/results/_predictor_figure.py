"""A heat map of what predicts plasticity: diagnostics by conditions."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pliant.errors import UserError
from pliant.results._look import literal
from pliant.results._predictors import ACROSS, CONDITION, POOLED, TASK_NUMBER

_FLIP = "⇅"
_DARK = 0.6  # |correlation| above which numbers are white


def predictor_figure(
    table: pd.DataFrame, statistic: Literal["correlation", "partial"] = "partial", title: str = "", most: int = 40
) -> Figure:
    """Draws the correlations of `predictor_table`: a row a diagnostic, a column a condition.

    Use it to see at a glance which diagnostics predict plasticity everywhere, and which change their sign.

    Every cell has its number, with the sign, so that the figure can be read in black and white: bold if the interval
    excludes 0. Orange is positive and purple negative, which colour-blind readers can tell apart. ⇅ before a name marks
    a flip. Rows are ordered by the size of their mean. The task number, which knows the trend alone, is last; it has no
    correlation at the same task. Columns of single methods come first, then those within all, then across methods.

    Args:
      table: from `predictor_table`, or several of different outcomes, one after the other.
      statistic: which correlation.
      title: above the axes.
      most: rows to draw, beside that of the task number.

    Raises:
      UserError: if no correlation is a number, and for an unknown statistic.

    Example:
      >>> rows = [("p", "a", "n", "d", seed, task, 9, metric, value) for seed in range(3) for task in (1, 2, 3)
      ...         for metric, value in (("dead_fraction", task + seed), ("train_accuracy", -task - seed))]
      >>> columns = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
      >>> from pliant.results import predictor_table
      >>> figure = predictor_figure(predictor_table(pd.DataFrame(rows, columns=columns), "train_accuracy"))
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['dead fraction', 'train accuracy']
    """
    if statistic not in ("correlation", "partial"):
        raise UserError(got=f"statistic={statistic!r}", wanted="'correlation' or 'partial'", do="Choose one of them.")
    shown = table.assign(condition=_conditions(table))
    values = shown.pivot(index="predictor", columns="condition", values=statistic)
    values = values.loc[values.notna().any(axis=1)]
    if not values.notna().to_numpy().any():
        raise UserError(
            got=f"no {statistic} that is a number",
            wanted="at least one",
            do="Use more seeds and tasks, or metrics that vary.",
        )
    order = values.mean(axis=1).abs().sort_values(ascending=False, kind="stable").index
    names = [name for name in order if name != TASK_NUMBER][:most] + [name for name in order if name == TASK_NUMBER]
    by_scope = shown[shown[statistic].notna()].sort_values("scope", ascending=False, kind="stable")
    columns = list(by_scope["condition"].unique())
    values = values.loc[names, columns]
    figure = Figure(figsize=(4.5 + 0.55 * len(columns), 2.2 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    colors = colormaps["PuOr_r"].with_extremes(bad="white")
    image = axes.imshow(values.to_numpy(float), cmap=colors, vmin=-1, vmax=1, aspect="auto")
    _write(axes, shown, statistic, values)
    flips = set(shown.loc[shown["flips" if statistic == "correlation" else "partial_flips"], "predictor"])
    labels = [literal(f"{_FLIP} {name}" if name in flips else name).replace("_", " ") for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xticks(range(len(columns)), [literal(name) for name in columns], rotation=60, ha="right", fontsize=8)
    axes.set_title(literal(title), fontsize=10)
    axes.spines[:].set_visible(False)
    label = "rank correlation" if statistic == "correlation" else "rank correlation at the same task"
    outcomes = table["outcome"].unique()
    of = "the outcome" if len(outcomes) > 1 else literal(str(outcomes[0]).replace("_", " "))
    figure.colorbar(image, ax=axes, label=f"{label} with {of}")
    figure.supxlabel(f"bold: the 95 % interval over seeds excludes 0; {_FLIP}: signs flip", fontsize=8)
    return figure


def _conditions(table: pd.DataFrame) -> pd.Series:
    """Names of columns, of what differs alone."""
    parts = [name for name in (*CONDITION, "outcome") if table[name].nunique() > 1]
    method = table["method"].replace({POOLED: "within methods", ACROSS: "across methods"})
    named = table[parts].astype(str).assign(method=method.astype(str)).agg(" ".join, axis=1)
    return named.str.replace("_", " ")


def _write(axes: Axes, shown: pd.DataFrame, statistic: str, values: pd.DataFrame) -> None:
    """The number of each cell."""
    ends = ("low", "high") if statistic == "correlation" else ("partial_low", "partial_high")
    low, high = (
        shown.pivot(index="predictor", columns="condition", values=end)
        .loc[values.index, values.columns]
        .to_numpy(float)
        for end in ends
    )
    is_certain = (low > 0) | (high < 0)
    for (row, column), value in np.ndenumerate(values.to_numpy(float)):
        if np.isfinite(value):
            weight = "bold" if is_certain[row, column] else "normal"
            color = "white" if abs(value) > _DARK else "black"
            text = f"{value:+.1f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, weight=weight, color=color)
