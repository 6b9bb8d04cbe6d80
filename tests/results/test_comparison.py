import itertools

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import (
    compare,
    lower_is_better,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/√3, and Student's t for 2 degrees of freedom is 4.30265."""
    a, b = pd.Series({3: 4.0, 1: 1.0, 2: 2.0, 7: 9.0}), pd.Series({1: 0.0, 2: 0.0, 3: 1.0, 8: 5.0})
    found = paired_difference(a, b)
    assert found.value == pytest.approx(2)
    assert found.high - found.value == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert paired_difference(b, a).value == pytest.approx(-2)


def test_the_last_bits_of_single_precision_are_a_tie():
    assert probability_of_improvement(np.array([[0.0925000012]]), np.array([[0.0924999975]])).value == 0.5


def test_pairing_cancels_what_seeds_share():
    """Positive control: without pairs the interval would be as wide as the seeds differ."""
    hard = pd.Series(np.random.default_rng(0).normal(0, 10, 8))
    noise = pd.Series(np.random.default_rng(1).normal(0, 0.1, 8))
    found = paired_difference(hard + 1 + noise, hard)
    assert 0.8 < found.low < found.high < 1.2


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    draw = np.random.default_rng(0)
    samples = draw.normal(0.5, 1.0, (400, 5))
    zero = pd.Series(np.zeros(5))
    found = (paired_difference(pd.Series(sample), zero) for sample in samples)
    covered = np.mean([each.low <= 0.5 <= each.high for each in found])
    assert covered == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(num_seeds):
    scores = pd.Series(np.arange(num_seeds, dtype=float))
    array = scores.to_numpy()[:, None]
    profile = performance_profile(array, [0.5])
    for value, low, high in (
        paired_difference(scores + 1, scores),
        probability_of_improvement(array, array),
        tuple(each[0] for each in profile),
    ):
        assert np.isfinite(value)
        assert np.isnan([low, high]).all()


def test_no_shared_seed_is_refused():
    with pytest.raises(UserError, match="got scores without a shared seed"):
        paired_difference(pd.Series({0: 1.0}), pd.Series({1: 1.0}))


def test_probability_of_improvement_counts_pairs():
    draw = np.random.default_rng(3)
    a, b = draw.integers(0, 4, (5, 2)).astype(float), draw.integers(0, 4, (4, 2)).astype(float)
    counted = [
        np.mean([(x > y) + 0.5 * (x == y) for x, y in itertools.product(a[:, task], b[:, task])]) for task in (0, 1)
    ]
    found = probability_of_improvement(a, b)
    assert found.value == pytest.approx(np.mean(counted))
    assert found.low < found.value < found.high
    assert probability_of_improvement(b, a).value == pytest.approx(1 - found.value)


def test_separated_and_equal_methods():
    low, high = np.array([[0.0], [0.1], [0.2]]), np.array([[1.0], [1.1], [1.2]])
    assert probability_of_improvement(high, low) == (1, 1, 1)
    assert probability_of_improvement(low, low).value == 0.5
    assert probability_of_improvement(np.zeros((3, 1)), np.zeros((4, 1))) == (0.5, 0.5, 0.5)
    assert np.isnan(probability_of_improvement(high, low * np.nan)).all()


def test_tasks_must_agree():
    with pytest.raises(UserError, match="got scores on 2 and on 1 tasks"):
        probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 1)))


def _metrics(name="train_accuracy", num_tasks=7):
    """Method b is 0.1 above a in every seed; c has stopped a task earlier, and one of its seeds before."""
    rows = [
        (method, seed, task, name, above + 0.01 * task + 0.1 * seed)
        for method, above in (("a", 0.0), ("b", 0.1), ("c", 0.2))
        for seed in range(4)
        for task in range(1, num_tasks + 1 - (method == "c") - (method == "c" and seed == 3))
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


def test_comparison_of_a_run():
    found = compare(_metrics(), "train_accuracy", "a").set_index("method")
    assert found["num_seeds"].to_dict() == {"b": 4, "c": 3}
    assert found["difference"].to_dict() == pytest.approx({"b": 0.1, "c": 0.2})
    assert found.loc["b", ["difference_low", "difference_high"]].tolist() == pytest.approx([0.1, 0.1])
    assert found.loc["b", "probability"] == pytest.approx((6 + 3 + 3 * 0.5) / 16, abs=0.1)
    assert found.loc["b", "probability_low"] < found.loc["b", "probability"]


def test_of_errors_the_lower_is_better():
    above = compare(_metrics(), "train_accuracy", "a").set_index("method")
    errors = compare(_metrics("train_squared_error"), "train_squared_error", "a").set_index("method")
    assert errors["difference"].tolist() == pytest.approx(above["difference"].tolist())
    assert errors["probability"].tolist() == pytest.approx((1 - above["probability"]).tolist())
    assert not lower_is_better("episode_return")


def test_environments_are_compared_one_by_one():
    found = compare(_metrics(num_tasks=3), "train_accuracy", "a", {1: "x", 2: "y", 3: "x"})
    assert found.loc[0, ["difference/x", "difference/y"]].tolist() == pytest.approx([0.1, 0.1])
    assert "difference" not in found


def test_what_cannot_be_compared():
    with pytest.raises(UserError, match="got the baseline 'd'; wanted one of a, b, c"):
        compare(_metrics(), "train_accuracy", "d")
    with pytest.raises(UserError, match="got the metric 'test_accuracy'; wanted one of train_accuracy"):
        compare(_metrics(), "test_accuracy", "a")
    alone = _metrics()
    with pytest.raises(UserError, match="got a run of a alone; wanted another method"):
        compare(alone[alone["method"] == "a"], "train_accuracy", "a")
