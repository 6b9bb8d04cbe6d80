import json
import pathlib

import filelock
import numpy as np
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
    for task, value in ((1, 0.1), (2, 0.2), (1, 0.1), (2, 0.3)):
        folder.record_task(task, _rows(task, value), seconds=0.0 + task)
    again = RunFolder(folder.path)
    assert again.metrics["value"].tolist() == [0.1, 0.3]
    assert again.seconds == {"m": [1.0, 2.0]}


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    folder.record_task(1, _rows(1, 0.1), 1.0)
    before = (folder.path / "metrics.parquet").read_bytes()

    def half(self, path, **options):
        path.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(KeyboardInterrupt):
        folder.record_task(2, _rows(2, 0.2), 1.0)
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
    again.record_task(2, _rows(2, 0.5), 2.0)
    assert RunFolder(folder.path).seconds == {"m": [0.0, 2.0]}


STREAM = {"config": {"network": "mlp"}, "stream": {"name": "a"}}


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "is not valid JSON"),
        ("\xff", "is not valid JSON"),
        ("5", "lacks the configuration of a run"),
        ("[]", "lacks the configuration of a run"),
        ("{}", "lacks id, environment, configuration"),
        ('{"configuration": {}}', "lacks id, environment, config, stream"),
        ('{"id": 1, "configuration": 2, "environment": []}', "lacks id, configuration"),
        (
            json.dumps({"id": "a", "environment": [], "configuration": STREAM}),
            r"lacks stream\.dataset, stream\.headline, stream\.chance",
        ),
        (
            json.dumps({"format": "b", "id": "a", "environment": [], "configuration": CONFIGURATION}),
            "lacks a whole number as its format",
        ),
    ],
)
def test_a_damaged_config_is_called_damaged(folder, content, how):
    (folder.path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=rf"config\.json, which is damaged: it {how}.*Restore the file from a copy"):
        RunFolder(folder.path)


def test_the_title_of_a_damaged_config(tmp_path):
    with RunFolder.opened(tmp_path, {**CONFIGURATION, "config": {}}, "id") as opened:
        pass
    with pytest.raises(UserError, match=r"damaged: it lacks config\.network, config\.seeds"):
        _ = opened.title


def test_a_config_that_may_not_be_read(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"config\.json: Permission denied.*check its permissions"):
        RunFolder(folder.path)


def test_a_folder_of_a_later_version(folder):
    config = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps(config | {"format": 3}))
    with pytest.raises(UserError, match=r"a later version of pliant wrote; wanted a run folder of format 2"):
        RunFolder(folder.path)


def test_tasks_count_from_one_in_the_file(folder):
    folder.record_task(1, _rows(1, 0.1), 1.0)
    assert pd.read_parquet(folder.path / "metrics.parquet")["task"].tolist() == [1]
    assert RunFolder(folder.path).metrics["task"].tolist() == [1]
    assert folder.num_tasks_stored("m") == 1
    folder.record_arrays("m", 3, {"a/b": np.zeros(1)})
    assert list(folder.arrays("m")) == [3]
    assert [file.name for file in (folder.path / "arrays" / "m").iterdir()] == ["task-00003.npz"]


def test_folders_of_earlier_versions_are_read_and_continued(tmp_path):
    """They have no format, and counted tasks from 0 in the file."""
    config = {"id": "id", "configuration": CONFIGURATION, "environment": []}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / ".lock").touch()
    pd.concat([_rows(0, 0.1), _rows(1, 0.2)]).to_parquet(tmp_path / "metrics.parquet", index=False)
    assert RunFolder(tmp_path).metrics["task"].tolist() == [1, 2]
    with RunFolder.opened(tmp_path, CONFIGURATION, "id") as opened:
        assert opened.num_tasks_stored("m") == 2
        opened.record_task(3, _rows(3, 0.3), 1.0)
    assert pd.read_parquet(tmp_path / "metrics.parquet")["task"].tolist() == [0, 1, 2]
    assert RunFolder(tmp_path).metrics["task"].tolist() == [1, 2, 3]


def test_paths_may_be_texts_and_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with RunFolder.opened("~/run", CONFIGURATION, "id"):
        pass
    assert RunFolder("~/run").path == tmp_path / "run"
    assert RunFolder(str(tmp_path / "run")).headline == "train_accuracy"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"run: File exists; wanted a folder that can be written. Choose another --out"):
        RunFolder.opened(tmp_path / "run", CONFIGURATION, "id").__enter__()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), NotImplementedError("no flock here")])
def test_a_folder_that_cannot_be_locked(tmp_path, monkeypatch, error):
    def refuse(self, timeout):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"(Permission denied|no flock here); wanted a folder that can be written"):
        RunFolder.opened(tmp_path / "run", CONFIGURATION, "id").__enter__()


def test_stored_tasks_are_counted_without_gaps(folder):
    for task in (1, 2, 4):
        folder.record_task(task, _rows(task, 0.1), 1.0)
    assert folder.num_tasks_stored("m") == 2
    assert folder.num_tasks_stored("other") == 0


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no config.json; wanted the folder of a run"):
        RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"no config.json"):
        RunFolder(tmp_path / "absent")


def test_metrics_that_cannot_be_read(folder):
    (folder.path / "metrics.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"metrics.parquet, which cannot be read"):
        RunFolder(folder.path)


def test_facts(folder):
    assert folder.headline == "train_accuracy"
    assert folder.chance == 0.25
