import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pliant.results import summarize_run, summary_table


def _printed(num_tasks, *, diverged=0.0):
    rows = []
    for method, tasks in num_tasks.items():
        for seed in range(2):
            for task in range(tasks):
                common = (method, seed, task)
                rows += [
                    (*common, "train_accuracy", 0.5 + 0.1 * seed),
                    (*common, "dormant_fraction", np.nan),
                    (*common, "effective_rank", 12.34),
                    (*common, "isometry_deviation", 0.25),
                    (*common, "diverged", diverged * seed),
                ]
    metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
    table = summary_table(
        summarize_run(metrics, "train_accuracy"), {"a": [1.0, 2.5]}, "train_accuracy", "a title [with brackets]"
    )
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_cells():
    printed = _printed({"a": 7})
    for text in (
        "a title [with brackets]: train accuracy",
        "0.550 ± 0.050",
        "0.25",
        "12.3",
        "–",
        "3.5",
        "last 5 tasks",
    ):
        assert text in printed
    assert "diverged" not in printed


def test_diverged_seeds_are_counted():
    assert "1 of 2" in _printed({"a": 2}, diverged=1.0)


@pytest.mark.parametrize(
    ("num_tasks", "header"),
    [({"a": 3}, "last 3 tasks"), ({"a": 7, "b": 6}, "last 5 tasks"), ({"a": 7, "b": 1}, "last ≤ 5 tasks")],
)
def test_the_header_says_how_many_tasks(num_tasks, header):
    assert header in _printed(num_tasks)
