"""Diagnostics from the start of a task: what they see, and what their metrics are called."""

import pytest

import pliant
from pliant.problems import diagnose_run
from pliant.types import Diagnostic, Measured

QUICK = {"seeds": 1, "steps": 4, "train_size": 100, "batch_size": 10, "widths": (8,)}


def _measure(subject):
    return {"head": subject.params["head"]["kernel"].sum(), "labels": (subject.probe.targets * 1.0)[:50].sum()}


def _summarize(found):
    return Measured({name: float(value) for name, value in found.items()})


END = Diagnostic("at-end", "", "cheap", _measure, _summarize)
START = END._replace(name="at-start", moment="start")


def run(out, **changes):
    diagnostics = [END, START, "start-loss", "probe-loss", "readiness", "gradient-noise"]
    asked = {"tasks": 2, "methods": ["adam", "head-reset"], "diagnostics": diagnostics}
    return pliant.run("random-labels", out=out, **QUICK | asked | changes)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    folder = run(tmp_path_factory.mktemp("run") / "run")
    return folder, folder.metrics.set_index(["method", "metric", "task"])["value"]


def test_it_is_the_network_that_begins_the_task_on_the_new_examples(metrics):
    _, value = metrics
    assert value["adam", "start_head", 2] == value["adam", "head", 1]
    assert value["adam", "start_head", 1] != value["adam", "head", 1]
    assert value["adam", "start_labels", 2] == value["adam", "labels", 2] != value["adam", "labels", 1]


def test_it_comes_after_what_is_done_when_the_task_changes(metrics):
    _, value = metrics
    assert value["head-reset", "start_head", 1] == value["adam", "start_head", 1]
    assert value["head-reset", "start_head", 2] != value["head-reset", "head", 1]


def test_losses_and_readiness_of_the_new_task(metrics):
    folder, value = metrics
    assert value["adam", "start_probe_loss", 1] > value["adam", "probe_loss", 1]
    for task in (1, 2):
        signal = value["adam", "start_gradient_signal", task]
        assert value["adam", "start_readiness_strength", task] == pytest.approx(signal, rel=1e-5)
        assert 0 <= value["adam", "start_readiness", task] <= max(signal, 0)
    assert not [name for name in folder.metrics["metric"].unique() if name.startswith("readiness")]


def test_a_run_that_is_extended_has_the_same_numbers(metrics, tmp_path):
    run(tmp_path / "run", tasks=1)
    again = run(tmp_path / "run").metrics.set_index(["method", "metric", "task"])["value"]
    is_start = metrics[1].index.get_level_values("metric").str.startswith("start_")
    assert is_start.sum() == 2 * 2 * 9
    assert again.loc[metrics[1].index][is_start].equals(metrics[1][is_start])


def test_a_diagnosis_measures_at_the_end_whatever_the_moment(tmp_path):
    folder = run(tmp_path / "run", methods=["adam"], tasks=1, diagnostics=["probe-loss"])
    value = folder.metrics.set_index("metric")["value"]
    found = diagnose_run(folder.path, diagnostics=("start-loss", "readiness"))[0].numbers
    assert found["start-loss"]["probe_loss"] == pytest.approx(value["probe_loss"])
    assert "readiness" in found["readiness"]
