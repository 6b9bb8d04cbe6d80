import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pliant.results import diagnosis_table, summarize_run, summary_table


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


def test_what_a_diagnosis_did_not_measure_is_listed_and_nothing_is_cut():
    console = Console(file=io.StringIO(), width=60)
    name = "a_metric_with_a_name_that_is_far_too_long_for_this_console"
    table = diagnosis_table(
        "title", {"one": {name: 0.5}}, {"one": "what it is"}, {"two": "why [not]"}, {"conv/bias": "layer not seen"}
    )
    console.print(table)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    columns = ["".join(cell) for cell in zip(*[row for row in cells if len(row) == 4], strict=True)]
    assert "…" not in console.file.getvalue()
    assert name in columns[1]
    assert "two" in columns[0]
    assert "conv/bias" in columns[0]
    assert "notmeasured:why[not]" in columns[3].replace(" ", "")
    assert "layernotseen" in columns[3].replace(" ", "")
