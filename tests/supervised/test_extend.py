"""Runs that are extended: methods, tasks and seeds are added, and what is there stays and counts."""

import dataclasses
import json

import pandas as pd
import pytest

import pliant.training._trainer as trainer_module
from pliant.errors import UserError
from pliant.problems import diagnose_run
from pliant.results import RunFolder
from pliant.supervised import RunConfig, make_plan, run
from pliant.training import run_folder

WHOLE = RunConfig(
    methods=("adam", "adamo"), seeds=4, tasks=3, epochs=2, train_size=200, widths=(72,), batch_size=20, probe_size=50
)
"""So wide that seeds are trained one after another on CPU: then no bit depends on how many are trained together."""


def _change(**changes):
    return dataclasses.replace(WHOLE, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(WHOLE, tmp_path_factory.mktemp("whole") / "run")


def _files(path):
    """When the files of methods were written, but for locks."""
    files = [file for file in (path / "methods").rglob("*") if file.is_file() and file.suffix in (".parquet", ".csv")]
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.mark.parametrize("first", [{"tasks": 1, "seeds": 1, "methods": ("adam",)}, {"tasks": 2}, {"seeds": 3}])
def test_an_extended_run_has_the_numbers_of_one_begun_so(whole, first, tmp_path):
    run(_change(**first), tmp_path / "run")
    before = _files(tmp_path / "run")
    folder = run(WHOLE, tmp_path / "run")
    pd.testing.assert_frame_equal(folder.metrics, whole.metrics, check_exact=True)
    assert folder.title == whole.title
    after = _files(tmp_path / "run")
    assert all(after[file] == written for file, written in before.items() if file.suffix == ".parquet")


def test_of_a_run_with_another_method_only_the_new_one_is_trained(tmp_path, monkeypatch):
    trained, honest = [], trainer_module.make_learner

    def watching(method, *arguments, **options):
        trained.append(method.method.name)
        return honest(method, *arguments, **options)

    monkeypatch.setattr(trainer_module, "make_learner", watching)
    one = _change(methods=("adam",), seeds=2, tasks=1)
    run(one, tmp_path / "run")
    folder = run(dataclasses.replace(one, methods=("l2-init", "adam")), tmp_path / "run")
    assert trained == ["adam", "l2-init"]
    assert list(folder.seconds) == ["adam", "l2-init"]


def test_fewer_tasks_and_seeds_than_are_stored_need_no_training(whole, monkeypatch):
    monkeypatch.setattr(trainer_module, "make_learner", None)
    folder = run(_change(tasks=1, seeds=1, methods=("adamo",)), whole.path)
    pd.testing.assert_frame_equal(folder.metrics, whole.metrics)


@pytest.mark.parametrize("interrupted", [{"seeds": 2}, {"methods": ("adam",)}])
def test_an_extension_may_be_interrupted(whole, interrupted, tmp_path):
    def interrupt(now):
        if now.task == 3 and now.task_done > 0.5:
            raise KeyboardInterrupt

    run(_change(**{"tasks": 2} | interrupted), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(WHOLE, tmp_path / "run", report=interrupt)
    folder = run(WHOLE, tmp_path / "run")
    pd.testing.assert_frame_equal(folder.metrics, whole.metrics, check_exact=True)


def test_seeds_may_begin_with_another(whole, tmp_path):
    """They are those of a run that comes to them, and a block of their own."""
    run(_change(seeds=1), tmp_path / "run")
    metrics = run(_change(first_seed=2, seeds=2), tmp_path / "run").metrics
    assert sorted(set(metrics["seed"])) == [0, 2, 3]
    expected = whole.metrics[whole.metrics["seed"] != 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(metrics, expected, check_exact=True)
    with pytest.raises(UserError, match=r"got first_seed=-1; wanted a finite number ≥ 0"):
        run(_change(first_seed=-1), tmp_path / "run")


def test_a_grid_is_extended(tmp_path):
    grid = _change(methods=("adamo",), grid=("adamo.isometry_strength=0.0,0.1",), seeds=4, tasks=2)
    begun_so = run(grid, tmp_path / "whole").metrics
    run(dataclasses.replace(grid, seeds=2, tasks=1), tmp_path / "run")
    pd.testing.assert_frame_equal(run(grid, tmp_path / "run").metrics, begun_so, check_exact=True)


def test_a_diagnosis_is_over_the_seeds_of_all_blocks(tmp_path):
    small = _change(methods=("adam",), tasks=1, epochs=1)
    for seeds in (1, 3):
        folder = run(dataclasses.replace(small, seeds=seeds), tmp_path / "run")
    (found,) = diagnose_run(folder.path, diagnostics=("effective-rank", "weight-spectra"))
    wanted = folder.metrics.query("metric == 'effective_rank'")["value"]
    assert found.numbers["effective-rank"]["effective_rank"] == pytest.approx(wanted.mean(), rel=1e-6)
    assert {len(array) for array in folder.arrays("adam")[1].values()} == {3}


def test_progress_goes_to_the_end_over_all_blocks(tmp_path):
    reports = []
    run(_change(seeds=2, tasks=1, methods=("adam",)), tmp_path / "run")
    run(_change(seeds=4, tasks=2, methods=("adam",)), tmp_path / "run", report=lambda now: reports.append(now.done))
    assert reports == sorted(reports)
    assert reports[-1] == 1.0


def test_another_setting_of_a_method_is_refused(whole):
    with pytest.raises(UserError, match=r"methods.adamo, which holds the method with another configuration"):
        run(_change(settings=("adamo.b1=0.8",)), whole.path)


@pytest.mark.parametrize("stream", ["warm-start", "label-noise"])
def test_streams_whose_tasks_depend_on_their_number_are_not_extended(stream, tmp_path):
    config = _change(stream=stream, methods=("adam",), seeds=1, tasks=2, epochs=1)
    run(config, tmp_path / "run")
    match = r"stream\.tasks\).*depends on the number of tasks, so it cannot be extended: choose another --out"
    with pytest.raises(UserError, match=match):
        run(dataclasses.replace(config, tasks=3), tmp_path / "run")


def test_a_folder_of_an_earlier_version_is_not_continued(tmp_path):
    stream = {"name": "random-labels", "dataset": "digits", "headline": "train_accuracy", "chance": 0.1}
    content = {"format": 2, "id": "a", "configuration": {"config": {"network": "mlp"}, "stream": stream}}
    (tmp_path / "config.json").write_text(json.dumps(content | {"environment": []}))
    with pytest.raises(UserError, match="which an earlier version of pliant wrote"):
        run(WHOLE, tmp_path)
    with pytest.raises(UserError, match=r"earlier version of pliant wrote.*Diagnose it with the version that made it"):
        diagnose_run(tmp_path)


def test_the_default_folder_is_the_same_until_a_method_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = _change(methods=("adam",), seeds=1, tasks=1, epochs=1)

    def default(**changes):
        return run_folder(make_plan(dataclasses.replace(small, **changes)))

    first = default()
    assert default(methods=("adam", "redo"), tasks=9, seeds=9) == first
    assert default(epochs=2) != first
    assert default(settings=("adam.b1=0.8",)) == first  # nothing is there yet
    run(small)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [first.name]
    assert default(methods=("redo",), settings=("redo.every=9",)) == first
    other = default(settings=("adam.b1=0.8",))
    assert other != first
    assert default(settings=("adam.b1=0.8",), tasks=9, seeds=9) == other
    assert RunFolder(first).others({"adam": make_plan(small).methods[0].configuration}) == []
