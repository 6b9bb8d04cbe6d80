"""Every experiment: what it declares exists, its figure can be drawn, and one runs from beginning to end."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest

from pliant import problems
from pliant.errors import UserError
from pliant.experiments import (
    BENCHMARKS,
    EXPERIMENTS,
    SCALES,
    Association,
    NotMeasuredError,
    Prediction,
    Results,
    Score,
    choices,
    find_results,
    folder_of,
    frame_cells,
    from_folder,
    judge,
    read_table,
    reproduce,
    run_cells,
    score_cells,
    score_table,
    stored_results,
    verdict_table,
    with_choices,
    write_table,
)
from pliant.results import RunFolder, RunRecord
from pliant.training import as_data, of_names, settings_of

DATA = os.environ.get("PLIANT_DATA")
COLUMNS = ["method", "seed", "task", "metric", "value"]


def _labels(benchmark, scale):
    """What the metrics of a run call its methods: grids add their points."""
    config = benchmark.configs[scale]
    found = []
    for method in config.methods:
        points = [
            (key.partition(".")[2], value)
            for setting in config.grid
            for key, _, values in [setting.partition("=")]
            if key.partition(".")[0] == method
            for value in values.split(",")
        ]
        found += [f"{method}[{option}={float(value)}]" for option, value in points] or [method]
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_declarations(name):
    experiment = EXPERIMENTS[name]
    assert experiment.question.endswith("?")
    assert experiment.shows.endswith(".")
    assert experiment.reference
    assert not any(score.method for score in experiment.scores)
    assert len({(score.over, score.window) for score in experiment.scores}) == 1
    assert set(experiment.runs.values()) <= set(BENCHMARKS)
    names = [claim.name for claim in experiment.claims]
    assert len(set(names)) == len(names) > 0
    for claim in experiment.claims:
        assert claim.sentence.endswith(".")
        assert claim.source
        assert claim.comparisons


def test_there_are_forty_claims_with_names_of_their_own():
    names = [claim.name for experiment in EXPERIMENTS.values() for claim in experiment.claims]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_are_about_methods_that_their_runs_have(name, scale):
    experiment = EXPERIMENTS[name]
    for claim in experiment.claims:
        for side in (side for each in claim.comparisons for side in (each.more, each.less)):
            if isinstance(side, float):
                continue
            for run in side.runs:
                assert run in experiment.runs or (run == "" and len(experiment.runs) == 1), (claim.name, run)
                benchmark = experiment.benchmarks[run or next(iter(experiment.runs))]
                missing = set(side.methods) - set(_labels(benchmark, scale))
                assert not missing, (claim.name, missing)


def _everything(experiment):
    """Results with every method, and every metric that a claim, a figure or a table reads."""
    metrics = {"headline", *(("probe_plasticity", "weight_norm") if experiment.tables else ())}
    for claim in experiment.claims:
        for side in (side for each in claim.comparisons for side in (each.more, each.less)):
            if isinstance(side, Association):
                metrics |= {side.x, side.y}
            elif isinstance(side, Prediction):
                metrics |= {side.predictor, *side.outcomes.values()}
            elif isinstance(side, Score) and side.metric:
                metrics.add(side.metric)
    rng = np.random.default_rng(0)
    found = {}
    for label, benchmark in experiment.benchmarks.items():
        rows = [
            (method, seed, task, metric, rng.random())
            for method in _labels(benchmark, "cpu")
            for seed in range(3)
            for task in (1, 2, 3)
            for metric in metrics
        ]
        found[label] = Results(pd.DataFrame(rows, columns=COLUMNS), "headline", 3, chance=0.1)
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_figures_and_verdicts_of_whole_and_of_missing_results(name):
    experiment = EXPERIMENTS[name]
    results = _everything(experiment)
    figure = experiment.figure(results)
    assert figure.axes
    assert figure.get_suptitle() or figure.axes[0].get_title()
    assert {judge(claim, results).outcome for claim in experiment.claims} <= {"holds", "does not hold", "undecided"}
    first = dict([next(iter(results.items()))])
    assert experiment.figure(first).axes
    for make in experiment.tables.values():
        assert len(frame_cells(make(results))) > 1
        with pytest.raises(NotMeasuredError, match="no results of this experiment"):
            make({})
    with pytest.raises(UserError, match="no results of this experiment"):
        experiment.figure({})
    assert {judge(claim, {}).outcome for claim in experiment.claims} == {"not run"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_scores_of_what_comes_with_the_package(name, tmp_path):
    """Every run that is stored has the score of its experiment, for each of its methods and seeds."""
    experiment = EXPERIMENTS[name]
    results = stored_results(experiment, "cpu", tmp_path)
    if not results:
        with pytest.raises(UserError, match="got no results; wanted at least one run"):
            score_table(results, experiment.scores)
        return
    table = score_table(results, experiment.scores[:1]).set_index(["run", "method"])
    for run, own in results.items():
        config = experiment.benchmarks[run].configs["cpu"]
        assert set(table.loc[run].index) == set(own.metrics["method"])
        assert (table.loc[run, "num_seeds"] == config.seeds).all()
        assert (table.loc[run, "error"] >= 0).all() or config.seeds == 1


def _table(value=0.5):
    rows = [(method, seed, 1, "loss", value) for method in ("adam", "adamo") for seed in range(2)]
    return Results(pd.DataFrame(rows, columns=COLUMNS), "loss", 1, 0.1, {"date": "2026-01-31", "folder": "/somewhere"})


def test_tables_are_read_as_written_without_the_folder(tmp_path):
    write_table(_table(), tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert read.record == {"date": "2026-01-31"}
    assert (read.headline, read.num_tasks, read.chance) == ("loss", 1, 0.1)
    pd.testing.assert_frame_equal(read.metrics, _table().metrics, check_dtype=False)


@pytest.mark.parametrize("content", [b"", b"PAR1 no table"])
def test_a_damaged_table_is_refused(tmp_path, content):
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UserError, match="which is no table of results"):
        read_table(tmp_path / "t.parquet")


def test_a_table_of_others_is_refused(tmp_path):
    _table().metrics.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="which is no table of results"):
        read_table(tmp_path / "t.parquet")


def _run_of(benchmark, tmp_path, changes=(), rows=None):
    """A run folder as that of a benchmark at the smallest scale, with other choices."""
    config = {**choices(benchmark, "smoke"), **dict(changes)}
    common = {name: value for name, value in config.items() if name not in ("methods", "seeds", "tasks", "grid")}
    folder = folder_of(benchmark.name, "smoke", tmp_path)
    (method,) = config["methods"]
    rows = rows or [("s", method, "mlp", "digits", 0, 1, 9, "train_accuracy", 0.25)]
    columns = ["problem", "method", "network", "dataset", "seed", "task", "step", "metric", "value"]
    record = RunRecord("a run", "train_accuracy", 0.1, {"config": common})
    own = {"config": {"settings": [], "grid": list(config["grid"])}}
    with RunFolder.begin(folder, record).open_method(method, own) as opened:
        opened.record_start({"packages": {"jax": "1"}}, 1, 1)
        (block,) = opened.blocks(num_seeds=1)
        block.record_task(1, pd.DataFrame(rows, columns=columns), seconds=90.0)
    return folder


def test_results_of_a_run_folder_come_first(tmp_path):
    benchmark = BENCHMARKS["isometry/strength"]
    folder = _run_of(benchmark, tmp_path)
    found = find_results(benchmark, "smoke", tmp_path)
    assert found.metrics.values.tolist() == [["adamo", 0, 1, "train_accuracy", 0.25]]
    assert found.num_tasks == benchmark.configs["smoke"].tasks == 2
    assert found.lacks == "unfinished, 0 of 14 seeds have all tasks"
    assert found.record["minutes"] == {"adamo": 1.5}
    assert found.record["environment"] == {"packages": {"jax": "1"}}
    assert len(found.record["date"]) == 10
    assert not from_folder(RunFolder(folder), 1).lacks


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_run_of_a_benchmark_is_taken_for_one(name, scale, tmp_path):
    """Its settings are those of the methods that the scale has, as of `pliant reproduce`."""
    config = with_choices(BENCHMARKS[name], scale, {})
    common = as_data(dataclasses.asdict(config))
    common["settings"] = [entry for entry in config.settings if entry not in of_names(config.settings, config.methods)]
    folder = RunFolder.begin(folder_of(name, scale, tmp_path), RunRecord("a run", "score", None, {"config": common}))
    for method in config.methods:
        own = {"settings": settings_of(config, method), "grid": list(of_names(config.grid, {method}))}
        with folder.open_method(method, {"config": own}):
            pass
    assert find_results(BENCHMARKS[name], scale, tmp_path).lacks.startswith("unfinished, 0 of")


@pytest.mark.whole
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_planned_run_of_a_benchmark_is_taken_for_one(name, tmp_path):
    config = with_choices(BENCHMARKS[name], "smoke", {})
    plan = problems.make_plan(config, problems.folder_for(config, DATA))
    folder = RunFolder.begin(folder_of(name, "smoke", tmp_path), plan.record)
    for method in plan.methods:
        with folder.open_method(method.method.name, method.configuration):
            pass
    assert find_results(BENCHMARKS[name], "smoke", tmp_path).lacks.startswith("unfinished, 0 of")


def test_what_a_user_has_added_is_left_out(tmp_path):
    """Another method, seed and task of one's own change no verdict."""
    benchmark = BENCHMARKS["isometry/strength"]
    method, other = "adamo[isometry_strength=0.1]", "mine"
    rows = [
        ("s", name, "mlp", "digits", seed, task, 9, "train_accuracy", 0.25)
        for name, seed, task in ((method, 0, 1), (method, 5, 1), (method, 0, 3), (other, 0, 1))
    ]
    _run_of(benchmark, tmp_path, rows=rows)
    found = find_results(benchmark, "smoke", tmp_path).metrics
    assert found[["method", "seed", "task"]].values.tolist() == [[method, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ((), ""),
        ((("epochs", 7),), "epochs"),
        ((("learning_rate", 0.5), ("widths", [8])), "widths, learning_rate"),
        ((("settings", ["mlp.norm=layer"]),), "settings"),
        ((("grid", ["adamo.isometry_strength=0.1,1"]),), "grid"),
    ],
)
def test_a_run_with_another_configuration_is_not_judged(changes, named, tmp_path):
    benchmark, experiment = BENCHMARKS["isometry/strength"], EXPERIMENTS["isometry/strength"]
    folder = _run_of(benchmark, tmp_path, changes)
    found = find_results(benchmark, "smoke", tmp_path)
    if not named:
        assert found.lacks == "unfinished, 0 of 14 seeds have all tasks"
        return
    trouble = f"{folder}, which holds a run with another configuration ({named})"
    assert found.trouble == found.lacks == trouble
    results = stored_results(experiment, "smoke", tmp_path)
    verdicts = {judge(claim, results) for claim in experiment.claims}
    assert {(each.outcome, each.reason) for each in verdicts} == {("not run", f"random labels: {trouble}")}
    assert trouble in run_cells(experiment, results, "smoke")[1]
    with pytest.raises(UserError, match="no results of the headline; wanted a run with a finished task"):
        score_table(results, experiment.scores)


def test_a_damaged_run_leaves_the_others_their_verdicts(tmp_path):
    folder = _run_of(BENCHMARKS["isometry/strength"], tmp_path)
    (folder / "config.json").write_text("{")
    results = stored_results(EXPERIMENTS["isometry/strength"], "smoke", tmp_path)
    with pytest.raises(UserError, match="no results of this experiment"):
        EXPERIMENTS["isometry/strength"].figure(results)
    table = verdict_table(EXPERIMENTS.values(), "smoke", tmp_path)
    reasons = set(table[table["experiment"] == "isometry/strength"]["reason"])
    assert all("config.json, which is damaged" in reason for reason in reasons)
    assert len(table) > 100


@pytest.mark.parametrize("missing", ["method", "seed", "task"])
def test_a_run_in_which_something_is_missing_is_unfinished(missing, tmp_path):
    """Between two methods, or two blocks of seeds, all that there is has all tasks."""
    results = stored_results(EXPERIMENTS["survey/remedies"], "cpu", tmp_path)["digits"]
    column = results.metrics[missing]
    cut = dataclasses.replace(results, metrics=results.metrics[column != column.iloc[-1]])
    assert not results.lacks
    assert cut.lacks.startswith("unfinished, ")
    claims = EXPERIMENTS["survey/remedies"].claims
    assert {judge(claim, {"digits": cut}).outcome for claim in claims} == {"not run"}


def test_scores_of_methods_that_diverge():
    rows = [("a", seed, 1, "loss", value) for seed, value in enumerate((0.5, np.inf, 1.5))]
    rows += [("b", seed, 1, "loss", value) for seed, value in enumerate((0.5, np.nan, 1.5))]
    rows += [("c", seed, 1, "loss", value) for seed, value in enumerate((1e20, 3e20, 2e20))]
    table = score_table({"run": Results(pd.DataFrame(rows, columns=COLUMNS), "loss", 1)}, [Score("")])
    assert table["num_seeds"].tolist() == [3, 2, 3]
    expected = [["method", "loss"], ["a", "inf ± –"], ["b", "–"], ["c", "2e+20 ± 5.77e+19"]]
    assert score_cells(table) == expected


def test_without_any_results():
    assert stored_results(EXPERIMENTS["isometry/strength"], "smoke") == {}


def test_reproducing_at_the_smallest_scale(tmp_path):
    experiment = EXPERIMENTS["isometry/strength"]
    made = reproduce(experiment, "smoke", runs=tmp_path, tables=tmp_path / "tables")
    assert set(made.results) == {"random labels"}
    assert not made.results["random labels"].lacks
    assert {verdict.outcome for verdict in made.verdicts.values()} == {"undecided"}  # two seeds
    assert made.figure.exists()
    stored = read_table(tmp_path / "tables" / "isometry-strength-smoke.parquet")
    assert len(stored.metrics) == len(made.results["random labels"].metrics)
    log = (folder_of("isometry/strength", "smoke", tmp_path) / "run.log").read_text()
    again = reproduce(experiment, "smoke", runs=tmp_path)
    assert again.verdicts == made.verdicts
    assert (folder_of("isometry/strength", "smoke", tmp_path) / "run.log").read_text().count(": task") == log.count(
        ": task"
    )


def test_settings_of_methods_that_a_scale_leaves_out(tmp_path, monkeypatch):
    """They are left out, too: otherwise they would be settings of unknown names."""
    planned = []

    def plan(config, data_dir):
        planned.append(config)
        raise UserError(got="a plan", wanted="no training", do="Go on.")

    monkeypatch.setattr(problems, "make_plan", plan)
    assert "l2-init.strength=0.001" in BENCHMARKS["isometry/random-label-cifar10/mlp"].configs["smoke"].settings
    with pytest.raises(UserError, match="got a plan"):
        reproduce(EXPERIMENTS["isometry/supervised"], "smoke", runs=tmp_path)
    assert "l2-init" not in planned[0].methods
    assert "l2-init.strength=0.001" not in planned[0].settings


def test_shipped_tables_are_of_benchmarks_and_small():
    from importlib import resources

    files = list((resources.files("pliant.experiments") / "tables").iterdir())
    names = {folder_of(name, scale).name: (name, scale) for name in BENCHMARKS for scale in SCALES}
    for file in files:
        name, scale = names[file.name.removesuffix(".parquet")]
        with resources.as_file(file) as path:
            assert path.stat().st_size < 400_000
            found = find_results(BENCHMARKS[name], scale, path.parent / "nowhere")
        assert not found.lacks
        assert found.num_tasks == BENCHMARKS[name].configs[scale].tasks
        assert set(found.metrics["method"]) == set(_labels(BENCHMARKS[name], scale))
        assert found.record["date"]
        assert found.record["choices"] == choices(BENCHMARKS[name], scale), "of an older configuration: run it again"


@pytest.mark.parametrize(
    "experiment", [each for each in EXPERIMENTS.values() if each.claims], ids=lambda each: each.name
)
def test_claims_on_shipped_results_have_verdicts(experiment, tmp_path):
    """A claim about a metric that its run cannot measure, such as a large Jacobian, could never be judged."""
    results = stored_results(experiment, "cpu", tmp_path)
    for claim in experiment.claims:
        if _runs_of(claim, experiment) <= set(results):
            verdict = judge(claim, results)
            assert verdict.outcome != "not run", f"{claim.name}: {verdict.reason}"


def _runs_of(claim, experiment):
    sides = [side for each in claim.comparisons for side in (each.more, each.less) if not isinstance(side, float)]
    return {run or next(iter(experiment.runs)) for side in sides for run in side.runs}
