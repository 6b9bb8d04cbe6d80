"""How far a run is, and which seeds went wrong."""

import math

import pytest

from pliant.results import RunFolder, RunRecord
from pliant.results.report._progress import progress, said_of_progress, troubles
from report_runs import ENVIRONMENT, make_run


def test_a_finished_run(tmp_path):
    folder = make_run(tmp_path / "run")
    assert said_of_progress(progress(folder)) == "Finished: 2 methods, 4 tasks, 3 seeds."
    assert troubles(folder) == []


def test_an_unfinished_run_says_how_far_each_method_is(tmp_path):
    folder = make_run(tmp_path / "run", asked=6)
    make_run(tmp_path / "run", methods=("sgd",), tasks=6)
    found = progress(RunFolder(folder.path))
    assert [each[:3] for each in found] == [("adam", 4, 6), ("redo", 4, 6), ("sgd", 6, 6)]
    assert said_of_progress(found) == (
        "Unfinished: adam has finished 4 of 6 tasks; redo has finished 4 of 6 tasks; 1 of 3 methods is finished."
    )


def test_a_method_whose_first_task_is_not_finished(tmp_path):
    record = RunRecord("a title", "train_accuracy", None, {})
    with RunFolder.begin(tmp_path / "run", record).open_method("adam", {}) as method:
        method.record_start(ENVIRONMENT, 5, 2)
    found = progress(RunFolder(tmp_path / "run"))
    assert said_of_progress(found) == ("Unfinished: adam has finished 0 of 5 tasks with 0 of 2 seeds.")


def test_new_seeds_are_awaited(tmp_path):
    folder = make_run(tmp_path / "run", methods=("adam",))
    with RunFolder(folder.path).open_method("adam", {"learning_rate": 0.001}) as method:
        method.record_start(ENVIRONMENT, 4, 8)
    assert "adam has finished 0 of 4 tasks with 3 of 8 seeds" in said_of_progress(progress(RunFolder(folder.path)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_seeds_that_diverged_and_numbers_that_are_not_finite(tmp_path, value):
    def change(method, seed, task, metric, number):
        if method == "adam" and seed == 1 and task >= 3:
            return 1.0 if metric == "diverged" else value
        return value if (method, seed, task, metric) == ("redo", 2, 2, "train_accuracy") else number

    assert troubles(make_run(tmp_path / "run", change=change)) == [
        "adam: seed 1 diverged in task 3. Its parameters are not finite.",
        "redo: seed 2 has no finite train accuracy in task 2.",
        "Means are over the seeds that have a finite number; lines have gaps where none has.",
    ]


def test_many_seeds_are_counted(tmp_path):
    def change(method, seed, task, metric, value):
        return 1.0 if metric == "diverged" else value

    lines = troubles(make_run(tmp_path / "run", tasks=1, seeds=10, change=change))
    assert len(lines) == 14
    assert lines[12] == "8 more seeds are like these."
