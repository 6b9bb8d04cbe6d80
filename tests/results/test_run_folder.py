import json

import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder

CONFIGURATION = {"config": {"tasks": 2}, "stream": {"headline": "train_accuracy", "num_classes": 4}}


def _rows(task, value):
    return pd.DataFrame([("b", "m", "n", "d", 0, task, 10, "train_accuracy", value)], columns=list(COLUMNS))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIGURATION, "id")


def test_tasks_are_replaced_not_doubled(folder):
    for task, value in ((0, 0.1), (1, 0.2), (0, 0.1), (1, 0.3)):
        folder.record_task("m", task, _rows(task, value), seconds=1.0 + task)
    again = RunFolder(folder.path)
    assert again.metrics["value"].tolist() == [0.1, 0.3]
    assert again.seconds == {"m": [1.0, 2.0]}


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    folder.record_task("m", 0, _rows(0, 0.1), 1.0)
    before = (folder.path / "metrics.parquet").read_bytes()

    def half(self, path, **options):
        path.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(KeyboardInterrupt):
        folder.record_task("m", 1, _rows(1, 0.2), 1.0)
    assert (folder.path / "metrics.parquet").read_bytes() == before
    assert not [file for file in folder.path.iterdir() if file.name.startswith(".metrics")]


def test_environments_are_kept_once(folder):
    for environment in ({"jax": "1"}, {"jax": "1"}, {"jax": "2"}):
        folder.record_environment(environment)
    config = json.loads((folder.path / "config.json").read_text())
    assert config["environment"] == [{"jax": "1"}, {"jax": "2"}]


def test_the_difference_is_named(folder):
    other = {**CONFIGURATION, "config": {"tasks": 3, "seeds": 1}}
    with pytest.raises(UserError, match=r"another configuration \(config.seeds, config.tasks\)"):
        RunFolder.create(folder.path, other, "other")


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no readable config.json; wanted the folder of a run"):
        RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"no readable config.json"):
        RunFolder(tmp_path / "absent")


def test_metrics_that_cannot_be_read(folder):
    (folder.path / "metrics.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"metrics.parquet, which cannot be read"):
        RunFolder(folder.path)


def test_facts(folder):
    assert folder.headline == "train_accuracy"
    assert folder.chance == 0.25
