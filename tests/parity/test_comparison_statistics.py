"""Estimators of `pliant.results` against those of scipy and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pliant.results import paired_difference, performance_profile, probability_of_improvement


def test_paired_difference_is_that_of_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    interval = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    found = paired_difference(pd.Series(a), pd.Series(b))
    assert found == pytest.approx(((a - b).mean(), interval.low, interval.high))


def test_probability_of_improvement_is_the_area_under_the_roc_curve():
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = np.random.default_rng(0).integers(0, 5, (2, 7)).astype(float)
    area = metrics.roc_auc_score([1] * 7 + [0] * 7, np.concatenate([a, b]))
    assert probability_of_improvement(a[:, None], b[:, None]).value == pytest.approx(area)


def test_performance_profile_is_the_empirical_survival_function():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    thresholds = np.linspace(-2, 2, 9)
    survival = scipy.stats.ecdf(scores.ravel()).sf.evaluate(thresholds)
    assert performance_profile(scores, thresholds).fraction == pytest.approx(survival)
