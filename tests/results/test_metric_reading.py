"""Metrics that are read in parts are the rows that reading all of them finds."""

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder, RunRecord, summarize_run
from pliant.results import _metric_parts as metric_parts
from pliant.results._metric_parts import append_task, no_metrics
from pliant.results._metric_reading import methods_in, metrics_in, read_end, read_tasks

LABELS = ("m[lr=1]", "m[lr=2]")
RARE = (1, 2, 5, 10, 20)
"""Tasks after which `rare` is measured."""


def _rows(task, seeds=(0, 1), labels=LABELS):
    names = ["diverged", "loss", *(["rare"] if task in RARE else []), "score", *(["told"] if task > 1 else [])]
    rows = [
        ("b", label, "n", "d", seed, task, 10 * task, name, (name != "diverged") * (task + seed / 7 + len(name)))
        for label in labels
        for seed in seeds
        for name in names
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture(params=[2**17, 30], ids=["one-row-group", "many"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr(metric_parts, "_ROWS", request.param)
    for task in range(1, 24):
        append_task(tmp_path, task, _rows(task))
    return tmp_path


def _equal(found, wanted):
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True), check_exact=True)


def test_row_groups_are_of_whole_tasks_and_not_larger_than_asked_by_more_than_one(folder):
    groups = [
        group.read("task")["task"].to_pylist() for group in metric_parts.row_groups(metric_parts.parts_in(folder))
    ]
    assert sum(len(set(tasks)) for tasks in groups) == 23
    sizes = list(map(len, groups))
    assert max(sizes) < metric_parts._ROWS + 20
    assert len(sizes) == (5 if metric_parts._ROWS > 30 else 13)


def test_some_metrics_are_those_rows_of_all(folder):
    whole = read_tasks(folder)
    _equal(whole, pd.concat([no_metrics(), *map(_rows, range(1, 24))]))
    for names in (["rare"], ["loss", "told"], []):
        _equal(read_tasks(folder, names), whole[whole["metric"].isin(names)])
    assert read_tasks(folder, ["absent"]).empty


@pytest.mark.parametrize("num_tasks", [1, 3, 5])
def test_the_end_is_the_last_tasks_that_have_a_metric(folder, num_tasks):
    whole = read_tasks(folder)
    last = {name: own["task"].drop_duplicates().nlargest(num_tasks) for name, own in whole.groupby("metric")}
    assert set(last["rare"]) == set(RARE[-num_tasks:])
    wanted = [
        metric == "loss" or task in set(last[metric]) for metric, task in zip(whole.metric, whole.task, strict=True)
    ]
    _equal(read_end(folder, ["loss"], num_tasks), whole[wanted])


def test_names_without_the_rows(folder):
    assert methods_in(folder) == list(LABELS)
    assert metrics_in(folder) == ["diverged", "loss", "rare", "score", "told"]
    assert methods_in(folder / "absent") == metrics_in(folder / "absent") == []


@pytest.mark.parametrize(
    "read", [lambda path: read_tasks(path, ["loss"]), lambda path: read_end(path, [], 1), metrics_in]
)
def test_a_damaged_file_is_named(folder, read):
    (folder / "tasks-00022-00022.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"tasks-00022-00022\.parquet, which cannot be read"):
        read(folder)
    pd.DataFrame({"a": [1]}).to_parquet(folder / "tasks-00022-00022.parquet")
    with pytest.raises(UserError, match=r"tasks-00022-00022\.parquet, which cannot be read"):
        read(folder)


def test_a_run_folder_finds_with_less_what_its_metrics_say(tmp_path):
    """Two blocks, of which one is still being trained, and a method that has only begun."""
    folder = RunFolder.begin(tmp_path, RunRecord("a run", "score", None, {}))
    with folder.open_method("m", {}) as method:
        for tasks, number in ((23, 2), (7, 4)):
            block = method.blocks(number)[-1]
            for task in range(1, tasks + 1):
                block.record_task(task, _rows(task, block.seeds), 1.0, _rows(task, block.seeds))
    with folder.open_method("other", {}):
        pass
    metrics = folder.metrics
    for found, whole in (
        (folder.select("rare", "score"), metrics),
        (folder.select_curves("rare", "score"), folder.curves),
    ):
        _equal(found, whole[whole["metric"].isin(["rare", "score"])])
    pd.testing.assert_frame_equal(folder.summary(), summarize_run(metrics, "score"), check_exact=True)
    assert folder.summary()["num_seeds"].tolist() == [2, 2]
    assert folder.metric_names == metrics["metric"].unique().tolist()
    assert folder.labels("m") == list(LABELS)
    assert folder.labels("other") == folder.labels("absent") == []
    assert folder.has_metrics
    assert folder.title == "a run, 4 seeds"
    assert np.allclose(folder.seconds["m[lr=1]"], [1.0] * 7 + [0.5] * 16)
    assert not RunFolder.begin(tmp_path / "empty", RunRecord("a run", "score", None, {})).has_metrics
