"""Checkpoints that cannot be written: one error that says why, and the one before stays."""

import errno
import logging
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

from pliant.errors import UserError
from pliant.training import Checkpoints

OF_TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "params" in OCDBT database at local file "/a/": '
    "Failed to write 97576 bytes to file 7: No space left on device [os_error_code='28'] [spec='{\"a\": 1}']"
)


def _state(value):
    return {"a": np.full(3, value, np.float32)}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (ValueError(OF_TENSORSTORE), "No space left on device"),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_a_write_that_fails(tmp_path, monkeypatch, failure, reason):
    def fail(self, *arguments, **options):
        raise failure

    level, hook = logging.getLogger("absl").level, sys.unraisablehook
    with Checkpoints(tmp_path / "all", 9) as checkpoints:
        checkpoints.save(1, _state(1.0))
        monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
        with pytest.raises(UserError, match=rf"cannot be written in .*all \({reason}\); wanted free space") as caught:
            checkpoints.save(2, _state(2.0))
    assert caught.value.__cause__ is caught.value.__context__ is None  # what has failed is let go
    monkeypatch.undo()
    monkeypatch.setattr(sys, "unraisablehook", hook)
    assert logging.getLogger("absl").level == level
    with Checkpoints(tmp_path / "all", 9) as checkpoints:
        assert checkpoints.kept() == [1]
        np.testing.assert_array_equal(checkpoints.restore(_state(0.0))[0]["a"], np.ones(3))


def test_late_complaints_of_a_failed_write_are_passed_over(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(ocp.CheckpointManager, "save", lambda self, *arguments, **options: 1 / 0)
    with Checkpoints(tmp_path, 9) as checkpoints, pytest.raises(UserError, match="division by zero"):
        checkpoints.save(1, _state(1.0))
    for text in ("Event loop is closed", "another"):
        sys.unraisablehook(type("Told", (), {"exc_value": RuntimeError(text)}))
    assert [str(each.exc_value) for each in told] == ["another"]


def test_the_newest_is_restored_unless_another_is_named(tmp_path):
    with Checkpoints(tmp_path / "all", 2, keep="all") as checkpoints:
        checkpoints.save(1, _state(1.0))
        checkpoints.save(2, _state(2.0))
        np.testing.assert_array_equal(checkpoints.restore(_state(0.0))[0]["a"], [2, 2, 2])
        np.testing.assert_array_equal(checkpoints.restore(_state(0.0), num_tasks_done=1)[0]["a"], [1, 1, 1])


def _offered(folder, numbers, source=(), **options):
    """The checkpoints after each offer, and at the end."""
    found = []
    with Checkpoints(folder, 9, **options) as checkpoints:
        for number in numbers:
            checkpoints.offer(number, _state(number), source)
            found.append(checkpoints.kept())
    with Checkpoints(folder, 9, **options) as checkpoints:
        state, _ = checkpoints.restore(_state(0.0), source)
        return [*found, (checkpoints.kept(), state["a"][0])]


def test_after_short_tasks_the_newest_is_written_at_the_end(tmp_path):
    assert _offered(tmp_path, (1, 2, 3)) == [[1], [1], [1], ([3], 3)]
    assert _offered(tmp_path, ()) == [([3], 3)]


def test_what_is_not_due_is_written_although_the_run_is_interrupted(tmp_path):
    def numbers():
        yield from (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _offered(tmp_path, numbers())
    assert _offered(tmp_path, ()) == [([2], 2)]


def test_long_tasks_states_of_sources_and_all_checkpoints_are_written_at_once(tmp_path, monkeypatch):
    assert _offered(tmp_path / "source", (1, 2), {"replay": np.ones(2, np.float32)}) == [[1], [2], ([2], 2)]
    assert _offered(tmp_path / "all", (1, 2), keep="all") == [[1], [1, 2], ([1, 2], 2)]
    monkeypatch.setattr("pliant.training._checkpoint._PAUSE", 0.0)
    assert _offered(tmp_path / "long", (1, 2)) == [[1], [2], ([2], 2)]


def test_a_checkpoint_of_another_structure_is_not_to_be_removed(tmp_path):
    with Checkpoints(tmp_path / "all", 1) as checkpoints:
        checkpoints.save(1, _state(1.0))
        with pytest.raises(
            UserError, match=r"got a checkpoint of another structure in .*; .*Use the version"
        ) as caught:
            checkpoints.restore(_state(0.0) | {"b": np.zeros(2, np.float32)})
    assert "Remove" not in str(caught.value)
