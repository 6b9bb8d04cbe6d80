"""Small tunings from the first trial to the table: interrupted, resumed, extended, refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import pliant
import pliant.tuning._tune as tune_module
from pliant import supervised
from pliant.errors import UserError
from pliant.results import RunFolder
from pliant.supervised import RunConfig
from pliant.tuning import (
    FIRST_TUNING_SEED,
    Tuning,
    TuningFolder,
    TuningRecord,
    make_trials,
    plan_tuning,
    tune_methods,
    tuning_path,
    tuning_table,
)
from pliant.types import Choice

CONFIG = RunConfig(
    methods=("adam", "redo"), seeds=3, tasks=2, epochs=1, train_size=100, widths=(72,), batch_size=20, probe_size=50
)
TUNING = Tuning(CONFIG, trials=3, tuning_seeds=2)


def tuned(path, report=lambda _: None, **changes):
    tuning = TUNING._replace(config=dataclasses.replace(CONFIG, **changes))
    return tune_methods(tuning, plan_tuning(tuning)[0], path, report=report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tuned(tmp_path_factory.mktemp("tuned") / "tune")


def test_what_is_tried_and_selected(whole):
    """By hand: the mean over two seeds and two tasks; the best is measured on other seeds, with its values set."""
    trials = whole.trials("redo")
    assert [tuple(trial.values) for trial in trials] == [("learning_rate", "threshold", "every")] * 3
    assert trials[0].values == {"learning_rate": 0.001, "threshold": 0.025, "every": 1000}
    metrics = RunFolder(whole.path / "trials").metrics
    assert sorted(set(metrics["seed"])) == [FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1]
    own = metrics[metrics["metric"] == "train_accuracy"]
    by_hand = [own[own["method"] == trial.label]["value"].mean() for trial in trials]
    assert [each.score for each in whole.scored("redo")] == pytest.approx(by_hand)
    best = int(np.argmax(by_hand))
    assert whole.selected("redo") == best
    for part, values in (("selected", trials[best].values), ("defaults", trials[0].values)):
        folder = RunFolder(whole.path / part)
        assert sorted(set(folder.metrics["seed"])) == [0, 1, 2]
        assert sorted(set(folder.metrics["method"])) == ["adam", "redo"]
        hyperparameters = folder.methods["redo"]["hyperparameters"]
        assert {name: hyperparameters[name] for name in values} == values


def test_a_trial_is_the_run_with_its_values_set(whole, tmp_path):
    trial = whole.trials("redo")[2]
    settings = tuple(f"redo.{name}={value}" for name, value in trial.values.items())
    one = dataclasses.replace(CONFIG, methods=("redo",), seeds=2, first_seed=FIRST_TUNING_SEED, settings=settings)
    alone = supervised.run(one, tmp_path / "alone").metrics
    table = RunFolder(whole.path / "trials").metrics
    ours = table[table["method"] == trial.label].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours.drop(columns="method"), alone.drop(columns="method"), rtol=1e-3, atol=1e-4)


def test_the_defaults_are_an_ordinary_run(whole, tmp_path):
    alone = supervised.run(dataclasses.replace(CONFIG, methods=("adam",)), tmp_path / "alone").metrics
    ours = RunFolder(whole.path / "defaults").metrics
    ours = ours[ours["method"] == "adam"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, alone, check_exact=True)


@pytest.mark.parametrize("stage", ["redo, 3 trials", "adam, selected"])
def test_interrupted_and_resumed_the_numbers_are_the_same(whole, stage, tmp_path):
    def interrupt(now):
        if now.method == stage and now.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "tune", interrupt)
    half = tuning_table(TuningFolder(tmp_path / "tune")).set_index("method")
    assert half["gain"].isna().any()
    again = tuned(tmp_path / "tune")
    pd.testing.assert_frame_equal(tuning_table(again), tuning_table(whole), check_exact=True)
    for part in ("trials", "selected", "defaults"):
        pd.testing.assert_frame_equal(again.metrics(part), whole.metrics(part), check_exact=True)


def test_methods_and_seeds_are_added(whole, tmp_path):
    tuned(tmp_path / "tune", methods=("redo",), seeds=2)
    trained = []
    folder = tuned(tmp_path / "tune", lambda now: trained.append(now.method))
    assert "redo, 3 trials" not in trained
    pd.testing.assert_frame_equal(tuning_table(folder), tuning_table(whole), check_exact=True)


def test_trials_have_seeds_of_their_own(monkeypatch, tmp_path):
    """Nothing is trained: only what would be is looked at."""
    planned = {}

    def look(plan, path, report):
        planned[path.name] = plan.protocol
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_module, "train", look)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "tune", methods=("redo",), settings=("redo.num_examples=32",))
    trials = planned["trials"]
    assert (trials.first_seed, trials.seeds, trials.settings) == (FIRST_TUNING_SEED, 2, ("redo.num_examples=32",))
    assert trials.grid[0].startswith("redo.learning_rate:threshold:every=0.001:0.025:1000,")


def test_the_progress_goes_from_nothing_to_the_end(tmp_path):
    """All trials are trained together: a task is reported once."""
    done, names = [], []

    def report(now):
        done.append(now.done)
        if now.task_done == 1.0:
            names.append(now.method)

    tuned(tmp_path / "tune", report, tasks=1, methods=("adam",))
    assert names == ["adam, 3 trials", "adam, selected", "adam, defaults"]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)
    assert done[0] < 0.4


def test_values_that_shape_the_program_have_programs_of_their_own(tmp_path):
    """Both of them give the numbers of the runs with these settings."""
    tuning = Tuning(dataclasses.replace(CONFIG, methods=("last-k-reset",), widths=(8, 8), tasks=1, seeds=1), 4, 1)
    plan, _ = plan_tuning(tuning)
    folder = tune_methods(tuning, plan, tmp_path / "tune")
    trials = folder.trials("last-k-reset")
    assert {trial.values["num_layers"]: trial.part for trial in trials} == {2: "trials", 3: "trials-2"}
    assert len(folder.scored("last-k-reset")) == 4
    parts = {part: RunFolder(folder.path / part).methods["last-k-reset"] for part in ("trials", "trials-2")}
    assert [each["hyperparameters"]["num_layers"] for each in parts.values()] == [2, 3]


def test_what_is_set_is_not_tuned(tmp_path):
    folder = pliant.tune(
        CONFIG, methods="redo", settings=("redo.every=7", "redo.threshold=0.1"), trials=2, tuning_seeds=1, out=tmp_path
    )
    assert [set(trial.values) for trial in folder.trials("redo")] == [{"learning_rate"}] * 2
    assert RunFolder(tmp_path / "selected").methods["redo"]["hyperparameters"]["every"] == 7


def test_what_a_benchmark_sets_is_where_tuning_starts():
    config = dataclasses.replace(CONFIG, methods=("redo",), settings=("redo.every=7",))
    plan, _ = plan_tuning(Tuning(config, 2, 1))
    method = plan.methods[0]
    space = {"every": Choice((7, 8))}
    assert make_trials(space, {**method.static, **method.traced}, 2)[0] == {"every": 7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "got trials=0; wanted"),
        ({"tuning_seeds": 0}, "got tuning_seeds=0; wanted"),
        (
            {"config": dataclasses.replace(CONFIG, grid=("learning_rate=1,2",))},
            "got --grid learning_rate=1,2 for",
        ),
        ({"config": dataclasses.replace(CONFIG, first_seed=998)}, "got seeds up to 1000; wanted seeds below 1000"),
        ({"config": dataclasses.replace(CONFIG, methods=("adamoo",))}, "Did you mean 'adamo'"),
    ],
)
def test_what_cannot_be_tuned(changes, message):
    with pytest.raises(UserError, match=message):
        plan_tuning(TUNING._replace(**changes))


def test_a_method_whose_trials_cannot_do_the_run_is_left_out(tmp_path):
    """The network has one hidden layer, so that there are no three layers to reset."""
    tuning = Tuning(dataclasses.replace(CONFIG, methods=("last-k-reset", "adam"), tasks=1, seeds=1), 4, 1)
    plan, reasons = plan_tuning(tuning, is_strict=False)
    assert not reasons
    with pytest.raises(UserError, match="num_layers=3"):
        tune_methods(tuning, plan, tmp_path / "strict")
    left_out = {}
    folder = tune_methods(tuning, plan, tmp_path / "tune", leave_out=left_out.__setitem__)
    assert list(left_out) == ["last-k-reset"]
    assert folder.methods == ["adam"]
    unsuited = Tuning(dataclasses.replace(CONFIG, methods=("adam", "two-hot")), 2, 1)
    assert list(plan_tuning(unsuited, is_strict=False)[1]) == ["two-hot"]


def test_a_folder_holds_one_tuning(whole, tmp_path):
    with pytest.raises(UserError, match=r"which holds another tuning \(num_trials: 3\)"):
        tune_methods(TUNING._replace(trials=4), plan_tuning(TUNING)[0], whole.path)
    with pytest.raises(UserError, match=r"which holds a run; wanted an empty or new folder"):
        tuned(whole.path / "selected")
    with pytest.raises(UserError, match=r"which holds no tune\.json"):
        TuningFolder(tmp_path)
    with pytest.raises(UserError, match=r"redo\.json, which holds other trials"):
        whole.begin_method("redo", whole.trials("redo")[:2])


def test_folders_are_named_by_what_is_tuned():
    plan, _ = plan_tuning(TUNING)
    path = tuning_path(TUNING, plan)
    assert path.name.startswith("tune-random-labels-digits-")
    assert tuning_path(TUNING._replace(trials=4), plan) != path
    assert tuning_path(TUNING._replace(config=dataclasses.replace(CONFIG, seeds=9)), plan) == path


def test_nothing_to_show_yet(tmp_path):
    folder = TuningFolder.begin(tmp_path, TuningRecord("a title", "train_accuracy", 1, 2, 1))
    with pytest.raises(UserError, match="in which no method is begun"):
        tuning_table(folder)
