import numpy as np
import pandas as pd
import pytest

from pliant.results import spread, summarize_run


def test_golden_numbers():
    scores = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    result = spread(scores)
    by_seed = [0.5, 1.0, 0.5]
    assert result.mean == pytest.approx(2 / 3)
    assert result.standard_error == pytest.approx(np.std(by_seed, ddof=1) / np.sqrt(3))
    assert (result.minimum, result.maximum) == (0.5, 1.0)
    assert result.iqm == pytest.approx(np.mean(sorted(scores.ravel())[1:5]))


def test_the_interval_covers_and_shrinks():
    draw = np.random.default_rng(1)
    few, many = (spread(draw.normal(0.5, 0.1, (num_seeds, 5))) for num_seeds in (4, 64))
    for result in (few, many):
        assert result.iqm_low < result.iqm < result.iqm_high
    assert many.iqm_high - many.iqm_low < (few.iqm_high - few.iqm_low) / 2
    assert abs(many.iqm - 0.5) < 0.02


def test_seeds_are_resampled_within_tasks():
    """Tasks of very different difficulty, seeds that agree: the interval is a point, as only seeds are resampled."""
    result = spread(np.tile([0.1, 0.5, 0.9], (4, 1)))
    assert result.iqm_low == pytest.approx(result.iqm)
    assert result.iqm_high == pytest.approx(result.iqm)


def test_one_seed_has_no_spread():
    result = spread(np.array([[0.2, 0.4]]))
    assert result.mean == pytest.approx(0.3)
    assert np.isnan([result.standard_error, result.iqm_low, result.iqm_high]).all()


def test_two_seeds_have_no_interval():
    result = spread(np.array([[0.2], [0.4]]))
    assert result.standard_error == pytest.approx(0.1)
    assert np.isnan([result.iqm_low, result.iqm_high]).all()


def test_identical_scores_give_a_point():
    result = spread(np.full((3, 2), 0.7))
    assert (result.iqm_low, result.iqm_high) == (0.7, 0.7)


def _metrics():
    rows = []
    for method, level in (("b", 0.2), ("a", 0.6)):
        for seed in range(2):
            for task in range(7):
                rows += [
                    (method, seed, task, "train_accuracy", level + 0.01 * task + 0.1 * seed),
                    (method, seed, task, "effective_rank", np.nan if seed else 3.0 + task),
                    (method, seed, task, "diverged", float(seed == 1 and method == "b" and task > 3)),
                ]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


def test_summary_of_a_run():
    summary = summarize_run(_metrics(), "train_accuracy").set_index("method")
    assert list(summary.index) == ["b", "a"]
    assert summary.loc["a", "first_task"] == pytest.approx(0.65)
    assert summary.loc["a", "last_mean"] == pytest.approx(0.65 + 0.04)
    assert summary.loc["a", "effective_rank"] == pytest.approx(3 + np.mean([2, 3, 4, 5, 6]))
    assert summary["num_diverged"].tolist() == [1, 0]
    assert summary["num_tasks"].tolist() == [7, 7]


def test_row_order_does_not_matter():
    metrics = _metrics()
    shuffled = metrics.sample(frac=1, random_state=0).sort_values("method", kind="stable", ascending=False)
    pd.testing.assert_frame_equal(summarize_run(shuffled, "train_accuracy"), summarize_run(metrics, "train_accuracy"))


def test_seeds_that_are_still_trained_are_left_out():
    metrics = _metrics()
    behind = (metrics["method"] == "a") & (metrics["seed"] == 1) & (metrics["task"] > 2)
    summary = summarize_run(metrics[~behind], "train_accuracy").set_index("method")
    assert summary["num_seeds"].tolist() == [2, 1]
    assert summary["num_tasks"].tolist() == [7, 7]
    assert summary.loc["a", "last_mean"] == pytest.approx(0.6 + 0.04)
