"""Rank correlations over seeds and tasks, with intervals over seeds."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pliant.errors import UserError, require_range
from pliant.results._statistics import FEWEST_SEEDS

_LEAST_POINTS = 3  # two points always correlate perfectly
_FLOOR = 3  # taken from the points for the standard error of Fisher's z
_PERFECT = 1e-9  # what is kept from a correlation of ±1, whose Fisher transform is infinite


class RankCorrelation(NamedTuple):
    """What `rank_correlation` returns."""

    correlation: float
    """In [−1, 1]; NaN if there are fewer than three points, or one of the two does not vary."""
    low: float
    """Lower end of the interval; NaN for fewer than three seeds."""
    high: float
    p_value: float
    """Two-sided, of no correlation; NaN for fewer than three seeds."""


def rank_correlation(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    seeds: Int[np.ndarray, " points"],
    groups: Int[np.ndarray, " points"] | None = None,
    confidence: float = 0.95,
) -> RankCorrelation:
    r"""Computes Spearman's rank correlation of points that come in seeds, and an interval over seeds.

    Use it to ask whether one metric predicts another over a stream. Points of one seed depend on each other, so the
    interval takes seeds as the sample, however many tasks there are.

    .. math:: \rho = \mathrm{corr}(r(x), r(y)), \qquad
       \rho_{partial} = \mathrm{corr}\big(r(x) - \overline{r(x)}_{group},\; r(y) - \overline{r(y)}_{group}\big)

    with r the ranks of all points, ties sharing their mean. With `groups`, such as tasks, the mean of each group is
    subtracted from the ranks first. Over a stream nearly everything drifts, and any two drifts correlate; what is left
    compares seeds at the same task.

    The interval is a delete-one jackknife over seeds of Fisher's z = artanh ρ: with S seeds and n points,

    .. math:: z_s = S z - (S - 1) z_{-s}, \qquad
              \tanh\Big(\bar z \pm \max\Big(t_{S-1} \frac{\mathrm{std}(z_s)}{\sqrt S},\;
              \frac{1.96}{\sqrt{n - 3}}\Big)\Big)

    The second is the half-width for n independent points, here of a 95 % interval; with `groups`, n is less by one for
    each group but one. Without it, a few ranks that stay the same whichever seed is left out would seem certain. A
    bootstrap of three to five seeds would be too narrow, and its p-values cannot be small enough to be corrected for
    many tests.

    Args:
      x: the predictor, finite.
      y: the outcome, finite.
      seeds: of every point.
      groups: of every point, such as its task; None to subtract nothing.
      confidence: of the interval, in (0, 1).

    Returns:
      `RankCorrelation`. The interval is NaN also for fewer than four points, and where leaving out a seed leaves
      nothing to correlate.

    Raises:
      UserError: if a value is not finite, or `confidence` is out of range.

    Example:
      >>> seeds, tasks = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
      >>> x = np.array([1.0, 2, 3, 5, 1, 3, 4, 6, 2, 1, 4, 5])
      >>> found = rank_correlation(x, x**3, seeds)
      >>> round(found.correlation, 6), round(found.low, 6), round(found.high, 6)
      (1.0, 1.0, 1.0)

    References:
      Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993. Chapter 11.

    Differs from:
      `scipy.stats.spearmanr`, whose p-value takes all points as independent.
    """
    require_range("confidence", confidence, 0, 1, do="0.95 is usual.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError(got="values that are not finite", wanted="finite points", do="Leave these points out.")
    num_means = 0 if groups is None else len(np.unique(groups)) - 1
    return with_interval(partial(_of_kept, x, y, groups), seeds, len(x) - num_means, confidence)


def with_interval(
    statistic: Callable[[np.ndarray], float], seeds: Int[np.ndarray, " points"], size: int, confidence: float
) -> RankCorrelation:
    """A correlation of chosen points, with the interval of `rank_correlation`.

    Args:
      statistic: `statistic(mask) -> correlation` of the points in a mask.
      seeds: of every point.
      size: n, how many points are correlated.
      confidence: of the interval.

    Example:
      >>> found = with_interval(lambda kept: 0.5, np.repeat([0, 1, 2], 20), 60, 0.95)
      >>> round(found.low, 3), round(found.high, 3)
      (0.282, 0.669)
    """
    nothing = (float("nan"),) * 3
    whole, different = statistic(np.ones(len(seeds), bool)), np.unique(seeds)
    number = len(different)
    if np.isnan(whole) or number < FEWEST_SEEDS or size <= _FLOOR:
        return RankCorrelation(whole, *nothing)
    without = np.array([statistic(seeds != seed) for seed in different])
    if np.isnan(without).any():
        return RankCorrelation(whole, *nothing)
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    pseudo = number * _fisher(whole) - (number - 1) * _fisher(without)
    centre, level = pseudo.mean(), (1 + confidence) / 2
    error, least = pseudo.std(ddof=1) / np.sqrt(number), 1 / np.sqrt(size - _FLOOR)
    reach = max(stdtrit(number - 1, level) * error, ndtri(level) * least)
    over_seeds = stdtr(number - 1, -abs(centre) / error) if error > 0 else 0.0
    p_value = 2 * max(over_seeds, ndtr(-abs(centre) / least))
    return RankCorrelation(whole, float(np.tanh(centre - reach)), float(np.tanh(centre + reach)), float(p_value))


def ranks(values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """Ranks from 1, ties sharing their mean.

    Example:
      >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
      [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _of_kept(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, kept: np.ndarray) -> float:
    return ranks_correlation(x[kept], y[kept], None if groups is None else groups[kept])


def ranks_correlation(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> float:
    """The correlation of `rank_correlation`, without an interval."""
    if len(x) < _LEAST_POINTS:
        return float("nan")
    a, b = (_centred(ranks(values), groups) for values in (x, y))
    size = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / size, -1, 1)) if size > 1e-9 * len(x) else float("nan")


def _centred(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    if groups is None:
        return np.asarray(values - values.mean())
    _, inverse = np.unique(groups, return_inverse=True)
    return np.asarray(values - (np.bincount(inverse, values) / np.bincount(inverse))[inverse])


def _fisher(correlation: float | np.ndarray) -> np.ndarray:
    return np.asarray(np.arctanh(np.clip(correlation, -1 + _PERFECT, 1 - _PERFECT)))
