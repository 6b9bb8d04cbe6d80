"""Performance profiles: how the scores of a method are distributed."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pliant.errors import UserError, unknown_name
from pliant.results._column import WIDTH, for_column, legend_below
from pliant.results._comparison import finished_tables, lower_is_better
from pliant.results._look import line_style, literal
from pliant.results._statistics import LAST_TASKS, bootstrap_interval

_HEIGHT = 4.0  # inches, without the legend
_NUM_DRAWN = 101  # thresholds of the figure
_NUM_SHOWN = 7  # of the table, about


class Profile(NamedTuple):
    """A performance profile with its 95 % band, which is NaN for fewer than three seeds."""

    fraction: Float[np.ndarray, " threshold"]
    low: Float[np.ndarray, " threshold"]
    high: Float[np.ndarray, " threshold"]


def performance_profile(scores: Float[np.ndarray, "seed task"], thresholds: Sequence[float] | np.ndarray) -> Profile:
    """Estimates the fraction of seeds and tasks whose score is above each threshold.

    Use it to see a whole distribution of scores at once. A method whose profile is above another's at every threshold
    is stochastically better. The band is from a bootstrap over seeds, each with all of its tasks: tasks of one
    stream depend on each other.

    Args:
      scores: a row for each seed, a column for each task.
      thresholds: τ.

    Returns:
      The fractions with their band, an entry for each threshold. A NaN score is above no threshold.

    Example:
      >>> performance_profile(np.array([[0.1, 0.4], [0.4, 0.9]]), [0.0, 0.4, 0.5]).fraction.tolist()
      [1.0, 0.25, 0.25]

    References:
      Agarwal et al., `Deep Reinforcement Learning at the Edge of the Statistical Precipice
      <https://arxiv.org/abs/2108.13264>`_, 2021. Section 4.2, run-score distributions.

    Differs from:
      Their stratified bootstrap, which resamples the seeds of each task separately, as for games that are independent.
    """
    by_seed = [(scores > threshold).mean(axis=1) for threshold in thresholds]
    band = [bootstrap_interval((each,), lambda seeds, axis: seeds.mean(axis=axis)) for each in by_seed]
    low, high = np.array(band).reshape(-1, 2).T
    return Profile(np.array([each.mean() for each in by_seed]), low, high)


def profile_table(
    metrics: pd.DataFrame,
    headline: str,
    thresholds: Sequence[float] | np.ndarray | None = None,
    environments: Mapping[int, str] = {},  # never changed
) -> pd.DataFrame:
    """Tabulates the performance profile of every method of a run.

    Scores are those of every seed in each of the last five tasks. Of an error or a loss, whose lower values are better,
    they are the scores below each threshold.

    Args:
      metrics: in long form, see `RunFolder.metrics`.
      headline: the metric.
      thresholds: τ; by default about seven round numbers within the scores.
      environments: the name of each task's environment, see `RunFolder.environments`.

    Returns:
      Columns `method`, `threshold`, `fraction`, `low`, `high`.

    Raises:
      UserError: if there is no such metric or no finite number of it, or for several environments, whose scores have
        scales of their own.

    Example:
      >>> rows = [("a", seed, 1, "test_accuracy", seed / 10) for seed in range(4)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> profile_table(metrics, "test_accuracy", [0.05, 0.2])["fraction"].tolist()
      [0.75, 0.25]
    """
    scores = _scores(metrics, headline, environments)
    return _table(scores, _round_numbers(scores) if thresholds is None else thresholds, headline)


def _scores(metrics: pd.DataFrame, headline: str, environments: Mapping[int, str]) -> dict[str, np.ndarray]:
    """The scores of each method, a row for each seed."""
    if len(set(environments.values())) > 1:
        raise UserError(
            got="a profile of a run in several environments",
            wanted="scores of one scale",
            do="Take a run of one environment.",
        )
    if headline not in set(metrics["metric"]):
        raise unknown_name("metric", headline, metrics["metric"].unique(), do="Give one that the run has stored.")
    tables = finished_tables(metrics, headline)
    scores = {method: table.iloc[:, -LAST_TASKS:].to_numpy(float) for method, table in tables.items()}
    if not any(np.isfinite(each).any() for each in scores.values()):
        raise UserError(
            got=f"the metric {headline!r} without a finite number", wanted="at least one", do="Take another metric."
        )
    return scores


def _ends(scores: Mapping[str, np.ndarray]) -> tuple[float, float]:
    every = np.concatenate([each.ravel() for each in scores.values()])
    finite = every[np.isfinite(every)]
    return float(finite.min()), float(finite.max())


def _round_numbers(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Within the range of scores."""
    low, high = _ends(scores)
    if low == high:
        return np.array([low])
    places = np.asarray(MaxNLocator(_NUM_SHOWN).tick_values(low, high))
    return places[(places >= low) & (places <= high)]


def _table(scores: Mapping[str, np.ndarray], thresholds: Sequence[float] | np.ndarray, headline: str) -> pd.DataFrame:
    sign = -1.0 if lower_is_better(headline) else 1.0
    tables = []
    for method, of_method in scores.items():
        profile = performance_profile(sign * of_method, sign * np.asarray(thresholds))
        tables.append(pd.DataFrame({"method": method, "threshold": thresholds, **profile._asdict()}))
    return pd.concat(tables, ignore_index=True)


def profile_cells(table: pd.DataFrame, headline: str) -> list[list[str]]:
    """The cells of a printed profile, the header first, for `terminal_table` or `text_table`.

    Args:
      table: from `profile_table`.
      headline: the metric.

    Example:
      >>> rows = [("a", seed, 1, "test_accuracy", seed / 10) for seed in range(2)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> profile_cells(profile_table(metrics, "test_accuracy", [0.05]), "test_accuracy")
      [['method', '> 0.05'], ['a', '0.50 [–, –]']]
    """
    relation = "<" if lower_is_better(headline) else ">"
    thresholds = table["threshold"].unique()
    rows = [["method", *(f"{relation} {threshold:.4g}" for threshold in thresholds)]]
    for method, own in table.groupby("method", sort=False):
        numbers = own[["fraction", "low", "high"]].to_numpy()
        shown = [["–" if math.isnan(number) else f"{number:.2f}" for number in each] for each in numbers]
        rows.append([str(method), *(f"{value} [{low}, {high}]" for value, low, high in shown)])
    return rows


@for_column
def profile_figure(
    metrics: pd.DataFrame,
    headline: str,
    title: str,
    environments: Mapping[int, str] = {},  # never changed
) -> Figure:
    """Draws the performance profile of every method, with its 95 % band.

    Use it where means hide that some seeds collapse and others do not: a profile that falls in steps has groups.

    Args:
      metrics: as for `profile_table`, as are `headline` and `environments`.
      headline: the metric.
      title: above the axes.
      environments: the names of environments.

    Raises:
      UserError: as `profile_table`.

    Example:
      >>> rows = [("a", seed, 1, "test_accuracy", seed / 10) for seed in range(4)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> profile_figure(metrics, "test_accuracy", "four seeds").axes[0].get_ylabel()
      'share of scores above τ'
    """
    scores = _scores(metrics, headline, environments)
    low, high = _ends(scores)
    margin = 0.02 * (high - low)
    table = _table(scores, np.linspace(low - margin, high + margin, _NUM_DRAWN), headline)
    figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    for place, (method, own) in enumerate(table.groupby("method", sort=False)):
        style = line_style(place)
        every = (place % 10, 10)  # markers of lines that coincide do not
        axes.plot(own["threshold"], own["fraction"], **style, markevery=every, label=literal(str(method)))
        axes.fill_between(own["threshold"], own["low"], own["high"], color=style["color"], alpha=0.2, linewidth=0)
    relation = "below" if lower_is_better(headline) else "above"
    axes.set(xlabel=literal(f"τ of {headline.replace('_', ' ')}"), ylabel=f"share of scores {relation} τ")
    axes.set(title=literal(title), ylim=(-0.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, list(axes.lines), "seeds in the last five tasks; band: 95 % bootstrap interval")
    return figure
