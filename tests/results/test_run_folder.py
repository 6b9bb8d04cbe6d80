import json

import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder

CONFIGURATION = {
    "config": {"tasks": 2},
    "stream": {"headline": "train_accuracy", "chance": 0.25, "name": "random-labels", "dataset": "digits"},
}


def _rows(task, value):
    return pd.DataFrame([("b", "m", "n", "d", 0, task, 10, "train_accuracy", value)], columns=list(COLUMNS))


@pytest.fixture
def folder(tmp_path):
    with RunFolder.opened(tmp_path / "run", CONFIGURATION, "id") as opened:
        yield opened


def test_tasks_are_replaced_not_doubled(folder):
    for task, value in ((0, 0.1), (1, 0.2), (0, 0.1), (1, 0.3)):
        folder.record_task(task, _rows(task, value), seconds=1.0 + task)
    again = RunFolder(folder.path)
    assert again.metrics["value"].tolist() == [0.1, 0.3]
    assert again.seconds == {"m": [1.0, 2.0]}


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    folder.record_task(0, _rows(0, 0.1), 1.0)
    before = (folder.path / "metrics.parquet").read_bytes()

    def half(self, path, **options):
        path.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(KeyboardInterrupt):
        folder.record_task(1, _rows(1, 0.2), 1.0)
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
        folder._refuse_another(other, "other")


def test_one_process_at_a_time(folder):
    again = RunFolder.opened(folder.path, CONFIGURATION, "id")
    with pytest.raises(UserError, match="another process is running"):
        again.__enter__()


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".config.json.partial").write_text('{"id": ')
    with RunFolder.opened(tmp_path, CONFIGURATION, "id") as opened:
        assert opened.configuration == CONFIGURATION
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "config.json"]


@pytest.mark.parametrize("content", ["[]", '{"m": 3}', "not json", "\xff"])
def test_seconds_that_cannot_be_read_are_forgotten(folder, content):
    (folder.path / "seconds.json").write_bytes(content.encode("latin-1"))
    again = RunFolder(folder.path)
    again.record_task(1, _rows(1, 0.5), 2.0)
    assert RunFolder(folder.path).seconds == {"m": [0.0, 2.0]}


@pytest.mark.parametrize("content", ["5", "[]", "{}", '{"configuration": {}}', '{"id": 1, "configuration": 2}', "{"])
def test_a_config_that_cannot_be_read(folder, content):
    (folder.path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"no readable config\.json"):
        RunFolder(folder.path)


def test_stored_tasks_are_counted_without_gaps(folder):
    for task in (0, 1, 3):
        folder.record_task(task, _rows(task, 0.1), 1.0)
    assert folder.num_tasks_stored("m") == 2
    assert folder.num_tasks_stored("other") == 0


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
