"""The table that ends a run."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table


def summary_table(summary: pd.DataFrame, seconds: Mapping[str, Sequence[float]], headline: str, title: str) -> Table:
    """Renders `summarize_run`'s rows: accuracy (mean ± standard error over seeds), network state, seconds.

    Args:
      summary: one row a method.
      seconds: wall time of every task, by method.
      headline: the accuracy that the stream is about.
      title: above the table.
    """
    last = {min(5, number) for number in summary["num_tasks"]}
    tasks = f"last {last.pop()} tasks" if len(last) == 1 else "last ≤ 5 tasks"
    table = Table(title=escape(f"{title}: {headline.replace('_', ' ')}"), title_justify="left")
    table.add_column("method")
    for name in (tasks, "first task", "dormant", "eff. rank", "isometry dev.", "seconds"):
        table.add_column(name, justify="right")
    show_diverged = bool((summary["num_diverged"] > 0).any())
    if show_diverged:
        table.add_column("diverged", justify="right")
    for row in summary.to_dict("records"):
        cells = [
            escape(str(row["method"])),
            f"{row['last_mean']:.3f} ± {_number(row['last_standard_error'], '.3f')}",
            _number(row["first_task"], ".3f"),
            _number(row["dormant_fraction"], ".3f"),
            _number(row["effective_rank"], ".3g"),
            _number(row["isometry_deviation"], ".3g"),
            f"{sum(seconds.get(str(row['method']), [])):.1f}",
        ]
        if show_diverged:
            cells.append(f"{row['num_diverged']} of {row['num_seeds']}")
        table.add_row(*cells)
    return table


def _number(value: float, form: str) -> str:
    """A number, or a dash where nothing could be measured."""
    return "–" if math.isnan(value) else format(value, form)
