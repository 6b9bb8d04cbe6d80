"""The run folder: what is common to all methods, who may write, and what is refused."""

import json
import os
import pathlib
import shutil
import threading

import filelock
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pliant.errors import BusyError, UserError
from pliant.results import COLUMNS, RunFolder, RunRecord

RECORD = RunRecord("random-labels on digits, mlp", "loss", 0.25, {"config": {"epochs": 2, "widths": (8, 8)}})


def _rows(method, task, seeds=(0,)):
    rows = [
        ("b", method, "n", "d", seed, task, 10, name, task + seed) for seed in seeds for name in ("diverged", "loss")
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _train(path, methods=("m",), num_tasks=2, num_seeds=1, *, with_curves=False):
    """What training does with a folder: a checkpoint comes after its metrics."""
    folder = RunFolder.begin(path, RECORD)
    for name in methods:
        with folder.open_method(name, {"hyperparameters": {"b": 1}}) as method:
            for block in method.blocks(num_seeds):
                file = block.checkpoints / "done"
                done = int(file.read_text()) if file.exists() else 0
                stored = block.num_tasks_stored(with_curves=with_curves)
                for task in range((done if done <= stored else 0) + 1, num_tasks + 1):
                    block.record_arrays(task, {"a/b": np.full(len(block.seeds), task)})
                    rows = _rows(name, task, block.seeds)
                    curves = pd.concat([rows.assign(step=5), rows]).sort_values("seed", kind="stable")
                    block.record_task(task, rows, float(task), curves if with_curves else None)
                    folder.log(f"{name}: task {task}")
                    block.checkpoints.mkdir(exist_ok=True)
                    (block.checkpoints / "new").write_text(str(task))
                    os.replace(block.checkpoints / "new", file)
    folder.write_summary()
    return RunFolder(path)


def test_what_is_written_is_what_is_read(tmp_path):
    folder = _train(tmp_path / "run", ("z", "a"), num_seeds=2)
    assert tuple(folder.metrics.columns) == COLUMNS
    assert folder.metrics["method"].unique().tolist() == ["z", "a"]  # as they were begun
    assert folder.seconds == {"z": [1.0, 2.0], "a": [1.0, 2.0]}
    assert folder.arrays("a")[2]["a/b"].tolist() == [2, 2]
    assert folder.methods == {name: {"hyperparameters": {"b": 1}} for name in "za"}
    assert (folder.title, folder.headline, folder.chance) == ("random-labels on digits, mlp, 2 seeds", "loss", 0.25)
    assert folder.configuration == {"config": {"epochs": 2, "widths": [8, 8]}}
    assert pd.read_csv(folder.path / "summary.csv")["method"].tolist() == ["z", "a"]
    assert [line[26:] for line in (folder.path / "run.log").read_text().splitlines()] == [
        f"{name}: task {task}" for name in "za" for task in (1, 2)
    ]


def test_methods_are_added_to_a_finished_run(tmp_path):
    first = _train(tmp_path, ("b",)).metrics
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "methods" / "b").rglob("*.*")}
    both = _train(tmp_path, ("a", "b"))
    assert {file: file.stat().st_mtime_ns for file in files} == files  # nothing is written again
    pd.testing.assert_frame_equal(both.metrics[both.metrics["method"] == "b"], first)
    assert list(both.methods) == ["b", "a"]


def test_curves_that_are_lacking_begin_again(tmp_path):
    folder = _train(tmp_path, with_curves=True)
    with folder.open_method("m", {"hyperparameters": {"b": 1}}) as method:
        (block,) = method.blocks()
    assert block.num_tasks_stored(with_curves=True) == block.num_tasks_stored() == 2
    shutil.rmtree(block.path / "curves")
    assert (block.num_tasks_stored(with_curves=True), block.num_tasks_stored()) == (0, 2)
    assert RunFolder(tmp_path).curves.empty
    again = _train(tmp_path, with_curves=True)
    pd.testing.assert_frame_equal(again.curves, folder.curves, check_exact=True)


def test_environments_are_named_by_task(tmp_path):
    names = ["breakout", "freeway", "breakout"]
    record = RECORD._replace(configuration={"environment": {"environments": names}})
    folder = RunFolder.begin(tmp_path, record)
    with folder.open_method("m", {}) as method:
        (block,) = method.blocks(2)
        for task, place in ((1, 1.0), (2, 0.0), (3, 2.0), (4, 3.0), (5, np.nan)):
            block.record_task(task, _rows("m", task, (0, 1)).assign(metric="environment", value=place), 1.0)
    wanted = {1: "freeway", 2: "breakout (0)", 3: "breakout (2)", 4: "environment 3"}
    assert RunFolder(tmp_path).environments == wanted
    assert _train(tmp_path / "without").environments == {}


def test_the_title_counts_seeds(tmp_path):
    assert RunFolder.begin(tmp_path, RECORD).title == "random-labels on digits, mlp"
    assert _train(tmp_path).title == "random-labels on digits, mlp, 1 seed"
    assert _train(tmp_path, ("other",), num_seeds=4).title == "random-labels on digits, mlp, 1 to 4 seeds"


def test_another_run_is_refused(tmp_path):
    _train(tmp_path)
    other = RECORD._replace(headline="accuracy", configuration={"config": {"epochs": 3, "steps": 1, "widths": [8, 8]}})
    match = r"another configuration \(config\.epochs, config\.steps, headline\).*Choose another --out, or give the opt"
    with pytest.raises(UserError, match=match):
        RunFolder.begin(tmp_path, other)


def test_another_method_of_the_same_name_is_refused(tmp_path):
    folder = _train(tmp_path)
    match = r"methods/m, which holds the method with another configuration \(hyperparameters\.b\).*Choose another --out"
    with pytest.raises(UserError, match=match), folder.open_method("m", {"hyperparameters": {"b": 2}}):
        pass
    assert RunFolder(tmp_path).methods["m"] == {"hyperparameters": {"b": 1}}


def test_numbers_that_a_method_depends_on(tmp_path):
    folder = RunFolder.begin(tmp_path, RECORD)
    with folder.open_method("m", {"tasks": 20, "seeds": 4}):
        pass
    match = r"\(tasks\).*depends on the number of tasks, so it cannot be extended: choose another --out"
    with pytest.raises(UserError, match=match), folder.open_method("m", {"tasks": 40, "seeds": 4}):
        pass


def test_tasks_that_depend_on_their_number(tmp_path):
    record = RECORD._replace(configuration={"stream": {"tasks": 4}})
    RunFolder.begin(tmp_path, record)
    match = r"\(stream\.tasks\).*depends on the number of tasks, so it cannot be extended: choose another --out"
    with pytest.raises(UserError, match=match):
        RunFolder.begin(tmp_path, record._replace(configuration={"stream": {"tasks": 5}}))


def test_methods_that_a_folder_holds_in_another_way(tmp_path):
    folder = _train(tmp_path, ("a", "b"))
    same = {"hyperparameters": {"b": 1}}
    assert folder.others({"a": same, "c": same}) == []
    assert folder.others({"a": {"hyperparameters": {"b": 2}}, "b": same}) == ["a"]


def test_a_method_copied_from_another_run_is_refused(tmp_path):
    _train(tmp_path / "one")
    other = RunFolder.begin(tmp_path / "other", RECORD._replace(configuration={}))
    (tmp_path / "one" / "methods").rename(tmp_path / "other" / "methods")
    with (
        pytest.raises(UserError, match=r"the configuration of the run"),
        other.open_method("m", {"hyperparameters": {"b": 1}}),
    ):
        pass


def test_one_process_for_each_block_of_seeds(tmp_path):
    """Blocks that other processes have claimed are refused before their first metrics, too, however seeds are cut."""
    folder, again = RunFolder.begin(tmp_path, RECORD), RunFolder.begin(tmp_path, RECORD)
    match = r"got m in .*another process is running; wanted one process for each block of seeds"
    with folder.open_method("m", {}) as method:
        assert [block.seeds for block in method.claim(2, 2)] == [range(2, 4)]
        for num_seeds, first_seed in ((2, 2), (8, 0), (1, 3), (4, 0)):
            with again.open_method("m", {}) as other, pytest.raises(BusyError, match=match):
                other.claim(num_seeds, first_seed)
        with again.open_method("m", {}) as other, again.open_method("other", {}) as another:
            assert [block.seeds for block in other.claim(2, 0)] == [range(2)]
            assert [block.seeds for block in other.claim(4, 4)] == [range(4, 8)]
            assert [block.seeds for block in another.claim(2, 2)] == [range(2, 4)]
    with again.open_method("m", {}) as other:
        assert [block.seeds for block in other.claim(4)] == [range(4)]  # a claim without metrics leaves nothing


def test_blocks_of_others_are_left_alone_if_asked(tmp_path):
    _train(tmp_path, num_seeds=2)
    folder, again = RunFolder.begin(tmp_path, RECORD), RunFolder.begin(tmp_path, RECORD)
    configuration = {"hyperparameters": {"b": 1}}
    with folder.open_method("m", configuration) as method, again.open_method("m", configuration) as other:
        assert [block.seeds for block in method.claim(1, 1, alone=True)] == [range(2)]
        assert [block.seeds for block in other.claim(2, 2, alone=True)] == [range(2, 4)]
    with again.open_method("m", configuration) as other:
        assert [block.seeds for block in other.claim(2, 2)] == [range(2), range(2, 4)]


def test_what_a_process_writes_is_no_leftover_to_another(tmp_path):
    folder, again = RunFolder.begin(tmp_path, RECORD), RunFolder.begin(tmp_path, RECORD)
    with folder.open_method("m", {}) as method:
        (block,) = method.claim(2)
        half = block.path / "metrics" / ".tasks-00001-00001.parquet.partial"
        half.parent.mkdir()
        half.write_text("half")
        with again.open_method("m", {}) as other:
            other.claim(2, 2)
            assert half.exists()
    with again.open_method("m", {}) as other:
        other.claim(2)
        assert not half.exists()


def test_several_may_begin_a_run_at_once(tmp_path):
    start, failures = threading.Barrier(8), []

    def begin(number):
        try:
            start.wait()
            _train(tmp_path / "run", (f"m{number}",))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    folder = RunFolder(tmp_path / "run")
    assert set(folder.metrics["method"]) == {f"m{number}" for number in range(8)}
    lines = (folder.path / "run.log").read_text().splitlines()
    assert sorted(line[26:] for line in lines) == [f"m{number}: task {task}" for number in range(8) for task in (1, 2)]


class Killed(BaseException):
    """The process has ended: nothing that it does from now on happens."""


def _kill_at(patch, number):
    """Ends the process at the write of that number, in the middle of the file if it writes one."""
    writes = 0

    def killing(write, tear=lambda *_: None):
        def wrapped(*arguments, **options):
            nonlocal writes
            writes += 1
            if writes == number:
                tear(*arguments)
            if writes >= number:
                raise Killed
            return write(*arguments, **options)

        return wrapped

    for owner, name, tear in (
        (os, "replace", lambda *_: None),
        (os, "write", lambda *_: None),
        (pathlib.Path, "unlink", lambda *_: None),
        (pathlib.Path, "mkdir", lambda *_: None),
        (pathlib.Path, "write_text", lambda path, *_: path.write_bytes(b"{")),
        (pq, "write_table", lambda _, path: path.write_bytes(b"PAR1")),
        (np, "savez_compressed", lambda stream, **_: stream.write(b"PK")),
    ):
        patch.setattr(owner, name, killing(getattr(owner, name), tear))


def test_killed_at_any_write_a_run_ends_the_same(tmp_path):
    whole = _train(tmp_path / "whole", with_curves=True)
    for number in range(1, 200):
        path = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number)
            try:
                _train(path, with_curves=True)
                break
            except Killed:
                pass
        if (path / "config.json").exists():
            for part in ("metrics", "curves"):
                stored, wanted = getattr(RunFolder(path), part), getattr(whole, part)
                pd.testing.assert_frame_equal(stored, wanted[: len(stored)], check_exact=True)
        folder = _train(path, with_curves=True)
        pd.testing.assert_frame_equal(folder.metrics, whole.metrics, check_exact=True)
        pd.testing.assert_frame_equal(folder.curves, whole.curves, check_exact=True)
        assert folder.seconds == whole.seconds
        assert str(folder.arrays("m")) == str(whole.arrays("m"))
        files = [sorted(str(file.relative_to(each)) for file in each.rglob("*")) for each in (path, whole.path)]
        assert files[0] == files[1]
    assert number > 30


def test_leftovers_of_a_killed_process_are_removed_under_their_lock(tmp_path):
    folder = _train(tmp_path)
    block = tmp_path / "methods" / "m" / "seeds-0000-0000"
    leftovers = [tmp_path, tmp_path / "methods" / "m", block, block / "metrics", block / "arrays"]
    for place in leftovers:
        (place / ".file.partial").write_text("{")
    RunFolder.begin(tmp_path, RECORD)
    assert [(place / ".file.partial").exists() for place in leftovers] == [False, True, True, True, True]
    with folder.open_method("m", {"hyperparameters": {"b": 1}}) as method:
        assert [(place / ".file.partial").exists() for place in leftovers] == [False, False, True, True, True]
        method.claim(1)
        assert not any((place / ".file.partial").exists() for place in leftovers)


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "is not valid JSON"),
        ("\xff", "is not valid JSON"),
        ("5", "lacks the configuration of a run"),
        ("[]", "lacks the configuration of a run"),
        ('{"format": "b"}', "lacks a whole number as its format"),
        ('{"format": 3}', "lacks title, headline, chance, configuration"),
        (
            '{"format": 3, "title": 1, "headline": "a", "chance": null, "configuration": 2}',
            "lacks title, configuration",
        ),
    ],
)
def test_a_damaged_config_is_called_damaged(tmp_path, content, how):
    _train(tmp_path)
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        UserError, match=rf"config\.json, which is damaged: it {how}.*Restore it from a copy; or remove"
    ):
        RunFolder(tmp_path)


def test_a_config_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    _train(tmp_path)
    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"config\.json: Permission denied.*check its permissions"):
        RunFolder(tmp_path)


def test_a_folder_of_a_later_version(tmp_path):
    _train(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 4}))
    with pytest.raises(UserError, match=r"a later version of pliant wrote; wanted a run folder of format 3"):
        RunFolder(tmp_path)


def test_paths_may_be_texts_and_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    RunFolder.begin("~/run", RECORD)
    assert RunFolder("~/run").path == tmp_path / "run"
    assert RunFolder(str(tmp_path / "run")).headline == "loss"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"run: File exists; wanted a folder that can be written. Choose another --out"):
        RunFolder.begin(tmp_path / "run", RECORD)


def test_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex and no run; wanted an empty or new folder"):
        RunFolder.begin(tmp_path, RECORD)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), NotImplementedError("no flock here")])
def test_a_folder_that_cannot_be_locked(tmp_path, monkeypatch, error):
    def refuse(self, timeout):
        raise error

    folder = RunFolder.begin(tmp_path / "run", RECORD)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"(Permission denied|no flock here); wanted a folder that can be written"):
        RunFolder.begin(tmp_path / "run", RECORD)
    with pytest.raises(UserError, match=r"(Permission denied|no flock here); wanted a folder that can be written"):
        folder.open_method("m", {}).__enter__()


def test_a_folder_that_stays_locked(tmp_path, monkeypatch):
    RunFolder.begin(tmp_path, RECORD)
    monkeypatch.setattr("pliant.results._files._PATIENCE", 0.0)
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="which another process keeps locked"):
        RunFolder.begin(tmp_path, RECORD)


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no config.json; wanted the folder of a run"):
        RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"no config.json"):
        RunFolder(tmp_path / "absent")


def test_a_folder_that_the_locale_cannot_name(tmp_path):
    with pytest.raises(UserError, match="whose letters the locale does not have"):
        RunFolder.begin(tmp_path / "\udcff", RECORD)
