"""The tables that are printed: the summary of a run, and the results of diagnostics."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from rich.markup import escape
from rich.table import Table

from pliant.results._text_table import terminal_table, text_table


def summary_table(summary: pd.DataFrame, seconds: Mapping[str, Sequence[float]], headline: str, title: str) -> Table:
    """Renders the rows of `summarize_run`: scores (mean ± standard error over seeds), network state, seconds.

    Of runs in several environments the scores are those of the last task in each.

    Args:
      summary: from `summarize_run`.
      seconds: wall time of every task, by method.
      headline: the headline metric of the run.
      title: above the table.
    """
    return terminal_table(_above(summary, headline, title), _cells(summary, seconds, has_interval=False))


def summary_text(
    summary: pd.DataFrame,
    seconds: Mapping[str, Sequence[float]],
    headline: str,
    title: str,
    format: Literal["csv", "markdown", "latex"],
) -> str:
    r"""The table of `summary_table` as text for other programs, with the interquartile mean and its 95 % interval.

    Args:
      summary: from `summarize_run`.
      seconds: wall time of every task, by method.
      headline: the headline metric of the run.
      title: above the table; in LaTeX a comment.
      format: "csv" has all columns of `summarize_run` with all digits; "markdown" and "latex" have what is printed.

    Returns:
      The text, ending in a newline.

    Example:
      >>> from pliant.results import summarize_run
      >>> rows = [("a_b", seed, 1, "train_accuracy", 0.5) for seed in range(3)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> print(summary_text(summarize_run(metrics, "train_accuracy"), {}, "train_accuracy", "one task", "latex"))
      % one task: train accuracy
      \begin{tabular}{lrrrrrrr}
      \hline
      method & last task & IQM [95 \%] & first task & dormant & eff. rank & isometry dev. & seconds \\
      \hline
      a\_b & 0.500 $\pm$ 0.000 & 0.500 [0.500, 0.500] & 0.500 & -- & -- & -- & 0.0 \\
      \hline
      \end{tabular}
    """
    if format == "csv":
        times = [sum(seconds.get(str(method), [])) for method in summary["method"]]
        return summary.assign(seconds=times).to_csv(index=False, lineterminator="\n")
    return text_table(_above(summary, headline, title), _cells(summary, seconds, has_interval=True), format)


def _cells(summary: pd.DataFrame, seconds: Mapping[str, Sequence[float]], *, has_interval: bool) -> list[list[str]]:
    """The header, then a row a method."""
    last = {min(5, number) for number in summary["num_tasks"]}
    tasks = "last ≤ 5 tasks" if len(last) > 1 else "last task" if last == {1} else f"last {last.pop()} tasks"
    environments = {f"/{name}": name.replace("_", " ") for name in _environments(summary)}
    scores = environments or {"": tasks}
    interval = ["IQM [95 %]"] if has_interval else []
    first = [] if environments else ["first task"]
    dead = ["dead phases"] if "num_phases" in summary else []
    diverged = ["diverged"] if (summary["num_diverged"] > 0).any() else []
    speed = ["env steps/s"] if "env_steps" in summary else []
    numbers = [*first, *dead, "dormant", "eff. rank", "isometry dev.", "seconds", *speed]
    rows = [["method", *(text for name in scores.values() for text in (name, *interval)), *numbers, *diverged]]
    for row in summary.to_dict("records"):
        time = sum(seconds.get(str(row["method"]), []))
        rows.append(
            [
                str(row["method"]),
                *[cell for suffix in scores for cell in _score(row, suffix)[: 1 + len(interval)]],
                *[_number(row["first_task"], ".3f") for _ in first],
                *[f"{row['num_dead_phases']:.0f} of {row['num_phases']:.0f}" for _ in dead],
                _number(row.get("dormant_fraction", math.nan), ".3f"),
                _number(row.get("effective_rank", math.nan), ".3g"),
                _number(row.get("isometry_deviation", math.nan), ".3g"),
                f"{time:.1f}",
                *[_number(row["env_steps"] / time if time else math.nan, ",.0f") for _ in speed],
                *[f"{row['num_diverged']} of {row['num_seeds']}" for _ in diverged],
            ]
        )
    return rows


def _above(summary: pd.DataFrame, headline: str, title: str) -> str:
    where = " in the last task of each environment" if _environments(summary) else ""
    return f"{title}: {headline.replace('_', ' ')}{where}"


def _environments(summary: pd.DataFrame) -> list[str]:
    """The environments of which a summary has scores, if they are several."""
    return [name.partition("/")[2] for name in map(str, summary) if name.startswith("last_mean/")]


def _score(row: Mapping[Hashable, Any], suffix: str) -> list[str]:
    """A mean with its standard error, then the interquartile mean with its interval; dashes if nothing was scored."""
    if math.isnan(row[f"last_mean{suffix}"]):
        return ["–", "–"]
    names = ("mean", "standard_error", "iqm", "iqm_low", "iqm_high")
    mean, error, iqm, low, high = (_number(row[f"last_{name}{suffix}"], ".3f") for name in names)
    return [f"{mean} ± {error}", f"{iqm} [{low}, {high}]"]


def diagnosis_table(
    title: str,
    found: Mapping[str, Mapping[str, float]],
    summaries: Mapping[str, str],
    reasons: Mapping[str, str],
    notes: Mapping[str, str] | None = None,
) -> Table:
    """Renders the results of diagnostics: one row a metric, with the numbers of single layers beside the pooled one.

    Args:
      title: above the table.
      found: by diagnostic and metric; a layer's number is named metric/layer.
      summaries: one line for each diagnostic.
      reasons: why other diagnostics were not measured.
      notes: why layers and parameters were not measured, or not by all diagnostics.
    """
    table = Table(title=escape(title), title_justify="left")
    for name, justify in (("diagnostic", "left"), ("metric", "left"), ("value", "right"), ("by layer", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, numbers in found.items():
        first = f"[bold]{escape(name)}[/bold]: {escape(summaries[name])}"
        for metric in dict.fromkeys(each.partition("/")[0] for each in numbers):
            layers = {key.partition("/")[2]: value for key, value in numbers.items() if key.startswith(f"{metric}/")}
            each = "  ".join(f"{escape(layer)} {_number(value, '.3g')}" for layer, value in layers.items())
            table.add_row(first, escape(metric), _number(numbers.get(metric, math.nan), ".4g"), each)
            first = ""
        table.add_section()
    for name, reason in reasons.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", "", "", escape(f"not measured: {reason}"))
    table.add_section()
    for name, note in (notes or {}).items():
        table.add_row(escape(name), "", "", escape(note))
    return table


def _number(value: float, form: str) -> str:
    """A number, or a dash if nothing could be measured."""
    return "–" if math.isnan(value) else format(value, form)
