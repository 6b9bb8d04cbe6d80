"""The record of an experiment: which runs were made, where and when, and what they measured."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pliant.experiments._experiment import Experiment
from pliant.experiments._quantities import NotMeasuredError, Score
from pliant.experiments._tables import Results
from pliant.experiments.benchmarks import Scale

_TASKS = {
    "last": "last {}",
    "early": "first {}",
    "first": "first task",
    "mean": "all tasks",
    "fall": "fall from the first to the last {}",
    "rise": "rise from the first to the last {}",
}
_COLUMNS = ["run", "method", "metric", "over", "window", "mean", "error", "num_seeds"]


def run_cells(experiment: Experiment, results: Mapping[str, Results], scale: Scale = "cpu") -> list[list[str]]:
    """The runs of an experiment as cells of a table, the header first, for `pliant.results.text_table` and its like.

    Args:
      experiment: whose.
      results: those that there are, by the label of the run.
      scale: of the results.

    Example:
      >>> from pliant.experiments import EXPERIMENTS
      >>> for row in run_cells(EXPERIMENTS["isometry/continual-octax"], {}):
      ...     print(row)
      ['run', 'benchmark', 'seeds × tasks', 'minutes', 'date', 'machine']
      ['octax', 'isometry/continual-octax', '1 × 6', 'not run', '–', '–']
    """
    cells = [["run", "benchmark", "seeds × tasks", "minutes", "date", "machine"]]
    for label, benchmark in experiment.benchmarks.items():
        config = benchmark.configs[scale]
        record = results[label].record if label in results else {}
        about = record.get("environment", {})
        machine = f"{about['processor']}, {about['cores']} cores" if "processor" in about else "–"
        minutes = f"{sum(record['minutes'].values()):.0f}" if "minutes" in record else "not run"
        if label in results and (lacks := results[label].lacks):
            minutes = f"{minutes} ({lacks})" if record else lacks
        size = f"{config.seeds} × {config.tasks}"
        cells.append([label, benchmark.name, size, minutes, record.get("date", "–"), machine])
    return cells


def score_table(results: Mapping[str, Results], scores: Iterable[Score]) -> pd.DataFrame:
    """Evaluates scores for all methods of all runs.

    Use it for the numbers behind the figure of an experiment, or to look at another metric of the same runs.

    Args:
      results: by the label of the run, such as those of `stored_results`.
      scores: what to evaluate; their methods and runs are replaced by each of the results'.

    Returns:
      A row for each score, run and method that was measured. Columns: `run`; `method`; `metric`; `over` and `window`,
      see `Score`; `mean` and `error`, the standard error over seeds, which are NaN if one of the seeds has no number;
      `num_seeds`, of those that have one.

    Raises:
      NotMeasuredError: if there are no runs, or none has a metric.

    Example:
      >>> rows = [(m, s, 1, "accuracy", s / 10 + 0.5 * (m == "a")) for m in "ab" for s in range(3)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> score_table({"digits": Results(metrics, "accuracy", 1)}, [Score("")]).round(3).values.tolist()
      [['digits', 'a', 'accuracy', 'last', 1, 0.6, 0.058, 3], ['digits', 'b', 'accuracy', 'last', 1, 0.1, 0.058, 3]]
    """
    if not results:
        raise NotMeasuredError(got="no results", wanted="at least one run", do="Run it with `pliant reproduce`.")
    rows = []
    for score in scores:
        found = [row for run, of_run in results.items() for row in _of_run(run, of_run, score)]
        if not found:
            known = sorted({name for each in results.values() for name in each.metrics["metric"] if "/" not in name})
            raise NotMeasuredError(
                got=f"no results of {score.metric or 'the headline'}",
                wanted=f"one of {', '.join(known)}" if known else "a run with a finished task",
                do="Choose another metric." if known else "Run it with `pliant reproduce`.",
            )
        rows += found
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_run(run: str, of_run: Results, score: Score) -> list[tuple[Any, ...]]:
    metric = score.metric or of_run.headline
    window = {"first": 1, "mean": of_run.num_tasks}.get(score.over, score.window_of(of_run.num_tasks))
    found: list[tuple[Any, ...]] = []
    for method in of_run.metrics["method"].unique():
        try:
            by_seed = score._replace(method=method, metric=metric, run=run).by_seed({run: of_run}).to_numpy()
        except NotMeasuredError:
            continue
        with np.errstate(invalid="ignore"):  # of infinite numbers
            error = float(by_seed.std(ddof=1)) / math.sqrt(len(by_seed)) if len(by_seed) > 1 else math.nan
        number = int((~np.isnan(by_seed)).sum())
        found.append((run, method, metric, score.over, window, float(by_seed.mean()), error, number))
    return found


def score_title(table: pd.DataFrame) -> str:
    """What a table of scores shows, in words.

    Args:
      table: from `score_table`; all scores over the same tasks.

    Example:
      >>> rows = [("mlp", "sgd", "a_loss", "last", 5, 0.5, 0.01, 3), ("cnn", "sgd", "a_loss", "last", 2, 1, 0.1, 3)]
      >>> score_title(pd.DataFrame(rows, columns=_COLUMNS))
      'a loss, last ≤ 5 tasks (mean ± standard error)'
    """
    metrics, windows = table["metric"].unique(), table["window"].unique()
    named = f"{metrics[0].replace('_', ' ')}, " if len(metrics) == 1 else ""
    number = f"{'≤ ' if len(windows) > 1 else ''}{max(windows)} tasks" if max(windows) > 1 else "task"
    return f"{named}{_TASKS[table['over'].iloc[0]].format(number)} (mean ± standard error)"


def score_cells(table: pd.DataFrame) -> list[list[str]]:
    """The cells of a table of scores, the header first, for `pliant.results.text_table` and its like.

    Methods go down and runs and metrics across, or the other way round if these are more. Of a single method runs go
    down and metrics across.

    Args:
      table: from `score_table`.

    Example:
      >>> rows = [("mlp", "sgd", "loss", "last", 5, 0.5, 0.01, 3), ("cnn", "sgd", "loss", "last", 5, 12.5, math.nan, 1)]
      >>> score_cells(pd.DataFrame(rows, columns=_COLUMNS))
      [['sgd', 'loss'], ['mlp', '0.500 ± 0.010'], ['cnn', '12.5 ± –']]
    """
    shown = table.assign(
        cell=[_shown(mean, error) for mean, error in zip(table["mean"], table["error"], strict=True)],
        metric=[metric.replace("_", " ") for metric in table["metric"]],
    )
    methods = shown["method"].unique()
    varying = [name for name in ("run", "metric", "over") if shown[name].nunique() > 1]
    if len(methods) == 1 and "over" not in varying:
        return _pivoted(shown, "run", "metric", methods[0])
    shown["column"] = [", ".join(row) for row in shown[varying or ["metric"]].to_numpy()]
    if shown["column"].nunique() > len(methods):
        return _pivoted(shown, "column", "method", "")
    return _pivoted(shown, "method", "column", "method")


def frame_cells(table: pd.DataFrame) -> list[list[str]]:
    """The cells of a further table of an experiment, the header first: numbers with two decimals, and their intervals.

    Args:
      table: see `Experiment.tables`. Columns of texts, numbers and truth values; `low` and `high`, if there are, are
        the interval of the column before them.

    Example:
      >>> frame_cells(pd.DataFrame({"of": ["a"], "rho": [0.5], "low": [0.25], "high": [0.75], "flips": [True]}))
      [['of', 'rho', 'flips'], ['a', '0.50 [0.25, 0.75]', 'yes']]
    """
    shown = {name: [_plain(value) for value in table[name]] for name in table}
    if "low" in shown:
        before = list(shown)[list(shown).index("low") - 1]
        intervals = zip(shown.pop("low"), shown.pop("high"), strict=True)
        shown[before] = [f"{mid} [{low}, {high}]" for mid, (low, high) in zip(shown[before], intervals, strict=True)]
    return [[str(name).replace("_", " ") for name in shown], *map(list, zip(*shown.values(), strict=True))]


def _plain(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"
    return str(value).replace("_", " ") or "–"


def _pivoted(shown: pd.DataFrame, down: str, across: str, corner: str) -> list[list[str]]:
    cells = {(row, column): cell for row, column, cell in shown[[down, across, "cell"]].to_numpy()}
    columns = shown[across].unique()
    rows = [[row, *(cells.get((row, column), "–") for column in columns)] for row in shown[down].unique()]
    return [[corner, *columns], *rows]


def _shown(mean: float, error: float) -> str:
    """Three decimals, or three digits of a large number; a dash where a seed has no number."""
    if math.isnan(mean):
        return "–"
    decimals = 3 if abs(mean) < 10 else 1 if abs(mean) < 100 else 0
    form = f".{decimals}f" if abs(mean) < 1e5 else ".3g"
    mean = round(mean, decimals) + 0.0  # no -0
    return f"{mean:{form}} ± " + ("–" if math.isnan(error) else f"{error:{form}}")
