"""Numbers of each seed, read from the metrics of runs: what claims compare."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd

from pliant.errors import UserError, unknown_name
from pliant.experiments._tables import Results
from pliant.results import LAST_TASKS, predictor_pairs, rank_correlation

Over: TypeAlias = Literal["early", "last", "first", "mean", "fall", "rise"]
"""Which tasks: those at the beginning or the end, the first one, or all; "fall" is early minus last, "rise" last minus
early."""


class NotMeasuredError(UserError):
    """Something that a claim compares was not measured."""


class Score(NamedTuple):
    """A metric of a method, as a number a seed.

    Example:
      >>> rows = [("adam", 0, task, "train_accuracy", 1 - task / 10) for task in range(1, 5)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> fall = Score("adam", "train_accuracy", "fall")
      >>> fall.by_seed({"": Results(metrics, "train_accuracy", 4)}).round(3).tolist()  # 0.85 − 0.65
      [0.2]
    """

    method: str
    """As the run's metrics call it: with its point of a grid, if there is one."""
    metric: str = ""
    """By default the headline of the run."""
    over: Over = "last"
    run: str = ""
    """The label of the run in its experiment; may be left out if there is only one."""
    window: int = LAST_TASKS
    """How many tasks are early, and last; at most half of them. Where tasks come in cycles, whole cycles."""

    def by_seed(self, results: Mapping[str, Results]) -> pd.Series:
        """The numbers, indexed by seed; NaN for seeds that were not measured where they had to be.

        Raises:
          NotMeasuredError: if the run, the method or the metric is not there.
          UserError: if `over` is none of the words.
        """
        if self.over not in get_args(Over):
            raise unknown_name("over", self.over, get_args(Over), do="Choose one of these.")
        table = _table(results, self.run, self.method, self.metric)
        num_tasks = _one(results, self.run).num_tasks
        return _reduced(table, self.over, self.window_of(num_tasks), num_tasks)

    def window_of(self, num_tasks: int) -> int:
        """How many tasks of a run are early, and last: at most half of them."""
        return max(1, min(self.window, num_tasks // 2))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it is about."""
        return (self.method,)

    @property
    def runs(self) -> tuple[str, ...]:
        """The labels of the runs that it reads."""
        return (self.run,)

    def __str__(self) -> str:
        """What it is, without what is usual: the headline in the last tasks."""
        what = self.metric.replace("_", " ") if self.over == "last" else f"{self.over} of {self._named()}"
        return " of ".join(filter(None, (what, self.method))) + (f" ({self.run})" if self.run else "")

    def _named(self) -> str:
        return self.metric.replace("_", " ") or "the headline"


class Gap(NamedTuple):
    """By how much one score exceeds another, a number a seed: to compare margins.

    Example:
      >>> rows = [(method, 0, 1, "accuracy", value) for method, value in (("adam", 0.5), ("adamo", 0.75))]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> Gap(Score("adamo"), Score("adam")).by_seed({"": Results(metrics, "accuracy", 1)}).tolist()
      [0.25]
    """

    more: Score
    less: Score

    def by_seed(self, results: Mapping[str, Results]) -> pd.Series:
        """The differences, indexed by the seeds that both scores have.

        Raises:
          NotMeasuredError: if a run, a method or a metric is not there.
        """
        more, less = self.more.by_seed(results), self.less.by_seed(results)
        return (more - less).loc[more.index.intersection(less.index)]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it is about."""
        return (*self.more.methods, *self.less.methods)

    @property
    def runs(self) -> tuple[str, ...]:
        """The labels of the runs that it reads."""
        return (*self.more.runs, *self.less.runs)

    def __str__(self) -> str:
        """Both scores."""
        return f"({self.more} − {self.less})"


class Association(NamedTuple):
    """How two metrics go together: Spearman's rank correlation over runs, methods and tasks, a number a seed.

    Example:
      >>> rows = [("adam", 0, task, name, sign * task) for task in range(1, 5) for name, sign in (("a", 1), ("b", -1))]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> Association(("adam",), "a", "b").by_seed({"": Results(metrics, "a", 4)}).tolist()
      [-1.0]
    """

    methods: tuple[str, ...]
    x: str
    y: str
    runs: tuple[str, ...] = ("",)
    """The labels of the runs in their experiment; may be left out if there is only one."""

    def __str__(self) -> str:
        """What is correlated, and where."""
        x, y = (name.replace("_", " ") for name in (self.x, self.y))
        where = f" ({len(self.runs)} runs)" if len(self.runs) > 2 else f" ({' and '.join(self.runs)})"
        return f"correlation of {x} and {y}" + (where if any(self.runs) else "")

    def by_seed(self, results: Mapping[str, Results]) -> pd.Series:
        """The correlations, indexed by seed; NaN where one of the metrics is constant or was measured fewer than three
        times, and for seeds without numbers of a run or a method.

        Raises:
          NotMeasuredError: if the run, a method or a metric is not there.
        """
        import scipy.stats  # takes a second

        named = {"x": self.x, "y": self.y}
        tables = [
            pd.DataFrame({name: _table(results, run, method, metric).stack() for name, metric in named.items()})
            for run in self.runs
            for method in self.methods
        ]
        seeds = {seed for table in tables for seed in table.index.unique("seed")}
        measured = [table.dropna() for table in tables]
        whole = set.intersection(*(set(table.index.unique("seed")) for table in measured))
        found = dict.fromkeys(sorted(seeds), np.nan)
        for seed, own in pd.concat(measured).groupby(level="seed"):
            if seed in whole and len(own) >= 3 and min(own["x"].nunique(), own["y"].nunique()) > 1:
                found[seed] = float(scipy.stats.spearmanr(own["x"], own["y"]).statistic)
        return pd.Series(found, dtype=float)


class Prediction(NamedTuple):
    """How well a metric orders networks at the same task by what they then learn in the next, a number a seed.

    Spearman's rank correlation over methods and tasks, the mean of each task subtracted, averaged over runs.

    Example:
      >>> rows = [(method, 0, task, name, sign * number) for task in (1, 2, 3) for number, method in enumerate("abc")
      ...         for name, sign in (("rank", 1), ("accuracy", 10))]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> Prediction("rank", {"labels": "accuracy"}).by_seed({"labels": Results(metrics, "accuracy", 3)}).tolist()
      [1.0]
    """

    predictor: str
    outcomes: Mapping[str, str]
    """By the label of the run, what is predicted there; see `pliant.results.predictor_pairs`."""

    def __str__(self) -> str:
        """What predicts."""
        return f"prediction by {self.predictor.replace('_', ' ')}"

    @property
    def methods(self) -> tuple[str, ...]:
        """No method in particular: all of the runs."""
        return ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The labels of the runs that it reads."""
        return tuple(self.outcomes)

    def by_seed(self, results: Mapping[str, Results]) -> pd.Series:
        """The correlations, indexed by seed; NaN where a metric does not vary, or has three finite points at most.

        Raises:
          NotMeasuredError: if a run or a metric is not there.
        """
        found = [_predicted(_one(results, run), self.predictor, outcome) for run, outcome in self.outcomes.items()]
        return pd.concat(found, axis=1, join="inner").mean(axis=1, skipna=False)


Quantity: TypeAlias = Score | Gap | Association | Prediction


def as_one_problem(results: Results, name: str = "") -> pd.DataFrame:
    """The metrics as `pliant.results.predictor_pairs` takes them, with the name of the run as the problem."""
    return results.metrics.assign(problem=name, dataset="", network="")


def _predicted(of_run: Results, predictor: str, outcome: str) -> pd.Series:
    try:
        pairs = predictor_pairs(as_one_problem(of_run), outcome, [predictor])
    except UserError as error:
        raise not_measured(f"{predictor} and {outcome}") from error
    pairs = pairs[np.isfinite(pairs["x"]) & np.isfinite(pairs["y"])]
    found = {}
    for seed, own in pairs.groupby("seed"):
        x, y, seeds, tasks = (own[name].to_numpy() for name in ("x", "y", "seed", "after"))
        found[seed] = rank_correlation(x, y, seeds, tasks).correlation
    return pd.Series(found, dtype=float)


def _one(results: Mapping[str, Results], run: str) -> Results:
    if run in results:
        return results[run]
    if not run and len(results) == 1:
        return next(iter(results.values()))
    raise not_measured(f"the run {run}".rstrip())


def _table(results: Mapping[str, Results], run: str, method: str, metric: str) -> pd.DataFrame:
    """A metric of a method, a row a seed and a column a task."""
    of_run = _one(results, run)
    metric = metric or of_run.headline
    found = of_run.of(method, metric)
    if found is None:
        raise not_measured(f"{metric} of {method}")
    return found


def not_measured(what: str) -> NotMeasuredError:
    """The error that something was not measured."""
    return NotMeasuredError(got=f"no results of {what}", wanted="a run with it", do="Run it with `pliant reproduce`.")


def _reduced(table: pd.DataFrame, over: Over, window: int, num_tasks: int) -> pd.Series:
    """One number a seed. A metric that is not measured after every task counts where it is."""
    tasks = table.columns.to_numpy(int)

    def mean(chosen: np.ndarray) -> pd.Series:
        own = table.loc[:, chosen].dropna(axis=1, how="all")
        return own.mean(axis=1, skipna=False) if own.shape[1] else pd.Series(np.nan, table.index)

    if over in ("fall", "rise") and 2 * window > num_tasks:  # of a single task
        return pd.Series(np.nan, table.index)
    match over:
        case "last":
            return mean(tasks > num_tasks - window)
        case "early":
            return mean(tasks <= window)
        case "first":
            return mean(tasks == 1)
        case "mean":
            return mean(tasks > 0)
        case "fall":
            return mean(tasks <= window) - mean(tasks > num_tasks - window)
        case "rise":
            return mean(tasks > num_tasks - window) - mean(tasks <= window)
