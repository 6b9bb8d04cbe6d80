"""From runs to jobs: blocks of seeds, what is done already, and the folders of experiments."""

from pathlib import Path

import pytest

from cluster.finishing import finish
from pliant.cluster import Wanted, is_experiment, plan_runs, record_failure, wanted_of
from pliant.errors import UserError
from pliant.experiments import BENCHMARKS, EXPERIMENTS, folder_of
from pliant.results import RunFolder
from pliant.supervised import RunConfig

SMALL = {"steps": 2, "train_size": 40, "widths": (4,), "batch_size": 8}
CONFIG = RunConfig(methods=("adam", "redo"), seeds=5, tasks=2, settings=("redo.every=2",), **SMALL)


@pytest.fixture(autouse=True)
def _this_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def _plan(config=CONFIG, seeds_per_job=2, path=Path("run")):
    (run,), _ = plan_runs([Wanted("a", config, path)], seeds_per_job)
    return run


def test_a_job_for_each_method_and_block_of_seeds():
    run = _plan()
    assert [job.title for job in run.jobs] == [
        f"{method}, {seeds}" for method in ("adam", "redo") for seeds in ("seeds 0–1", "seeds 2–3", "seed 4")
    ]
    assert len({job.key for job in run.jobs}) == 6
    last = run.jobs[-1].job
    assert (last.config.methods, last.config.first_seed, last.config.seeds) == (("redo",), 4, 1)
    assert (last.config.settings, last.of_seeds) == (("redo.every=2",), 5)
    assert run.jobs[0].job.config.settings == ()
    assert [job.block.seeds for job in _plan(seeds_per_job=None).jobs] == [range(5)] * 2


def test_what_is_done_failed_and_begun():
    run = _plan()
    jobs = run.jobs
    finish(run, jobs[0])
    record_failure(jobs[0].path, "adam", jobs[1].block.seeds, 0, "no luck", "a traceback")
    record_failure(jobs[0].path, "adam", jobs[0].block.seeds, 1, "before it went well", "")
    finish(run, jobs[2], tasks=1)
    again = _plan().jobs
    assert [job.state for job in again] == ["done", "failed", "to do", "to do", "to do", "to do"]
    assert [job.tasks_done for job in again[:3]] == [2, 0, 1]
    assert again[0].failure is None
    assert again[1].failure.message == "no luck"
    assert (jobs[0].path / again[1].failure.traceback).read_text() == "a traceback"
    longer = _plan(RunConfig(methods=("adam",), seeds=5, tasks=3, **SMALL)).jobs
    assert [(job.state, job.tasks_done) for job in longer] == [("to do", 2), ("failed", 0), ("to do", 1)]


def test_a_task_without_its_checkpoint_is_not_done():
    """A process may be killed between the metrics of a task and its checkpoint."""
    run = _plan()
    finish(run, run.jobs[0])
    assert _plan().jobs[0].state == "done"
    (run.jobs[0].block.checkpoints / "2").rmdir()
    assert (_plan().jobs[0].state, _plan().jobs[0].tasks_done) == ("to do", 1)


def test_stored_blocks_stay_as_they_are():
    run = _plan(seeds_per_job=3)
    finish(run, run.jobs[0])
    assert [job.block.seeds for job in _plan(seeds_per_job=1).jobs[:3]] == [range(3), range(3, 4), range(4, 5)]
    shifted = RunConfig(methods=("adam",), first_seed=3, seeds=2, tasks=2, **SMALL)
    assert [job.block.seeds for job in _plan(shifted, None).jobs] == [range(3, 5)]


def test_a_folder_with_another_configuration_is_refused():
    run = _plan()
    finish(run, run.jobs[3])
    with pytest.raises(UserError, match=r"run, which holds redo with another configuration"):
        _plan(RunConfig(methods=("redo",), tasks=2, settings=("redo.every=3",), **SMALL))


def test_each_structure_of_a_grid_has_a_folder():
    config = RunConfig(methods=("adam", "redo"), seeds=1, tasks=1, grid=("redo.source=fresh,initial",), **SMALL)
    runs, _ = plan_runs([Wanted("a", config, Path("out"))])
    assert [str(run.path) for run in runs] == ["out/others", "out/redo.source=fresh", "out/redo.source=initial"]
    assert [run.name for run in runs] == ["a, others", "a, redo.source=fresh", "a, redo.source=initial"]
    (default, *_), _ = plan_runs([Wanted("a", config)])
    assert default.path.parent.name.startswith("sweep-random-labels-")


def test_experiments_are_in_the_folders_of_reproduce():
    (run,), _ = plan_runs(wanted_of("survey/remedies", "smoke"))
    assert run.path == folder_of("survey/remedies", "smoke")
    config = BENCHMARKS["survey/remedies"].configs["smoke"]
    assert {job.method.spec for job in run.jobs} == set(config.methods)
    assert all(len(job.block.seeds) == config.seeds for job in run.jobs)
    assert not is_experiment("random-labels")
    with pytest.raises(UserError, match=r"got the experiment 'isometry/strenth'; .*Did you mean 'isometry/strength'"):
        wanted_of("isometry/strenth", "smoke")


def test_runs_that_experiments_share_are_made_once():
    asked = {name for each in EXPERIMENTS.values() if each.name.startswith("isometry/") for name in each.runs.values()}
    assert sorted(each.name for each in wanted_of("isometry", "cpu")) == sorted(asked)


def test_two_runs_in_one_folder_are_refused():
    with pytest.raises(UserError, match=r"got two runs in .*run; wanted a folder for each run"):
        plan_runs([Wanted(name, CONFIG, Path("run")) for name in ("a", "b")])


def test_a_run_without_its_data_leaves_the_others(tmp_path):
    """Of one that cannot be run the reason is told; alone, it is an error."""
    (tmp_path / "images").mkdir()
    missing = Wanted("b", RunConfig(dataset="mnist", methods=("adam",)), data_dir=str(tmp_path / "images"))
    runs, refused = plan_runs([Wanted("a", CONFIG), missing, Wanted("c", CONFIG, Path("run"))])
    assert [run.name for run in runs] == ["a", "c"]
    assert list(refused) == ["b"]
    assert "wanted the data set 'mnist' as parquet files" in refused["b"]
    with pytest.raises(UserError, match="wanted the data set 'mnist' as parquet files"):
        plan_runs([missing])


def test_a_data_folder_is_for_the_runs_that_read_from_it():
    found = {each.name: each.data_dir for each in wanted_of("predictors", "cpu", data_dir="images")}
    assert found.pop("predictors/labels-digits") is None
    assert found.pop("predictors/regression") is None
    assert set(found.values()) == {"images"}


def test_runs_of_embedded_and_generated_data_are_planned_whatever_the_folder():
    wanted = wanted_of("predictors/next-task", "smoke", data_dir="images")
    runs, refused = plan_runs(wanted)
    assert [run.name for run in runs] == [each.name for each in wanted]
    assert refused == {}


def test_planning_writes_nothing(tmp_path):
    _plan()
    assert not list(tmp_path.iterdir())


def test_a_method_that_does_not_suit(tmp_path):
    config = RunConfig(methods=("adam", "two-hot"), seeds=1, tasks=1, **SMALL)
    (run,), _ = plan_runs([Wanted("a", config, tmp_path / "run", is_strict=False)])
    assert [job.method.spec for job in run.jobs] == ["adam"]
    assert "two-hot" in run.left_out
    with pytest.raises(UserError, match="two-hot"):
        plan_runs([Wanted("a", config, tmp_path / "run")])
    assert RunFolder.begin(tmp_path / "run", run.plan.record).methods == {}
