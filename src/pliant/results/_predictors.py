"""Which diagnostics predict how well the next task is learned: rank correlations over stored metrics."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pliant.errors import UserError, require_range, unknown_name
from pliant.results._metric_parts import AT_START
from pliant.results._rank_correlation import RankCorrelation, rank_correlation, ranks_correlation, with_interval

ACROSS = "(across)"
"""What stands for the method where all are compared."""

POOLED = "(pooled)"
"""What stands for the method where all are taken together, without what distinguishes them."""

SCOPES = ("within", "pooled", "across")
"""What is correlated: see `predictor_table`."""

CONDITION = ("problem", "dataset", "network")
"""Columns that make a condition of a study; within methods, also the method."""

TASK_NUMBER = "(task number)"
"""A predictor that knows nothing but how many tasks were learned: what a diagnostic must be better than."""

LOSS_REDUCED = "loss_reduced"
"""The outcome that is not a stored metric: `start_probe_loss` − `probe_loss` of a task."""

_OF_A_NEXT_TASK = {
    "probe_plasticity": ("probe_final_loss", "probe_initial_loss", "probe_loss_increase"),
    "excess_loss_plasticity": ("num_skipped_tasks",),
}
"""Outcomes that are of a next task although measured at the end of one, and what is measured with them."""

_NEVER = ("env_steps", "diverged", "dead_phase")


def predictor_pairs(
    metrics: pd.DataFrame, outcome: str = LOSS_REDUCED, predictors: Sequence[str] | None = None
) -> pd.DataFrame:
    """Joins what was measured before a task with what was then learned in it.

    Use it to look at single points; `predictor_table` correlates them.

    A metric from the end of task t, and one from the start of task t + 1 (`start_…`), predict what is learned in task
    t + 1. `probe_plasticity` and `excess_loss_plasticity` of the end of task t are themselves about a next task, so
    these outcomes belong to metrics of the same moment.

    Args:
      metrics: in long form, see `RunFolder.metrics`; of several runs, one after the other.
      outcome: a metric of the task, such as "train_accuracy"; with its sign changed, as in "-probe_loss"; or
        "loss_reduced", the loss on the probe examples at the start minus that at the end. A network that begins with
        confident mistakes reduces its loss most: look at "-probe_loss" as well.
      predictors: metrics; by default all but those of single layers, and those that belong to the outcome.

    Returns:
      Columns `problem`, `dataset`, `network`, `method`, `seed`, `after` (how many tasks were learned before),
      `predictor`, `x`, `y`. Values that are not finite are kept: `predictor_table` counts them.

    Raises:
      UserError: if the table lacks a metric or a column, or has one measured twice at the same moment.

    Example:
      >>> rows = [("p", "a", "n", "d", 0, task, 9, metric, value) for task in (1, 2)
      ...         for metric, value in (("dormant_fraction", 0.1 * task), ("train_accuracy", 1.0 / task))]
      >>> columns = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
      >>> pairs = predictor_pairs(pd.DataFrame(rows, columns=columns), "train_accuracy", ["dormant_fraction"])
      >>> pairs[["after", "predictor", "x", "y"]].values.tolist()
      [[1, 'dormant_fraction', 0.1, 0.5]]
    """
    of_network = [*CONDITION, "method", "seed"]
    lacking = {*of_network, "task", "metric", "value"} - set(metrics)
    if lacking:
        raise UserError(
            got=f"a table without {', '.join(sorted(lacking))}",
            wanted="the columns of RunFolder.metrics",
            do="Pass the metrics of a run, or of several with pandas.concat.",
        )
    found = metrics[[*of_network, "task", "metric", "value"]].astype({"value": float})
    at_start = found["metric"].str.startswith(AT_START)
    found["after"] = found["task"] - at_start
    key = [*of_network, "after", "metric"]
    if found.duplicated(key).any():
        raise UserError(
            got=f"two values of {found.loc[found.duplicated(key), 'metric'].iloc[0]!r} at the same moment",
            wanted="every run once, and different problems, networks or data sets for different settings",
            do="Rename the column `problem` of one of them.",
        )
    y = _outcomes(found, outcome).rename(columns={"value": "y"})
    if predictors is None:
        named = outcome.removeprefix("-")
        never = {*_NEVER, *((named, *_OF_A_NEXT_TASK[named]) if named in _OF_A_NEXT_TASK else ())}
        found = found[~found["metric"].str.contains("/") & ~found["metric"].isin(never)]
    else:
        for name in predictors:
            _metric(found, name)
        found = found[found["metric"].isin(list(predictors))]
    chosen = found.rename(columns={"metric": "predictor", "value": "x"})
    joined = chosen.merge(y, on=[*of_network, "after"])
    return joined[[*of_network, "after", "predictor", "x", "y"]].reset_index(drop=True)


def _outcomes(found: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """The outcome of each moment: what was learned in the task after it."""
    if outcome.startswith("-"):
        positive = _outcomes(found, outcome[1:])
        return positive.assign(value=-positive["value"])
    key = [*CONDITION, "method", "seed", "after"]
    if outcome == LOSS_REDUCED:
        first, last = (_metric(found, name) for name in (f"{AT_START}probe_loss", "probe_loss"))
        both = first.merge(last.assign(after=last["after"] - 1), on=key, suffixes=("", "_last"))
        return both.assign(value=both["value"] - both["value_last"])[[*key, "value"]]
    own = _metric(found, outcome)
    is_late = not outcome.startswith(AT_START) and outcome not in _OF_A_NEXT_TASK
    return own.assign(after=own["after"] - is_late)[[*key, "value"]]


def _metric(found: pd.DataFrame, name: str) -> pd.DataFrame:
    own = found[found["metric"] == name]
    if own.empty:
        known = sorted({str(metric) for metric in found["metric"]})
        do = "Run with --diagnostics start-loss,probe-loss." if "probe_loss" in name else "Choose a stored metric."
        raise unknown_name("metric", name, known, do=do)
    return own


def predictor_table(
    metrics: pd.DataFrame,
    outcome: str = LOSS_REDUCED,
    predictors: Sequence[str] | None = None,
    *,
    scopes: Sequence[str] = SCOPES,
    confidence: float = 0.95,
) -> pd.DataFrame:
    r"""Correlates diagnostics with how well the next task was learned, within and across methods.

    Use it to ask which diagnostic predicts plasticity, and whether it does so everywhere.

    - **within** a method: over its seeds and tasks. One row for each condition, method and diagnostic. `partial` is the
      correlation after subtracting the mean of each task from the ranks: both diagnostics and outcomes drift along a
      stream, and drifts correlate whether or not one is about the other.
    - **pooled**: within all methods at once. The mean of each method is subtracted from the ranks; `partial` subtracts
      that of each method's task. More points than of one method, and one number for a condition.
    - **across** methods: of the methods' means over seeds and tasks, at least three. `partial` takes the means over
      seeds of every task, and subtracts the mean of the task.

    See `rank_correlation` for the intervals. The predictor "(task number)" is a baseline that knows only the trend.

    A diagnostic **flips** if its correlation is significantly positive in one condition and significantly negative in
    another, as Lyle et al. show of four diagnostics: then it cannot be a cause of plasticity. Significant means p below
    1 − `confidence` after Bonferroni's correction for the number of conditions of that diagnostic. A flip is searched
    in each scope separately.

    Args:
      metrics: as for `predictor_pairs`, as are `outcome` and `predictors`.
      outcome: what is to be predicted; larger must mean more plastic for signs to read that way.
      predictors: metrics.
      scopes: which of the three to compute.
      confidence: of the intervals, in [0.5, 1).

    Returns:
      Columns `problem`, `dataset`, `network`, `method` ("(pooled)" or "(across)" for all), `scope` ("within", "pooled"
      or "across"), `outcome`, `predictor`, `correlation`, `low`, `high`, `p_value`, `partial`, `partial_low`,
      `partial_high`, `partial_p_value`, `num_points`, `num_seeds`, `num_dropped` (pairs without two finite numbers),
      `flips` and `partial_flips`. A correlation is NaN where a metric does not vary.

    Raises:
      UserError: as `predictor_pairs`, for an unknown scope, and if nothing can be joined.

    Example:
      >>> rows = [("p", "a", "n", "d", seed, task, 9, metric, value) for seed in range(3) for task in (1, 2, 3)
      ...         for metric, value in (("dead_fraction", task + seed), ("train_accuracy", -task - seed))]
      >>> columns = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
      >>> table = predictor_table(pd.DataFrame(rows, columns=columns), "train_accuracy")
      >>> table.loc[table["predictor"] == "dead_fraction", ["scope", "correlation", "partial"]].values.tolist()
      [['within', -1.0, -1.0]]

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 4.2
      and figure 3.

    Differs from:
      Their figure: scatter plots with one point a run, where the sign is judged by eye.
    """
    require_range("confidence", confidence, 0.5, 1 - 1e-9, do="0.95 is usual.")
    if not scopes:
        raise UserError(got="no scope", wanted=f"some of {', '.join(SCOPES)}", do="Leave `scopes` out for all.")
    for scope in scopes:
        if scope not in SCOPES:
            raise unknown_name("scope", scope, SCOPES, do="Choose among these.")
    pairs = predictor_pairs(metrics, outcome, predictors)
    if pairs.empty:
        raise UserError(
            got="metrics in which no task follows a measurement",
            wanted="at least two tasks, or diagnostics from the start of a task",
            do="Run more tasks.",
        )
    pairs = pd.concat([pairs, _task_numbers(pairs)], ignore_index=True)
    pairs["is_finite"] = np.isfinite(pairs["x"]) & np.isfinite(pairs["y"])
    rows: list[dict[str, Any]] = []
    for names, of_condition in pairs.groupby([*CONDITION, "predictor"], sort=False):
        common = dict(zip((*CONDITION, "predictor"), names, strict=True)) | {"outcome": outcome}
        if "within" in scopes:
            for method, own in of_condition.groupby("method", sort=False):
                rows.append(common | {"method": method, "scope": "within"} | _row(own, _within(own, confidence)))
        if of_condition["method"].nunique() > 1:
            for scope, name, found in (("pooled", POOLED, _pooled), ("across", ACROSS, _across)):
                if scope in scopes:
                    row = _row(of_condition, found(of_condition, confidence))
                    rows.append(common | {"method": name, "scope": scope} | row)
    if not rows:
        raise UserError(
            got=f"metrics of one method for the scopes {', '.join(scopes)}",
            wanted="at least two methods",
            do="Run more methods, or correlate within the method.",
        )
    table = pd.DataFrame(rows)
    table["flips"] = _flips(table, "correlation", "p_value", 1 - confidence)
    table["partial_flips"] = _flips(table, "partial", "partial_p_value", 1 - confidence)
    first = [*CONDITION, "method", "scope", "outcome", "predictor"]
    return table[[*first, *(name for name in table if name not in first)]]


def _task_numbers(pairs: pd.DataFrame) -> pd.DataFrame:
    """The baseline: one for each outcome."""
    moments = pairs.drop_duplicates([*CONDITION, "method", "seed", "after"])
    return moments.assign(predictor=TASK_NUMBER, x=moments["after"].astype(float))


def _within(own: pd.DataFrame, confidence: float) -> tuple[RankCorrelation, RankCorrelation]:
    kept = own[own["is_finite"]]
    x, y, seeds, tasks = (kept[name].to_numpy() for name in ("x", "y", "seed", "after"))
    plain = rank_correlation(x, y, seeds, confidence=confidence)
    return plain, rank_correlation(x, y, seeds, tasks, confidence)


def _pooled(own: pd.DataFrame, confidence: float) -> tuple[RankCorrelation, RankCorrelation]:
    kept = own[own["is_finite"]]
    x, y, seeds = (kept[name].to_numpy() for name in ("x", "y", "seed"))
    methods, tasks_of_methods = _groups(kept)
    return (
        rank_correlation(x, y, seeds, methods, confidence),
        rank_correlation(x, y, seeds, tasks_of_methods, confidence),
    )


def _groups(kept: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the method of every point, and of its method and task."""
    (methods, _), (tasks, different) = (pd.factorize(kept[name]) for name in ("method", "after"))
    return methods, methods * len(different) + tasks


def _across(own: pd.DataFrame, confidence: float) -> tuple[RankCorrelation, RankCorrelation]:
    """Of the means of methods; all seeds of one number, which have the same tasks, are left out together."""
    kept = own[own["is_finite"]]
    x, y, seeds, tasks = (kept[name].to_numpy() for name in ("x", "y", "seed", "after"))
    methods, tasks_of_methods = _groups(kept)
    plain = partial(_of_means, x, y, methods, methods, None)
    within_tasks = partial(_of_means, x, y, methods, tasks_of_methods, tasks)
    number = kept["method"].nunique()  # tasks of one method are not independent
    return (
        with_interval(plain, seeds, number, confidence),
        with_interval(within_tasks, seeds, number, confidence),
    )


def _of_means(
    x: np.ndarray, y: np.ndarray, methods: np.ndarray, places: np.ndarray, tasks: np.ndarray | None, kept: np.ndarray
) -> float:
    """Correlates the means over seeds of the points of each place."""
    if len(np.unique(methods[kept])) < 3:
        return float("nan")
    _, first, place = np.unique(places[kept], return_index=True, return_inverse=True)
    x, y = (np.bincount(place, values[kept]) / np.bincount(place) for values in (x, y))
    return ranks_correlation(x, y, None if tasks is None else tasks[kept][first])


def _row(own: pd.DataFrame, found: Iterable[RankCorrelation]) -> dict[str, Any]:
    plain, partial = (each._asdict() for each in found)
    kept = own[own["is_finite"]]
    return {
        **plain,
        **{"partial" if name == "correlation" else f"partial_{name}": value for name, value in partial.items()},
        "num_points": len(kept),
        "num_seeds": kept["seed"].nunique(),
        "num_dropped": len(own) - len(kept),
    }


def _flips(table: pd.DataFrame, name: str, p_value: str, level: float) -> pd.Series:
    """Whether a diagnostic of a scope is significantly positive somewhere and significantly negative elsewhere."""
    key = ["scope", "predictor"]
    tested = table.groupby(key)[p_value].transform("count")
    significant = table[p_value] * tested < level
    positive, negative = (
        (significant & has_sign).groupby([table[each] for each in key]).transform("any")
        for has_sign in (table[name] > 0, table[name] < 0)
    )
    return positive & negative
