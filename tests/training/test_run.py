import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

import pliant.training._run as run_module
from pliant.errors import UserError
from pliant.methods import as_arrays
from pliant.results import COLUMNS
from pliant.training import Pace, RunConfig, make_learner, make_plan, run

SMALL = RunConfig(
    methods=("adam", "adamo"), seeds=3, tasks=3, epochs=2, train_size=200, widths=(32, 32), batch_size=20, probe_size=50
)


def _change(**changes):
    return dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(SMALL, tmp_path_factory.mktemp("runs") / "small")


def _table(folder):
    return folder.metrics.sort_values(["method", "seed", "task", "metric"]).reset_index(drop=True)


def _value(folder, **where):
    rows = folder.metrics
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows)
    return rows["value"].to_numpy()


def test_metrics_are_complete(finished):
    metrics = finished.metrics
    assert tuple(metrics.columns) == COLUMNS
    names = {
        "online_accuracy",
        "train_accuracy",
        "loss",
        "gradient_norm",
        "weight_norm",
        "dormant_fraction",
        "effective_rank",
        "isometry_deviation",
        "diverged",
    }
    assert set(metrics["metric"]) == names
    assert len(metrics) == 2 * 3 * 3 * len(names)
    assert set(metrics["step"]) == {20, 40, 60}
    assert metrics["value"].notna().all()


def test_what_is_written_is_what_is_returned(finished):
    pd.testing.assert_frame_equal(pd.read_parquet(finished.path / "metrics.parquet"), finished.metrics)
    config = json.loads((finished.path / "config.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{12}", config["id"])
    assert config["environment"][0]["packages"]["jax"] == jax.__version__
    assert (finished.path / "summary.csv").exists()
    assert "adamo: task 3 of 3" in (finished.path / "run.log").read_text()


def test_seeds_and_methods_differ(finished):
    losses = [_value(finished, method="adam", seed=seed, task=0, metric="loss")[0] for seed in range(3)]
    assert len(set(losses)) == 3
    isometry = [_value(finished, method=m, metric="isometry_deviation").mean() for m in ("adam", "adamo")]
    assert isometry[1] < isometry[0]


def test_online_accuracy_is_before_the_update(tmp_path):
    """One update on labels that nobody can know: measured before it, the accuracy is that of guessing."""
    config = _change(methods=("adam",), seeds=8, tasks=1, epochs=1, batch_size=200, learning_rate=0.1)
    folder = run(config, tmp_path / "run")
    online = _value(folder, metric="online_accuracy").mean()
    after = _value(folder, metric="train_accuracy").mean()
    assert abs(online - 0.1) < 0.05
    assert after > online


def test_permuted_pixels_have_a_test_accuracy(tmp_path):
    folder = run(_change(stream="permuted-pixels", methods=("adam",), seeds=1, tasks=1, epochs=20), tmp_path / "run")
    assert _value(folder, metric="test_accuracy")[0] > 0.5


def test_same_command_same_bits(finished, tmp_path):
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "again")), _table(finished), check_exact=True)


def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(run_module, "make_learner", None)
    pd.testing.assert_frame_equal(run(SMALL, finished.path).metrics, finished.metrics)


@pytest.mark.parametrize("stop_at", [(0, 0), (0, 2), (1, 1)])
def test_interrupted_runs_end_with_the_same_bits(finished, tmp_path, stop_at):
    method, task = stop_at

    def interrupt(now):
        if (now.method, now.task) == (SMALL.methods[method], task):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    folder = run(SMALL, tmp_path / "run")
    pd.testing.assert_frame_equal(_table(folder), _table(finished), check_exact=True)
    assert [len(folder.seconds[name]) for name in SMALL.methods] == [3, 3]


def test_rows_without_a_checkpoint_are_replaced(finished, tmp_path):
    """Killed between writing a task's metrics and its checkpoint: the task is run again, its rows are not doubled."""
    calls = []

    def record_then_die(self, *arguments):
        honest(self, *arguments)
        calls.append(arguments[1])
        if arguments[1] == 1:
            raise KeyboardInterrupt

    honest = run_module.RunFolder.record_task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.RunFolder, "record_task", record_then_die)
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, tmp_path / "run")
    assert calls == [0, 1]
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_metrics_that_are_gone_are_made_again(finished, tmp_path):
    def interrupt(now):
        if (now.method, now.task) == ("adamo", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    (tmp_path / "run" / "metrics.parquet").unlink()
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_a_damaged_checkpoint_says_what_to_do(finished, tmp_path):
    def interrupt(now):
        if (now.method, now.task) == ("adamo", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    checkpoints = tmp_path / "run" / "checkpoints" / "adamo"
    for file in checkpoints.glob("*/default/_METADATA"):
        file.write_text("{")
    with pytest.raises(UserError, match=r"got a damaged checkpoint in .*adamo.*Remove that folder"):
        run(SMALL, tmp_path / "run")
    shutil.rmtree(checkpoints)
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_a_seed_that_diverges_does_not_touch_the_others(finished, tmp_path, monkeypatch):
    def poisoned(stream, method, num_seeds, **options):
        learner = make_learner(stream, method, num_seeds, **options)

        def init(seeds, shared):
            state, keys = learner.init(seeds, shared)
            params = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), state.params)
            return state._replace(params=params), keys

        return learner._replace(init=init)

    monkeypatch.setattr(run_module, "make_learner", poisoned)
    folder = run(SMALL, tmp_path / "run")
    for seed in (0, 2):
        ours, theirs = (_table(f).query(f"seed == {seed}").reset_index(drop=True) for f in (folder, finished))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert (_value(folder, seed=1, metric="diverged") == 1.0).all()
    assert (_value(folder, seed=1, metric="train_accuracy") == 0.0).all()
    assert np.isnan(_value(folder, seed=1, metric="loss")).all()


def test_nothing_recompiles_after_the_first_task(tmp_path, compilations):
    counts = {}
    config = _change(methods=("adam", "l2-init", "redo", "adamo"), tasks=4)
    run(config, tmp_path / "run", report=lambda now: counts.update({(now.method, now.task): len(compilations)}))
    for method in config.methods:  # reported in the middle of a task: what precedes task 1 is over, what follows it too
        assert counts[method, 1] == counts[method, 2] == counts[method, 3]
    assert counts["adam", 0] > 0
    assert counts["adamo", 0] > counts["redo", 3]


def test_another_configuration_is_refused(finished):
    with pytest.raises(UserError, match=r"another configuration \(config.epochs\).*Choose another --out"):
        run(_change(epochs=3), finished.path)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis.tex and no run; wanted an empty or new folder"):
        run(SMALL, tmp_path)


def test_a_folder_in_use_is_refused(tmp_path):
    def second(_):
        with pytest.raises(UserError, match="another process is running"):
            run(SMALL, tmp_path / "run")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=second)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="wanted a folder that can be written"):
        run(SMALL, tmp_path / "file")


def test_hyperparameters_are_arguments_of_the_program(compilations):
    plan = make_plan(SMALL)
    learner = make_learner(plan.stream, plan.methods[1], 3)
    axis = learner.axis
    data = axis.share(plan.stream.data)
    indices = axis.put(np.zeros((3, 4, 20), np.int32))
    finals, counts = [], []
    for strength in (0.0, 0.1, 10.0):
        values = plan.methods[1].traced | {"isometry_strength": strength, "isometry_every": 2}
        traced = as_arrays(values)
        state, keys = learner.init(axis.put(np.arange(3, dtype=np.int32)), traced)
        task = learner.make_task(keys, np.int32(0))
        state, _ = learner.train((state, keys, task, indices), (traced, data, Pace.steady(4, 100)))
        finals.append(np.asarray(state.params["dense_0"]["kernel"]))
        counts.append(len(compilations))
    assert counts[0] == counts[1] == counts[2] > 0
    assert (finals[0] != finals[1]).any()
    assert (finals[1] != finals[2]).any()
