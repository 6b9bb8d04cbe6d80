"""What figures draw: gaps, thinning, axes."""

import numpy as np
import pandas as pd
import pytest

from pliant.results.report._curves import over_tasks


def _table(values, metric="train_accuracy"):
    """One method; rows are seeds."""
    rows = [("m", seed, task, metric, value) for seed, own in enumerate(values) for task, value in enumerate(own, 1)]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


def test_a_gap_where_no_seed_has_a_number():
    other = _table([[0.1, 0.2, 0.3]]).assign(method="other")
    table = pd.concat([other, _table([[0.5, np.nan, 0.7], [0.7, np.inf, np.nan]])])
    line = over_tasks(table, "train_accuracy", 10)["lines"]["m"]
    assert line["x"] == [1, 2, 3]
    assert line["mean"] == [0.6, None, 0.7]
    assert line["seeds"] == {"0": [0.5, None, 0.7], "1": [0.7, None, None]}


def test_tasks_after_which_nothing_was_measured_are_no_gap():
    spec = over_tasks(_table([[1.0, np.nan, np.nan, 2.0]], "hessian_trace"), "hessian_trace", 10)
    assert spec["lines"]["m"]["x"] == [1, 4]


def test_nothing_finite_is_no_figure():
    assert over_tasks(_table([[np.nan]]), "train_accuracy", 10) is None


def test_long_lines_are_thinned_and_keep_their_ends():
    line = over_tasks(_table([np.linspace(0, 1, 101)] * 2), "train_accuracy", 5)["lines"]["m"]
    assert line["x"] == [1, 26, 51, 76, 101]
    assert line["mean"] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("metric", "values", "chance", "begins", "said"),
    [
        ("train_accuracy", [0.2, 0.9], None, True, ""),
        ("train_accuracy", [0.8, 0.9], 0.1, True, "dotted: chance, 0.1"),
        ("train_accuracy", [0.8, 0.9], None, False, "the axis does not begin at 0"),
        ("loss", [0.2, 0.9], None, False, ""),
    ],
)
def test_the_axis_of_a_share_begins_at_zero_or_the_caption_says_so(metric, values, chance, begins, said):
    spec = over_tasks(_table([values], metric), metric, 10, chance=chance)
    assert spec["from_zero"] is begins
    assert said in spec["caption"]
    assert said or "axis" not in spec["caption"]
