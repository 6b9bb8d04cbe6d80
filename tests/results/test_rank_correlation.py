import numpy as np
import pytest
import scipy.stats

from pliant.errors import UserError
from pliant.results import rank_correlation
from pliant.results._rank_correlation import ranks


def points(num_seeds=5, num_tasks=10):
    return np.repeat(np.arange(num_seeds), num_tasks), np.tile(np.arange(num_tasks), num_seeds)


def test_ranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 9, 40).astype(float)
    values[3] = np.inf
    np.testing.assert_array_equal(ranks(values), scipy.stats.rankdata(values))


def test_the_correlation_is_scipys():
    draw = np.random.default_rng(1)
    x = draw.integers(0, 12, 50).astype(float)
    y = x + 5 * draw.standard_normal(50)
    found = rank_correlation(x, y, points()[0])
    assert found.correlation == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found.low < found.correlation < found.high


def test_golden():
    """Ranks 1 2 3 4 and 2 1 4 3: 1 − 6 · 4 / (4 · 15). Without seeds there is no interval."""
    found = rank_correlation(np.array([1.0, 2, 3, 9]), np.array([20.0, 10, 40, 30]), np.zeros(4, int))
    assert found.correlation == pytest.approx(0.6)
    assert np.isnan(found[1:]).all()


def test_golden_interval():
    """Twelve points of three seeds; the jackknife by hand, in the formula of the docstring."""
    draw = np.random.default_rng(2)
    seeds, _ = points(3, 4)
    x, y = draw.standard_normal((2, 12))
    z = np.arctanh(scipy.stats.spearmanr(x, y).statistic)
    without = [np.arctanh(scipy.stats.spearmanr(x[seeds != s], y[seeds != s]).statistic) for s in range(3)]
    pseudo = 3 * z - 2 * np.array(without)
    error = pseudo.std(ddof=1) / 3**0.5
    reach = max(4.302653 * error, 1.959964 / 3)
    wanted = np.tanh(pseudo.mean() + np.array([-reach, reach]))
    np.testing.assert_allclose(rank_correlation(x, y, seeds)[1:3], wanted)
    centre = abs(pseudo.mean())
    p_value = 2 * max(scipy.stats.t.sf(centre / error, 2), scipy.stats.norm.sf(3 * centre))
    assert rank_correlation(x, y, seeds).p_value == pytest.approx(p_value)


def test_golden_partial():
    """Within both tasks the ranks go the other way than across them."""
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0])
    found = rank_correlation(x, y, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert found.correlation == pytest.approx(-1.0)
    assert rank_correlation(x, y, np.array([0, 1, 0, 1])).correlation == pytest.approx(0.6)


def test_a_perfect_predictor():
    seeds, tasks = points()
    x = np.random.default_rng(3).standard_normal(50)
    for given in (None, tasks):
        up, down = rank_correlation(x, np.exp(x), seeds, given), rank_correlation(x, -x, seeds, given)
        assert up[:3] == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
        assert down[:3] == pytest.approx((-1.0, -1.0, -1.0), abs=1e-6)
        assert up.p_value < 1e-6


def test_intervals_cover_no_correlation_about_as_often_as_they_say():
    seeds, tasks = points(5, 10)
    draw = np.random.default_rng(4)
    found = [rank_correlation(*draw.standard_normal((2, 50)), seeds, tasks) for _ in range(400)]
    excluded = np.mean([each.low > 0 or each.high < 0 for each in found])
    assert 0.01 < excluded < 0.07


def test_drifts_correlate_and_the_partial_correlation_does_not():
    """Both fall along the stream, independently of each other: the trap that the task means are there for."""
    seeds, tasks = points(5, 20)
    draw = np.random.default_rng(5)
    plain, partial = [], []
    for _ in range(100):
        x, y = (-tasks + 2 * draw.standard_normal(100) for _ in range(2))
        plain.append(rank_correlation(x, y, seeds))
        partial.append(rank_correlation(x, y, seeds, tasks))
    assert min(each.low for each in plain) > 0.5
    assert np.mean([each.low > 0 or each.high < 0 for each in partial]) < 0.1
    assert abs(np.mean([each.correlation for each in partial])) < 0.05


@pytest.mark.parametrize("number", [0, 1, 2])
def test_too_few_points_are_nan(number):
    found = rank_correlation(np.arange(number) * 1.0, np.arange(number) * 1.0, np.arange(number))
    assert np.isnan(found).all()


def test_a_constant_is_nan():
    seeds, tasks = points(3, 4)
    y = np.arange(12.0)
    assert np.isnan(rank_correlation(np.ones(12), y, seeds)).all()
    assert np.isnan(rank_correlation(tasks * 1.0, y, seeds, tasks)).all()
    varies_in_one_seed = np.where(seeds == 0, y, 0.0)
    found = rank_correlation(varies_in_one_seed, y, seeds)
    assert np.isfinite(found.correlation)
    assert np.isnan(found[1:]).all()


def test_confidence_widens_the_interval():
    seeds, _ = points()
    x = np.random.default_rng(6).standard_normal(50)
    y = x + np.random.default_rng(7).standard_normal(50)
    narrow, wide = (rank_correlation(x, y, seeds, confidence=each) for each in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert narrow.p_value == wide.p_value


def test_what_is_not_finite_is_refused():
    seeds, tasks = points(3, 4)
    with pytest.raises(UserError, match="got values that are not finite; wanted finite points"):
        rank_correlation(np.where(tasks == 2, np.nan, 1.0), tasks * 1.0, seeds)
    with pytest.raises(UserError, match="got confidence=95; wanted a number in"):
        rank_correlation(tasks * 1.0, tasks * 1.0, seeds, confidence=95)
