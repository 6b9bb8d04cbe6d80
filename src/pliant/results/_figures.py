"""Figures of a metric over tasks, drawn from stored metrics."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pliant.errors import UserError, unknown_name
from pliant.results._axes import begins_at_zero, said_of_axis
from pliant.results._column import CAPTION, WIDTH, for_column, legend_below
from pliant.results._look import line_style, literal
from pliant.results._picture_parts import over_rows

_HEIGHT = 4.0  # inches, without the legend


@for_column
def headline_figure(metrics: pd.DataFrame, headline: str, title: str, chance: float | None) -> Figure:
    """Draws a metric against the task: one line a method, mean over seeds, ± one standard error shaded.

    Use it to compare methods over a stream. The mean skips seeds without a finite number; the line skips tasks in which
    no seed has one. The axis of a share, such as an accuracy, begins at 0 unless all of its values are high; the legend
    then says so. Other axes scale to what is drawn.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      headline: the metric to draw, any in the table.
      title: above the axes.
      chance: chance level of the metric, drawn as a dotted line; None for none.

    Raises:
      UserError: if the table has no such metric, or no finite number of it.

    Example:
      >>> rows = [("a", seed, task, "train_accuracy", 0.5) for seed in range(2) for task in (1, 2, 3)]
      >>> table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> figure = headline_figure(table, "train_accuracy", "two seeds", chance=0.1)
      >>> figure.axes[0].lines[0].get_xydata().tolist()
      [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]
      >>> figure.legends[0].get_title().get_text()
      'mean over 2 seeds; band: ± one standard error'
    """
    chosen = finite_rows(metrics, headline)
    figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    drawn = [np.array([] if chance is None else [chance])]
    for place, (method, own) in enumerate(chosen.groupby("method", sort=False)):
        table = own.pivot(index="seed", columns="task", values="value")
        tasks, scores = table.columns.to_numpy(), table.to_numpy()
        mean, error = mean_and_error(scores)
        style = line_style(place)
        axes.plot(tasks, mean, **style, label=literal(str(method)))
        axes.fill_between(tasks, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
        drawn.append(mean)
    handles = list(axes.lines)
    if chance is not None:
        axes.axhline(chance, color="0.45", linestyle=(0, (1, 2)), linewidth=1.5, zorder=0)
        start = (chosen["task"].min(), chance)
        axes.annotate("chance", start, xytext=(0, 3), textcoords="offset points", color="0.35", fontsize=CAPTION)
    axes.set(xlabel="task", ylabel=literal(headline.replace("_", " ")), title=literal(title))
    if begins_at_zero(headline, np.concatenate(drawn)):
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    said = said_of_axis(headline, np.concatenate(drawn))
    legend_below(figure, handles, "; ".join(filter(None, (caption(chosen), said))))
    return figure


def mean_and_error(scores: Float[np.ndarray, "seed point"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds, and its standard error, which is 0 for a single one; both skip NaN."""
    counts = np.isfinite(scores).sum(axis=0)
    error = np.nan_to_num(over_rows("nanstd", scores) / np.sqrt(np.maximum(counts - 1, 1)))
    return over_rows("nanmean", scores), error


def finite_rows(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a metric with a finite number."""
    known = sorted({str(metric) for metric in metrics["metric"]})
    if name not in known:
        raise unknown_name("metric", name, known, do="Draw one that the run has stored.")
    chosen = metrics[(metrics["metric"] == name) & np.isfinite(metrics["value"])]
    if chosen.empty:
        raise UserError(
            got=f"the metric {name!r} without a finite number", wanted="at least one", do="Draw another metric."
        )
    return chosen


def caption(chosen: pd.DataFrame) -> str:
    """Explains lines and bands. Methods may have different numbers of seeds."""
    numbers = sorted(set(chosen.groupby("method", sort=False)["seed"].nunique()))
    if numbers == [1]:
        return "one seed, so without a band"
    seeds = " to ".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
    return f"mean over {seeds} seeds; band: ± one standard error"


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Writes a figure as PNG and PDF; `path` without suffix. Returns both paths."""
    path = Path(os.path.expanduser(path))
    name = path.stem if path.suffix in (".png", ".pdf") else path.name  # a dot may be in the name: adamo[b1=0.9]
    png, pdf = path.with_name(f"{name}.png"), path.with_name(f"{name}.pdf")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it is drawn as a box
        figure.savefig(png, dpi=160)
        figure.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf
