"""Trackers: functions of one's own, event files of TensorBoard, W&B without a network."""

import importlib.util
import logging
import os
import subprocess
import sys

import pandas as pd
import pytest

import pliant
from pliant.errors import UserError
from pliant.results import TRACKERS, Tracker, tracking

ROWS = pd.DataFrame(
    [("adam", 0, 10, "loss", 0.5), ("adam", 0, 20, "loss", 0.25), ("adam", 1, 20, "loss", 1.0),
     ("a:b/c", 0, 20, "x", 2.0)],
    columns=["method", "seed", "step", "metric", "value"],
)  # fmt: skip
SMALL = {"methods": "adam", "seeds": 2, "tasks": 2, "epochs": 1, "widths": (8,), "train_size": 100}


def test_a_run_is_tracked_by_a_function_and_logged(tmp_path, caplog):
    shown, closed = [], []

    def mine(folder, configuration):
        assert folder == tmp_path
        assert configuration["stream"]["name"] == "random-labels"
        return Tracker(shown.append, lambda: closed.append(True))

    with caplog.at_level(logging.INFO, "pliant"):
        folder = pliant.run("random-labels", out=tmp_path, track=mine, **SMALL)
    assert closed == [True]
    pd.testing.assert_frame_equal(pd.concat(shown, ignore_index=True), folder.metrics)
    assert any("adam: task 2 of 2" in message for message in caplog.messages)
    caplog.clear()
    pliant.run("random-labels", out=tmp_path, track=mine, **SMALL)
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        f"{tmp_path}: nothing tracked: the run was finished, and trackers only get tasks as they train"
    ]


def test_event_files_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(["tensorboard"], tmp_path, {}) as log:
        log(ROWS)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "adam" / "seed-0")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(10, 0.5), (20, 0.25)]
    assert (tmp_path / "tensorboard" / "a-b-c" / "seed-0").is_dir()


OFFLINE = """
from pathlib import Path
import pandas as pd
from pliant.results import tracking
rows = pd.DataFrame([("adam", 0, 10, "loss", 0.5), ("adam", 1, 10, "loss", 1.0)],
                    columns=["method", "seed", "step", "metric", "value"])
with tracking(["wandb"], Path("."), {"config": {"tasks": 2}}) as log:
    log(rows)
"""


def test_wandb_without_a_network(tmp_path):
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    settings = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, env=settings, check=True)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.parametrize("name", TRACKERS)
def test_without_the_package_its_extra_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=rf"pip install 'pliant\[{name}\]'"), tracking([name], tmp_path, {}):
        pass


def test_unknown_trackers_are_refused(tmp_path):
    message = "got the tracker 'tensorbord'; wanted one of tensorboard, wandb. Did you mean 'tensorboard'?"
    with pytest.raises(UserError, match=message), tracking(["tensorbord"], tmp_path, {}):
        pass


def test_a_tracker_that_fails_says_so(tmp_path):
    def broken(rows):
        raise RuntimeError("no service")

    closed = []
    mine = Tracker(broken, lambda: closed.append(True))
    message = r"got RuntimeError of a tracker: no service; wanted .*the same command continues the run"
    with pytest.raises(UserError, match=message), tracking([lambda *_: mine], tmp_path, {}) as log:
        log(ROWS)
    assert closed == [True]
