"""Performance profiles: numbers by hand, whole seeds as the sample, what is printed and drawn."""

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import performance_profile, profile_cells, profile_figure, profile_table


def test_performance_profile_by_hand():
    scores = np.array([[0.1, 0.4], [0.4, 0.9], [0.2, np.nan]])
    profile = performance_profile(scores, [0.0, 0.1, 0.4, 0.95])
    assert profile.fraction.tolist() == pytest.approx([5 / 6, 4 / 6, 1 / 6, 0])
    assert (profile.low <= profile.fraction).all()
    assert (profile.fraction <= profile.high).all()
    assert profile.low[1] < profile.high[1]


def test_the_sample_are_seeds_with_all_of_their_tasks():
    """Two seeds above and two below in all of fifty tasks: as uncertain as four numbers."""
    scores = np.repeat([[0.0], [0.0], [1.0], [1.0]], 50, axis=1)
    assert performance_profile(scores, [0.5]) == pytest.approx((0.5, 0.0, 1.0))


def _metrics(name="train_accuracy", seeds=4, scale=1.0):
    rows = [
        (method, seed, task, name, scale * (seed / 10 + (method == "b") + task / 1000))
        for method in ("a", "b")
        for seed in range(seeds)
        for task in range(1, 8)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


def test_shares_of_the_last_five_tasks():
    metrics = _metrics()
    metrics.loc[(metrics["task"] <= 2), "value"] = 9.0  # not among them
    found = profile_table(metrics, "train_accuracy", [0.05, 0.25, 1.25]).set_index(["method", "threshold"])["fraction"]
    assert found.to_dict() == {
        ("a", 0.05): 0.75,
        ("a", 0.25): 0.25,
        ("a", 1.25): 0.0,
        ("b", 0.05): 1.0,
        ("b", 0.25): 1.0,
        ("b", 1.25): 0.25,
    }


def test_of_an_error_low_scores_are_good():
    table = profile_table(_metrics("test_error"), "test_error", [0.25])
    assert table["fraction"].tolist() == [0.75, 0.0]
    assert (table["low"] <= table["fraction"]).all()
    assert (table["fraction"] <= table["high"]).all()
    assert profile_cells(table, "test_error")[0] == ["method", "< 0.25"]
    assert profile_figure(_metrics("test_error"), "test_error", "t").axes[0].get_ylabel() == "share of scores below τ"


def test_default_thresholds_are_round_and_within_the_scores():
    found = profile_table(_metrics(), "train_accuracy")["threshold"].unique()
    assert found.round(6).tolist() == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2]
    assert profile_table(_metrics(scale=0.0), "train_accuracy")["threshold"].unique().tolist() == [0.0]


def test_no_interval_from_two_seeds():
    table = profile_table(_metrics(seeds=2), "train_accuracy", [0.05])
    assert table[["low", "high"]].isna().all(axis=None)
    assert profile_cells(table, "train_accuracy")[1] == ["a", "0.50 [–, –]"]


def test_the_figure_begins_at_one_and_ends_at_zero():
    axes = profile_figure(_metrics(), "train_accuracy", "$t$").axes[0]
    for line in axes.lines:
        heights = line.get_ydata()
        assert (heights[0], heights[-1]) == (1.0, 0.0)
        assert (np.diff(heights) <= 0).all()
    assert [line.get_label() for line in axes.lines] == ["a", "b"]


@pytest.mark.parametrize(
    "make", [profile_table, lambda metrics, name, **more: profile_figure(metrics, name, "", **more)]
)
def test_what_has_no_profile(make):
    with pytest.raises(UserError, match="got the metric 'loss'"):
        make(_metrics(), "loss")
    with pytest.raises(UserError, match="without a finite number"):
        make(_metrics(scale=np.nan), "train_accuracy")
    with pytest.raises(UserError, match="several environments"):
        make(_metrics(), "train_accuracy", environments={1: "pong", 2: "breakout"})
