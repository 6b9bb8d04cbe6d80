"""The tables that are printed: what ends a run, and what a diagnosis found."""

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
            _number(row.get("dormant_fraction", math.nan), ".3f"),
            _number(row.get("effective_rank", math.nan), ".3g"),
            _number(row.get("isometry_deviation", math.nan), ".3g"),
            f"{sum(seconds.get(str(row['method']), [])):.1f}",
        ]
        if show_diverged:
            cells.append(f"{row['num_diverged']} of {row['num_seeds']}")
        table.add_row(*cells)
    return table


def diagnosis_table(
    title: str,
    found: Mapping[str, Mapping[str, float]],
    summaries: Mapping[str, str],
    reasons: Mapping[str, str],
) -> Table:
    """Renders what diagnostics found: a row a metric, numbers of single layers beside the pooled one.

    Args:
      title: above the table.
      found: by diagnostic and metric; a layer's number is named metric/layer.
      summaries: what each diagnostic is, in a line.
      reasons: why others were not measured.
    """
    table = Table(title=escape(title), title_justify="left")
    for name, justify in (("diagnostic", "left"), ("metric", "left"), ("value", "right"), ("by layer", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, numbers in found.items():
        first = f"[bold]{escape(name)}[/bold]: {escape(summaries[name])}"
        for metric in dict.fromkeys(each.partition("/")[0] for each in numbers):
            layers = {key.partition("/")[2]: value for key, value in numbers.items() if key.startswith(f"{metric}/")}
            each = "  ".join(f"{escape(layer)} {_number(value, '.3g')}" for layer, value in layers.items())
            table.add_row(first, escape(metric), _number(numbers.get(metric, math.nan), ".4g"), each)
            first = ""
        table.add_section()
    for name, reason in reasons.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", "not measured", "", escape(reason))
    return table


def _number(value: float, form: str) -> str:
    """A number, or a dash where nothing could be measured."""
    return "–" if math.isnan(value) else format(value, form)
