"""Run folders of earlier versions: read as the new ones are, and never written."""

import json

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS, RunFolder, RunRecord

CONFIGURATION = {
    "config": {"network": "mlp", "tasks": 20},
    "stream": {"headline": "train_accuracy", "chance": 0.25, "name": "random-labels", "dataset": "digits"},
    "methods": {"m": {"hyperparameters": {"b1": 0.9}}},
}
OLD_COLUMNS = ["benchmark", *COLUMNS[1:]]


@pytest.fixture(params=[1, 2])
def old(request, tmp_path):
    config = {"id": "id", "configuration": CONFIGURATION, "environment": []}
    config |= {"format": 2} if request.param == 2 else {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    first = request.param - 1
    rows = [("b", "m", "n", "d", seed, first + i, 10, "loss", 0.5) for i in range(2) for seed in range(3)]
    pd.DataFrame(rows, columns=OLD_COLUMNS).to_parquet(tmp_path / "metrics.parquet", index=False)
    (tmp_path / "seconds.json").write_text('{"m": [1.0, 2.0]}')
    (tmp_path / "arrays" / "m").mkdir(parents=True)
    np.savez(tmp_path / "arrays" / "m" / "task-00002.npz", **{"a/b": np.arange(3)})
    return tmp_path


def test_everything_is_read(old):
    folder = RunFolder(old)
    assert tuple(folder.metrics.columns) == COLUMNS
    assert folder.metrics["task"].tolist() == [1, 1, 1, 2, 2, 2]  # in format 1 the file counts from 0
    assert folder.seconds == {"m": [1.0, 2.0]}
    assert folder.arrays("m")[2]["a/b"].tolist() == [0, 1, 2]
    assert folder.methods == CONFIGURATION["methods"]
    assert folder.configuration == CONFIGURATION
    assert folder.num_tasks == 20
    assert folder.is_old
    assert (folder.title, folder.headline, folder.chance) == (
        "random-labels on digits, mlp, 3 seeds",
        "train_accuracy",
        0.25,
    )


def test_none_is_continued(old):
    match = r"which an earlier version of pliant wrote; wanted .* Keep it to read .*, and choose another --out"
    with pytest.raises(UserError, match=match):
        RunFolder.begin(old, RunRecord("a title", "train_accuracy", 0.25, CONFIGURATION))
    with pytest.raises(UserError, match=match), RunFolder(old).open_method("m", {}):
        pass
    assert not (old / "methods").exists()


def test_a_stream_without_a_data_set(old):
    config = json.loads((old / "config.json").read_text())
    config["configuration"]["stream"]["dataset"] = "generated"
    (old / "config.json").write_text(json.dumps(config))
    assert RunFolder(old).title == "random-labels, mlp, 3 seeds"


@pytest.mark.parametrize(
    ("configuration", "how"),
    [
        (None, "lacks configuration"),
        ({}, "lacks config, stream"),
        (
            {"config": {"network": "mlp"}, "stream": {"name": "a"}},
            r"lacks stream\.dataset, stream\.headline, stream\.c",
        ),
        ({**CONFIGURATION, "config": {}}, r"lacks config\.network"),
    ],
)
def test_a_damaged_config(old, configuration, how):
    (old / "config.json").write_text(json.dumps({"id": "id", "configuration": configuration, "environment": []}))
    with pytest.raises(UserError, match=rf"config\.json, which is damaged: it {how}"):
        RunFolder(old)


def test_before_the_first_task(old):
    for name in ("metrics.parquet", "seconds.json"):
        (old / name).unlink()
    folder = RunFolder(old)
    assert folder.metrics.empty
    assert tuple(folder.metrics.columns) == COLUMNS
    assert folder.seconds == {}
    assert folder.title == "random-labels on digits, mlp"


@pytest.mark.parametrize("content", ["[]", '{"m": 3}', "not json", "\xff"])
def test_seconds_that_cannot_be_read_are_left_out(old, content):
    (old / "seconds.json").write_bytes(content.encode("latin-1"))
    assert RunFolder(old).seconds == {}


def test_metrics_that_cannot_be_read(old):
    (old / "metrics.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"metrics\.parquet, which cannot be read.*Restore the file from a copy"):
        _ = RunFolder(old).metrics
