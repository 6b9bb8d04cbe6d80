"""Metrics in parts: what is read is what was written, whatever was merged, replaced or killed."""

import os
import pathlib
import shutil
import threading

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pliant.errors import UserError
from pliant.results import COLUMNS
from pliant.results._metric_parts import append_task, no_metrics, num_tasks_in
from pliant.results._metric_reading import read_tasks


def _rows(task, value=None):
    value = task / 7 if value is None else value
    return pd.DataFrame(
        [("b", "m", "n", "d", seed, task, 10, "loss", value * (seed + 1)) for seed in (0, 1)], columns=list(COLUMNS)
    )


def _whole(num_tasks):
    return pd.concat([no_metrics(), *map(_rows, range(1, num_tasks + 1))], ignore_index=True)


def _names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture(scope="module")
def of_119(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "metrics"
    for task in range(1, 120):
        append_task(folder, task, _rows(task))
    return folder


@pytest.fixture
def parts(of_119, tmp_path):
    return shutil.copytree(of_119, tmp_path / "metrics")


def test_an_empty_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert num_tasks_in(folder) == 0
        pd.testing.assert_frame_equal(read_tasks(folder), no_metrics())


def test_files_stay_few_and_lose_nothing(of_119):
    singles = [f"tasks-{task:05d}-{task:05d}.parquet" for task in range(111, 120)]
    assert _names(of_119) == ["tasks-00001-00100.parquet", "tasks-00101-00110.parquet", *singles]
    pd.testing.assert_frame_equal(read_tasks(of_119), _whole(119), check_exact=True)


def test_any_reader_of_parquet_reads_the_folder(of_119):
    stored = pd.read_parquet(of_119).sort_values(["task", "seed"], ignore_index=True)
    pd.testing.assert_frame_equal(stored, _whole(119), check_exact=True)


def test_values_that_are_no_numbers(tmp_path):
    for task, value in enumerate((np.nan, np.inf, -0.0, 5e-324), start=1):
        append_task(tmp_path, task, _rows(task, value))
        assert read_tasks(tmp_path)["value"].to_numpy()[-2].tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("task", [1, 57, 100, 105, 119, 120])
def test_a_task_that_is_written_again_replaces_itself_and_what_follows(parts, task):
    append_task(parts, task, _rows(task))
    assert num_tasks_in(parts) == task
    pd.testing.assert_frame_equal(read_tasks(parts), _whole(task), check_exact=True)
    for later in range(task + 1, 131):
        append_task(parts, later, _rows(later))
    assert len(_names(parts)) < 12
    pd.testing.assert_frame_equal(read_tasks(parts), _whole(130), check_exact=True)


def test_an_empty_or_broken_file_is_damaged(parts):
    for content in (b"", b"PAR1 not really"):
        (parts / "tasks-00112-00112.parquet").write_bytes(content)
        assert num_tasks_in(parts) == 119  # names alone are looked at
        with pytest.raises(
            UserError, match=r"tasks-00112-00112\.parquet, which cannot be read.*Restore the file; or rem"
        ):
            read_tasks(parts)


def test_a_file_with_other_columns_is_damaged(parts):
    pd.DataFrame({"a": [1]}).to_parquet(parts / "tasks-00112-00112.parquet")
    with pytest.raises(UserError, match="which cannot be read"):
        read_tasks(parts)


def test_a_file_that_is_lacking(parts):
    (parts / "tasks-00112-00112.parquet").unlink()
    assert num_tasks_in(parts) == 111
    with pytest.raises(UserError, match="which lacks tasks between others; wanted the metrics of every task"):
        read_tasks(parts)
    (parts / "tasks-00001-00100.parquet").unlink()
    assert num_tasks_in(parts) == 0
    append_task(parts, 1, _rows(1))  # what a run does that begins anew
    pd.testing.assert_frame_equal(read_tasks(parts), _whole(1))


class Killed(BaseException):
    """The process has ended: nothing that it does from now on happens."""


def kill_at(monkeypatch, number):
    """Ends the process at the write of that number, in the middle of it if its file is not yet in place."""
    writes = 0

    def killing(write, tear=None):
        def wrapped(*arguments, **options):
            nonlocal writes
            writes += 1
            if writes == number and tear:
                tear(*arguments)
            if writes >= number:
                raise Killed
            return write(*arguments, **options)

        return wrapped

    monkeypatch.setattr(os, "replace", killing(os.replace))
    monkeypatch.setattr(pathlib.Path, "unlink", killing(pathlib.Path.unlink))
    monkeypatch.setattr(pq, "write_table", killing(pq.write_table, lambda table, path: path.write_bytes(b"PAR1")))


@pytest.mark.parametrize("task", [20, 5])
def test_killed_at_any_write_the_tasks_before_are_whole(task, tmp_path):
    """While ten are merged, and while a task within a merged file is written again; then all goes on."""
    for before in range(1, 20):
        append_task(tmp_path / "before", before, _rows(before))
    for number in range(1, 100):
        folder = shutil.copytree(tmp_path / "before", tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                append_task(folder, task, _rows(task))
                break  # it never came to that write
            except Killed:
                pass
        num_tasks = num_tasks_in(folder)
        assert num_tasks >= task - 1
        pd.testing.assert_frame_equal(read_tasks(folder), _whole(num_tasks), check_exact=True)
        for again in range(min(num_tasks, task - 1) + 1, 21):
            append_task(folder, again, _rows(again))
        pd.testing.assert_frame_equal(read_tasks(folder), _whole(20), check_exact=True)
        left = ["tasks-00001-00010.parquet", "tasks-00011-00020.parquet"]
        assert [name for name in _names(folder) if not name.endswith(".partial")] == left
    assert number > 10


def test_a_reader_beside_a_writer(tmp_path):
    append_task(tmp_path, 1, _rows(1))
    ended, failures = threading.Event(), []

    def read():
        while not ended.is_set():
            try:
                found = read_tasks(tmp_path)
                pd.testing.assert_frame_equal(found, _whole(found["task"].max()), check_exact=True)
            except BaseException as failure:
                failures.append(failure)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for task in range(2, 61):
        append_task(tmp_path, task, _rows(task))
    ended.set()
    reader.join()
    assert not failures
