"""Ranks of methods, with intervals."""

import numpy as np
from jaxtyping import Float

from pliant.results._comparison import NOTHING, Estimate
from pliant.results._statistics import FEWEST_SEEDS, RESAMPLES, rounded


def ranks(scores: Float[np.ndarray, "method seed"], *, lower_is_better: bool = False) -> list[Estimate]:
    """Ranks methods by their mean over seeds; the interval is the bootstrap's, which resamples seeds.

    All methods are resampled with the same seeds, since a seed means the same tasks for all. Means that are equal in
    six digits share the mean of their ranks. A method with a score that is not finite comes last.

    Args:
      scores: a row for each method, a column for each seed that all of them have.
      lower_is_better: whether scores are errors.

    Returns:
      The rank of each method, counted from 1, with its 95 % percentile interval.

    Example:
      >>> [rank.value for rank in ranks(np.array([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9], [0.4, 0.5, 0.3]]))]
      [3.0, 1.0, 2.0]
    """
    if scores.shape[1] == 0:
        return [NOTHING for _ in scores]
    import scipy.stats  # takes a second

    costs = scores if lower_is_better else -scores
    costs = np.where(np.isfinite(costs).all(axis=1, keepdims=True), costs, np.inf)

    def statistic(*methods: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(scipy.stats.rankdata(rounded(np.mean(methods, axis=axis)), axis=0))

    found = scipy.stats.rankdata(rounded(costs.mean(axis=1)))
    if scores.shape[1] < FEWEST_SEEDS:
        return [NOTHING._replace(value=float(rank)) for rank in found]
    interval = scipy.stats.bootstrap(
        tuple(costs),
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        paired=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ends = zip(found, np.atleast_1d(interval.low), np.atleast_1d(interval.high), strict=True)
    return [Estimate(float(rank), float(low), float(high)) for rank, low, high in ends]
