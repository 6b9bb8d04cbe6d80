"""Statistics over seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

FEWEST_SEEDS = 3
"""An interval is never computed from fewer seeds: the bootstrap of two has three different means."""
LAST_TASKS = 5
"""The end of a stream, over which scores are averaged."""
SUMMARIZED_WHOLE = ("diverged", "dead_phase")
"""Metrics of which `summarize_run` uses all tasks, beside the headline; of others it uses the last `LAST_TASKS`."""
RESAMPLES = 2000


def rounded(numbers: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Rounds to six digits: numbers that differ by the last bits of single precision alone become equal.

    Use it before numbers are ordered, so that noise decides no rank. The next digit is rounded up from 3, not from 5:
    fractions such as 25/128 = 0.1953125 end with 5, and would fall to either side.

    Example:
      >>> rounded(np.array([0.0925000012, 0.0924999975, 123456.7, 0.0])).tolist()
      [0.0925, 0.0925, 123457.0, 0.0]
      >>> rounded(np.array([0.1953125 + 3e-9, 0.1953125 - 3e-9])).tolist()
      [0.195313, 0.195313]
    """
    with np.errstate(all="ignore"):  # of 0, and of numbers that are not finite
        place = 5 - np.floor(np.log10(np.abs(numbers)))
        found = np.floor(numbers * 10**place + 0.7) / 10**place
    return np.where(np.isfinite(found), found, numbers)


class Spread(NamedTuple):
    """A statistic over seeds with its spread."""

    mean: float
    standard_error: float
    """Of the mean over seeds; NaN for one seed."""
    minimum: float
    maximum: float
    iqm: float
    """Interquartile mean over seeds and tasks."""
    iqm_low: float
    """Lower end of the 95 % bootstrap interval of the IQM; NaN for fewer than three seeds."""
    iqm_high: float


def spread(scores: Float[np.ndarray, "seed task"]) -> Spread:
    """Summarises the scores of several seeds on several tasks.

    Mean, standard error, minimum and maximum are over the seeds' means. The interquartile mean (IQM) is the mean of the
    middle half of all scores. Its interval is from a stratified bootstrap, which resamples the seeds of every task
    separately. Fewer than three seeds have no interval.

    Args:
      scores: a row for each seed, a column for each task.

    Returns:
      A `Spread`. A NaN score makes every number that uses it NaN.

    Example:
      >>> result = spread(np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.5]]))
      >>> round(result.mean, 3), round(result.standard_error, 3), round(result.iqm, 3)
      (0.667, 0.167, 0.75)

    References:
      Agarwal et al., `Deep Reinforcement Learning at the Edge of the Statistical Precipice
      <https://arxiv.org/abs/2108.13264>`_, 2021. Section 4.

    Differs from:
      rliable by scipy's bootstrap and a fixed number of 2,000 resamples with a fixed seed.
    """
    by_seed = scores.mean(axis=1)
    num_seeds = len(by_seed)
    low, high = bootstrap_interval(tuple(scores.T), lambda *tasks, axis: _iqm(np.concatenate(tasks, axis=axis), axis))
    with np.errstate(invalid="ignore"):  # of infinite scores
        error = float(by_seed.std(ddof=1) / np.sqrt(num_seeds)) if num_seeds > 1 else float("nan")
    return Spread(
        float(by_seed.mean()),
        error,
        float(by_seed.min()),
        float(by_seed.max()),
        float(_iqm(scores.ravel())),
        low,
        high,
    )


def summarize_run(metrics: pd.DataFrame, headline: str, environments: Mapping[int, str] = {}) -> pd.DataFrame:
    """Summarises a run in one row a method: its scores at the end of the stream, and the state of its networks.

    Seeds with fewer tasks than others of their method are left out: they are still being trained.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      headline: the headline metric of the run.
      environments: the name of each task's environment, see `RunFolder.environments`.

    Returns:
      Columns `method`, `num_seeds`, `num_tasks`, `num_diverged` (seeds with non-finite parameters), `first_task`
      (mean over seeds), `last_*` (`Spread` of the last five tasks, or of all if there are fewer), and for every other
      metric its mean over seeds and the last five tasks in which it was measured. If there are several environments,
      also `last_*/ENVIRONMENT`, the same of the last task in each, whose scores have scales of their own. If the metric
      `dead_phase` was recorded, also `num_dead_phases` and `num_phases`, over all seeds and tasks that have it.
      `env_steps`, steps of environments, is summed over all seeds.

    Example:
      >>> rows = [("a", 0, t, "train_accuracy", 1.0 - t / 10) for t in range(6)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> table = summarize_run(metrics, "train_accuracy")
      >>> table[["method", "first_task", "last_mean"]].round(3).values.tolist()
      [['a', 1.0, 0.7]]
    """
    rows, has_phases = [], (metrics["metric"] == "dead_phase").any()
    for method, own in metrics.groupby("method", sort=False):
        num_tasks = own[own["metric"] == headline].groupby("seed")["task"].nunique()
        own = own[own["seed"].isin(num_tasks.index[num_tasks == num_tasks.max()])]
        wide = own.pivot(index="seed", columns=["metric", "task"], values="value").sort_index(axis=1)
        by_metric = {str(metric): wide[metric].to_numpy() for metric in sorted(own["metric"].unique())}
        tasks, scores = list(wide[headline].columns), by_metric.pop(headline)
        diverged = by_metric.pop("diverged", np.zeros_like(scores))
        steps = by_metric.pop("env_steps", None)
        rows.append(
            {
                "method": method,
                "num_seeds": scores.shape[0],
                "num_tasks": scores.shape[1],
                "num_diverged": int(diverged.any(axis=1).sum()),
                "first_task": scores[:, 0].mean(),
                **_named(spread(scores[:, -LAST_TASKS:])),
                **_by_environment(tasks, scores, environments),
                **(_dead_phases(by_metric.get("dead_phase", np.zeros(0))) if has_phases else {}),
                **({} if steps is None else {"env_steps": int(steps[:, -1].sum())}),
                **{name: _mean(values[:, -LAST_TASKS:]) for name, values in by_metric.items()},
            }
        )
    return pd.DataFrame(rows)


def _named(of_last: Spread, suffix: str = "") -> dict[str, float]:
    return {f"last_{name}{suffix}": value for name, value in of_last._asdict().items()}


def _by_environment(
    tasks: Sequence[int], scores: Float[np.ndarray, "seed task"], environments: Mapping[int, str]
) -> dict[str, float]:
    """The scores of the last task in each environment, if there are several."""
    last = {environments[task]: place for place, task in enumerate(tasks) if task in environments}
    if len(set(environments.values())) < 2:
        return {}
    found = {name: spread(scores[:, [place]]) for name, place in last.items()}
    return {name: value for each in found for name, value in _named(found[each], f"/{each}").items()}


def _dead_phases(is_dead: np.ndarray) -> dict[str, int]:
    return {"num_dead_phases": int(np.nansum(is_dead)), "num_phases": int(np.isfinite(is_dead).sum())}


def _mean(values: Float[np.ndarray, "seed task"]) -> float:
    """Mean of the finite values, NaN if there are none. A seed that diverged has no rank, for example."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    import scipy.stats  # takes a second

    return np.asarray(scipy.stats.trim_mean(values, 0.25, axis=axis))


def bootstrap_interval(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic, from a bootstrap that resamples each sample separately.

    Args:
      samples: of independent seeds each, one axis, such as the scores on one task.
      statistic: `statistic(*samples, axis)`, vectorised.

    Returns:
      Both ends; NaN if a sample has fewer than `FEWEST_SEEDS` seeds, or a number that is not finite.
    """
    if min(map(len, samples)) < FEWEST_SEEDS or not all(np.isfinite(sample).all() for sample in samples):
        return float("nan"), float("nan")
    if all(np.ptp(sample) == 0 for sample in samples):  # free of the rounding errors of resampled means
        only = float(statistic(*samples, axis=-1))
        return only, only
    import scipy.stats

    found = scipy.stats.bootstrap(
        tuple(samples),
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
