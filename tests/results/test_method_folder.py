"""A method's folder: blocks of seeds, what is joined of them, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder, RunRecord, SeedBlock

RECORD = RunRecord("digits", "train_accuracy", 0.25, {"epochs": 2})
LABELS = ("m[b=1]", "m[b=2]")


def _rows(task, seeds, labels=("m",)):
    rows = [("b", label, "n", "d", seed, task, 10, "loss", 0.1 * seed + task) for label in labels for seed in seeds]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _train(path, num_seeds, num_tasks, labels=("m",)):
    with RunFolder.begin(path, RECORD).open_method("m", {}) as method:
        for block in method.blocks(num_seeds):
            for task in range(block.num_tasks_stored() + 1, num_tasks + 1):
                rows = _rows(task, block.seeds, labels)
                points = pd.concat([rows.assign(step=step, value=rows["value"] / step) for step in (5, 10)])
                order = ["method", "seed"]
                block.record_task(task, rows, 1.0, points.sort_values(order, kind="stable"))
    return RunFolder(path)


@pytest.fixture
def method(tmp_path):
    with RunFolder.begin(tmp_path / "run", RECORD).open_method("m", {}) as opened:
        yield opened


def test_a_run_that_is_extended_is_read_as_one_begun_so(tmp_path):
    for labels in (("m",), LABELS):
        whole = _train(tmp_path / f"whole-{len(labels)}", 6, 4, labels)
        path = tmp_path / f"extended-{len(labels)}"
        for num_seeds, num_tasks in ((2, 3), (2, 4), (6, 4), (1, 2)):
            extended = _train(path, num_seeds, num_tasks, labels)
        blocks = sorted(each.name for each in (path / "methods" / "m").glob("seeds-*"))
        assert blocks == ["seeds-0000-0001", "seeds-0002-0005"]
        pd.testing.assert_frame_equal(extended.metrics, whole.metrics, check_exact=True)
        pd.testing.assert_frame_equal(extended.curves, whole.curves, check_exact=True)
        assert len(whole.curves) == 2 * len(whole.metrics)
        assert extended.seconds == {label: [2.0 / len(labels)] * 4 for label in labels}


def test_blocks_fill_what_is_lacking(method):
    for first, last in ((2, 3), (6, 6)):
        SeedBlock(method.path / f"seeds-{first:04d}-{last:04d}", range(first, last + 1)).record_task(
            1, _rows(1, range(first, last + 1)), 1.0
        )
    names = [block.path.name for block in method.blocks(9)]
    assert names == ["seeds-0002-0003", "seeds-0006-0006", "seeds-0000-0001", "seeds-0004-0005", "seeds-0007-0008"]
    assert [block.path.name for block in method.blocks()] == names[:2]


def test_a_block_without_metrics_is_none(method):
    (block,) = method.blocks(2)
    block.record_arrays(1, {"a/b": np.zeros(2)})
    block.checkpoints.mkdir()
    assert method.blocks() == []
    assert [each.seeds for each in method.blocks(3)] == [range(3)]


def test_two_blocks_with_the_same_seed(method):
    (block,) = method.blocks(4)
    for each in (block, block._replace(path=method.path / "seeds-0003-0005")):
        each.record_task(1, _rows(1, each.seeds), 1.0)
    with pytest.raises(UserError, match=r"seeds-0000-0003 and seeds-0003-0005, which hold the same seeds"):
        method.blocks(4)


def test_starts_are_kept_once(method, tmp_path):
    assert method.num_tasks == 0
    starts = [(version, tasks, 4) for version, tasks in (("1", 20), ("1", 20), ("2", 20), ("2", 10))]
    for version, tasks, seeds in starts:
        method.record_start({"jax": version}, tasks, seeds)
    config = json.loads((method.path / "config.json").read_text())
    assert config["starts"] == [
        {"tasks": tasks, "seeds": seeds, "environment": {"jax": version}}
        for version, tasks, seeds in (starts[0], *starts[2:])
    ]
    assert RunFolder(tmp_path / "run").num_tasks == 20


@pytest.mark.parametrize("content", ["", "\xff", "1,x\nfive", "1,7\n1,2.5\n2,"])
def test_seconds_that_cannot_be_read_are_left_out(method, content):
    (block,) = method.blocks(1)
    block.record_task(1, _rows(1, (0,)), seconds=1.5)
    (block.path / "seconds.csv").write_bytes(content.encode("latin-1"))
    assert method.seconds() == ([2.5] if content.startswith("1,7") else [])


def test_arrays_of_a_task_are_added_to(method):
    (block,) = method.blocks(1)
    block.record_arrays(3, {})
    assert not (block.path / "arrays").exists()
    block.record_arrays(3, {"a/b": np.zeros(1), "a/c": np.ones(1)})
    block.record_arrays(3, {"a/b": np.full(1, 2.0)})
    block.record_task(1, _rows(1, (0,)), 1.0)
    assert method.arrays(1) == {3: {"a/b": np.full(1, 2.0), "a/c": np.ones(1)}}
    assert [file.name for file in (block.path / "arrays").iterdir()] == ["task-00003.npz"]


def test_arrays_of_blocks_are_joined_by_point_and_seed(tmp_path):
    _train(tmp_path, 2, 1, LABELS)
    folder = _train(tmp_path, 3, 1, LABELS)
    with folder.open_method("m", {}) as method:
        of_two, of_one = method.blocks()
        of_two.record_arrays(1, {"a/b": np.array([[0, 1], [2, 3], [10, 11], [12, 13]])})
        of_one.record_arrays(1, {"a/b": np.array([[4, 5], [14, 15]]), "a/c": np.array([7.0, 8.0])})
        of_one.record_arrays(2, {"a/b": np.array([[6, 7], [8, 9]])})
    arrays = folder.arrays("m")
    assert arrays[1]["a/b"].tolist() == [[0, 1], [2, 3], [4, 5], [10, 11], [12, 13], [14, 15]]
    np.testing.assert_array_equal(arrays[1]["a/c"], [np.nan, np.nan, 7, np.nan, np.nan, 8])
    np.testing.assert_array_equal(arrays[2]["a/b"][:, 0], [np.nan, np.nan, 6, np.nan, np.nan, 8])
    assert folder.arrays("absent") == {}


def test_arrays_that_cannot_be_read(method):
    (block,) = method.blocks(1)
    block.record_task(1, _rows(1, (0,)), 1.0)
    block.record_arrays(1, {"a/b": np.zeros(1)})
    (block.path / "arrays" / "task-00001.npz").write_bytes(b"PK not really")
    with pytest.raises(UserError, match=r"task-00001\.npz, which cannot be read.*figures are then drawn without it"):
        method.arrays(1)


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ("[]", "lacks id, begun, configuration, starts"),
        ('{"id": "a", "begun": "b", "configuration": {}}', "lacks starts"),
    ],
)
def test_a_damaged_config(tmp_path, content, how):
    folder = _train(tmp_path, 1, 1)
    config = tmp_path / "methods" / "m" / "config.json"
    config.unlink() if content is None else config.write_text(content)
    match = rf"m/config\.json, which is damaged: it {how}.*remove .*m and start the run again"
    with pytest.raises(UserError, match=match):
        _ = RunFolder(tmp_path).metrics
    with pytest.raises(UserError, match=match), folder.open_method("m", {}):
        pass
