"""Figures, drawn from stored metrics."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_DASHES = ("-", "--", ":", "-.")
_COLORS = matplotlib.color_sequences["tab10"]


def headline_figure(metrics: pd.DataFrame, headline: str, title: str, chance: float | None) -> Figure:
    """Draws the headline metric against the task: one line a method, mean over seeds, ± one standard error shaded.

    Args:
      metrics: in long form, as in `metrics.parquet`.
      headline: the metric to draw.
      title: above the axes.
      chance: the headline of guessing, drawn as a dotted line; None for none.

    Example:
      >>> rows = [("a", seed, task, "train_accuracy", 0.5) for seed in range(2) for task in range(3)]
      >>> table = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> figure = headline_figure(table, "train_accuracy", "two seeds", chance=0.1)
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [0.5, 0.5, 0.5]
    """
    chosen = metrics[metrics["metric"] == headline]
    figure = Figure(figsize=(7.0, max(4.2, 0.22 * chosen["method"].nunique())), layout="constrained")
    axes = figure.subplots()
    for i, (method, own) in enumerate(chosen.groupby("method", sort=False)):
        table = own.pivot(index="seed", columns="task", values="value")
        scores, tasks = table.to_numpy(), table.columns.to_numpy() + 1
        mean, num_seeds = scores.mean(axis=0), len(scores)
        error = scores.std(axis=0, ddof=1) / np.sqrt(num_seeds) if num_seeds > 1 else np.zeros_like(mean)
        color = _COLORS[i % len(_COLORS)]
        dashes = _DASHES[i // len(_COLORS) % len(_DASHES)]
        axes.plot(tasks, mean, color=color, linestyle=dashes, label=str(method), marker="o", markersize=3)
        axes.fill_between(tasks, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color="0.6", linestyle=":", linewidth=1)
        axes.annotate("chance", (1, chance), xytext=(0, 3), textcoords="offset points", color="0.5", fontsize=8)
    axes.set(xlabel="task", ylabel=headline.replace("_", " "), title=title)
    axes.set_ylim(0.0, None if headline.endswith("error") else 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Writes a figure as PNG and PDF; `path` without suffix. Returns both paths."""
    name = path.stem if path.suffix in (".png", ".pdf") else path.name  # a dot may be in the name: adamo[b1=0.9]
    png, pdf = path.with_name(f"{name}.png"), path.with_name(f"{name}.pdf")
    figure.savefig(png, dpi=160)
    figure.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf
