"""How much better one method is than another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from pliant.errors import UserError, unknown_name
from pliant.results._statistics import FEWEST_SEEDS, LAST_TASKS, bootstrap_interval, rounded


class Estimate(NamedTuple):
    """A number with its 95 % interval, which is NaN for fewer than three seeds."""

    value: float
    low: float
    high: float


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))
"""The estimate where nothing was measured."""


def mean_estimate(scores: Float[np.ndarray, " seed"]) -> Estimate:
    """Estimates the mean over seeds, with Student's interval: mean ± t_{0.975, n−1} · sd/√n.

    Example:
      >>> [round(number, 3) for number in mean_estimate(np.array([0.1, 0.2, 0.4]))]
      [0.233, -0.146, 0.613]
    """
    if not len(scores):
        return NOTHING
    with np.errstate(invalid="ignore"):  # of infinities with both signs
        mean = float(scores.mean())
    if len(scores) < FEWEST_SEEDS or not np.isfinite(mean):
        return NOTHING._replace(value=mean)
    import scipy.stats  # takes a second

    half = float(scipy.stats.t.ppf(0.975, len(scores) - 1) * scipy.stats.sem(scores))
    return Estimate(mean, mean - half, mean + half)


def paired_difference(a: pd.Series, b: pd.Series) -> Estimate:
    """Estimates the mean of `a` minus that of `b` over the seeds that both have.

    Use it where seed number s means the same tasks and the same initial network for both methods, as in a run: what
    makes a seed hard for both cancels. The interval is Student's, see `mean_estimate`. For few
    seeds it is wider than a bootstrap's, whose coverage is then too low.

    Args:
      a: scores, indexed by seed.
      b: scores, indexed by seed.

    Returns:
      The difference with its interval.

    Raises:
      UserError: if no seed is shared.

    Example:
      >>> a, b = pd.Series({0: 0.5, 1: 0.7, 2: 0.9, 3: 0.1}), pd.Series({0: 0.4, 1: 0.5, 2: 0.5})
      >>> [round(number, 3) for number in paired_difference(a, b)]  # of 0.1, 0.2 and 0.4
      [0.233, -0.146, 0.613]
    """
    shared = a.index.intersection(b.index)
    if shared.empty:
        raise UserError(
            got="scores without a shared seed", wanted="seeds that both have", do="Run both with the same --seeds."
        )
    return mean_estimate((a[shared] - b[shared]).to_numpy())


def probability_of_improvement(
    a: Float[np.ndarray, "seed_a task_a"], b: Float[np.ndarray, "seed_b task_b"]
) -> Estimate:
    """Estimates the probability that a random seed of `a` scores higher than one of `b`, averaged over tasks.

    On each task it is the Mann–Whitney statistic U/(n_a n_b): the share of pairs of seeds in which `a` is higher; a tie
    counts half, and numbers that are equal in six digits tie. The interval is from a stratified bootstrap, which
    resamples the seeds of each method and task separately. If all seeds of one are above all of the other, it is the
    point 1, whatever the number of seeds.

    Args:
      a: a row for each seed, a column for each task.
      b: the same tasks.

    Returns:
      The probability with its interval. Above 0.5 `a` is higher more often than not.

    Raises:
      UserError: if the numbers of tasks differ.

    Example:
      >>> a, b = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [1.0], [2.5]])
      >>> round(probability_of_improvement(a, b).value, 3)  # 6 of 9 pairs, and a tie
      0.722

    References:
      Agarwal et al., `Deep Reinforcement Learning at the Edge of the Statistical Precipice
      <https://arxiv.org/abs/2108.13264>`_, 2021. Section 4.3.
    """
    if a.shape[1] != b.shape[1]:
        raise UserError(
            got=f"scores on {a.shape[1]} and on {b.shape[1]} tasks", wanted="the same tasks", do="Drop the others."
        )
    samples = (*rounded(a).T, *rounded(b).T)
    if not all(np.isfinite(sample).all() for sample in samples):
        return NOTHING
    return Estimate(float(_share_above(*samples)), *bootstrap_interval(samples, _share_above))


def _share_above(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of the first half of the samples, how often each is above its partner in the second half."""
    import scipy.stats

    pairs = zip(samples[: len(samples) // 2], samples[len(samples) // 2 :], strict=True)
    with np.errstate(all="ignore"):  # of p-values, which are not used
        found = [
            scipy.stats.mannwhitneyu(x, y, method="asymptotic", axis=axis).statistic / x.shape[axis] / y.shape[axis]
            for x, y in pairs
        ]
    return np.asarray(np.mean(found, axis=0))


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error or a loss, by the last word of its name: there is no other convention in a run.

    Example:
      >>> lower_is_better("online_squared_error"), lower_is_better("train_accuracy")
      (True, False)
    """
    return metric.rpartition("_")[2] in ("error", "loss")


def compare(metrics: pd.DataFrame, headline: str, baseline: str, environments: Mapping[int, str] = {}) -> pd.DataFrame:
    """Compares the methods of a run with one of them, by their scores at the end of the stream.

    The score of a seed is its mean over the last five tasks that both methods have finished. Seeds with fewer tasks
    than others of their method are left out: they are still being trained.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      headline: the metric that is compared.
      baseline: the method that the others are compared with, as `metrics` call it.
      environments: the name of each task's environment, see `RunFolder.environments`.

    Returns:
      A row for each other method. Columns: `method`; `num_seeds`, of shared ones; `difference`, `difference_low`,
      `difference_high`, the method minus the baseline, see `paired_difference`; `probability`, `probability_low`,
      `probability_high`, that a seed of the method is better, see `probability_of_improvement`. If there are several
      environments, these names end in `/ENVIRONMENT`, and the scores are those of the last task in each.

    Raises:
      UserError: if there is no such method or metric, or nothing else to compare.

    Example:
      >>> rows = [(m, s, 1, "test_accuracy", s / 10 + 0.1 * (m == "b")) for m in "ab" for s in range(3)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> found = compare(metrics, "test_accuracy", baseline="a")
      >>> found[["method", "num_seeds", "difference"]].round(3).values.tolist()
      [['b', 3, 0.1]]
    """
    if headline not in set(metrics["metric"]):
        raise unknown_name("metric", headline, metrics["metric"].unique(), do="Compare one that the run has stored.")
    tables = finished_tables(metrics, headline)
    if baseline not in tables:
        raise unknown_name("baseline", baseline, tables, do="Give a method of this run, as its table calls it.")
    if len(tables) < 2:
        do = "Add another with the run's command and --methods."
        raise UserError(got=f"a run of {baseline} alone", wanted="another method to compare with it", do=do)
    is_lower = lower_is_better(headline)
    rows = []
    for method, table in tables.items():
        if method != baseline:
            of_method, of_baseline = table.align(tables[baseline], join="inner")
            row: dict[str, float | str] = {"method": method, "num_seeds": len(of_method)}
            for suffix, tasks in _ends([int(task) for task in of_method.columns], environments).items():
                a, b = (each[tasks].mean(axis=1, skipna=False) for each in (of_method, of_baseline))
                better, worse = (b, a) if is_lower else (a, b)
                found = {
                    "difference": paired_difference(a, b),
                    "probability": probability_of_improvement(better.to_numpy()[:, None], worse.to_numpy()[:, None]),
                }
                row |= {
                    f"{name}{end}{suffix}": number
                    for name, estimate in found.items()
                    for end, number in zip(("", "_low", "_high"), estimate, strict=True)
                }
            rows.append(row)
    return pd.DataFrame(rows)


def end_scores(metrics: pd.DataFrame, headline: str) -> dict[str, pd.Series]:
    """The mean of every seed over the last five tasks, by method; indexed by seed.

    Seeds with fewer tasks than others of their method are left out: they are still being trained.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      headline: the metric.

    Example:
      >>> rows = [("a", seed, task, "test_accuracy", seed + task / 10) for seed in (0, 1) for task in range(1, 7)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> end_scores(metrics, "test_accuracy")["a"].to_dict()
      {0: 0.4, 1: 1.4}
    """
    tables = finished_tables(metrics, headline)
    return {name: table.iloc[:, -LAST_TASKS:].mean(axis=1, skipna=False) for name, table in tables.items()}


def finished_tables(metrics: pd.DataFrame, headline: str) -> dict[str, pd.DataFrame]:
    """The scores of each method, a row for each seed that has all of the method's tasks, a column for each task."""
    chosen = metrics[metrics["metric"] == headline]
    return {str(method): _finished(own) for method, own in chosen.groupby("method", sort=False)}


def _finished(own: pd.DataFrame) -> pd.DataFrame:
    """The scores of one method, a row for each seed that has all tasks, a column for each task."""
    table = own.pivot(index="seed", columns="task", values="value").sort_index(axis=1)
    num_tasks = own.groupby("seed")["task"].nunique()
    return table.loc[num_tasks.index[num_tasks == num_tasks.max()]]


def _ends(tasks: Sequence[int], environments: Mapping[int, str]) -> dict[str, list[int]]:
    """The tasks at the end of the stream; if there are several environments, the last task in each, by its suffix."""
    if len(set(environments.values())) < 2:
        return {"": list(tasks[-LAST_TASKS:])}
    return {f"/{environments[task]}": [task] for task in tasks if task in environments}
