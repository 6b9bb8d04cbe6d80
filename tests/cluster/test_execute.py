"""Following jobs, with a client that executes them on the spot."""

from pathlib import Path

import pytest

from cluster.finishing import finish
from pliant.cluster import Wanted, execute, plan_runs
from pliant.errors import UserError
from pliant.results import RunFolder
from pliant.supervised import RunConfig

CONFIG = RunConfig(methods=("adam", "redo"), seeds=2, tasks=1, steps=2, train_size=40, widths=(4,), batch_size=8)


class KilledWorker(Exception):  # as `distributed` calls it
    pass


class _Future:
    def __init__(self, outcome, status):
        self._outcome, self.status = outcome, status

    def done(self):
        return True

    def cancelled(self):
        return self.status == "cancelled"

    def exception(self):
        return self._outcome if isinstance(self._outcome, Exception) else None

    def result(self):
        return self._outcome


class _Client:
    """Finishes a job when it is submitted; `outcomes` replaces what comes of some."""

    def __init__(self, runs, outcomes=None, status="finished"):
        self._jobs = {job.key: (run, job) for run in runs for job in run.jobs}
        self.status, self.submitted = "running", []
        self._outcomes, self._status = outcomes or {}, status

    def subscribe_topic(self, topic, handler):
        self.tell = handler

    def submit(self, function, job, name, *, key, pure):
        self.submitted.append(key.rpartition(": ")[2])
        self.tell((0.0, {"key": key, "fraction": 0.5}))
        outcome = self._outcomes.get(self.submitted[-1])
        if outcome is None:
            finish(*self._jobs[key])
            outcome = (1.0, "", "")
        return _Future(outcome, self._status)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda: plan_runs([Wanted("a", CONFIG, Path("run"))], 1)[0]


def test_jobs_that_fail_are_listed_while_the_others_go_on(runs):
    broken = {"redo, seed 0": (1.0, "no luck", "a traceback"), "adam, seed 1": KilledWorker("redo-1")}
    standings = []
    planned = runs()
    failures = execute(planned, _Client(planned, broken), report=standings.append)
    assert sorted(each.failure.message for each in failures) == [
        "its workers died again and again, perhaps for lack of memory",
        "no luck",
    ]
    ended = [each for each in standings if each.ended]
    assert [(each.done, each.failed) for each in ended][-1] == (2, 2)
    assert ended[0].total == 4
    assert ended[-1].running == 0
    assert ended[-1].fraction == pytest.approx(1.0)
    assert set(RunFolder("run").metrics["method"]) == {"adam", "redo"}
    assert Path("run/summary.csv").exists()
    assert "redo, seed 0: failed: no luck" in Path("run/run.log").read_text()

    planned = runs()
    again = _Client(planned)
    assert {each.failure.message for each in execute(planned, again)} == {each.failure.message for each in failures}
    assert again.submitted == []
    assert execute(planned, again, retry_failed=True) == []
    assert sorted(again.submitted) == ["adam, seed 1", "redo, seed 0"]
    planned = runs()
    nothing = _Client(planned)
    assert execute(planned, nothing, retry_failed=True) == []
    assert nothing.submitted == []


def test_the_longest_job_begins_first(runs):
    planned = runs()
    costs = {job.key: cost for job, cost in zip(planned[0].jobs, (1.0, 4.0, 2.0, 3.0), strict=True)}
    client = _Client(planned)
    execute(planned, client, costs=costs)
    assert client.submitted == ["adam, seed 1", "redo, seed 1", "redo, seed 0", "adam, seed 0"]


def test_methods_stand_in_the_order_asked_for(runs):
    planned = runs()
    costs = {job.key: cost for job, cost in zip(planned[0].jobs, (1.0, 1.0, 2.0, 2.0), strict=True)}
    client = _Client(planned, {"adam, seed 0": (1.0, "no luck", ""), "adam, seed 1": (1.0, "no luck", "")})
    execute(planned, client, costs=costs)
    assert list(RunFolder("run").methods) == ["adam", "redo"]
    assert set(RunFolder("run").metrics["method"]) == {"redo"}
    execute(runs(), _Client(runs()), retry_failed=True)
    assert list(RunFolder("run").metrics["method"].unique()) == ["adam", "redo"]


@pytest.mark.parametrize("status", ["cancelled", "lost"])
def test_a_scheduler_that_is_gone(runs, status):
    planned = runs()
    with pytest.raises(UserError, match=r"no answer from the scheduler.*give the same command to continue"):
        execute(planned, _Client(planned, status=status))


def test_the_folder_of_another_run_is_refused_before_anything_is_submitted(runs):
    planned = runs()
    client = _Client(planned)
    RunFolder.begin("run", planned[0].plan.record._replace(title="another"))
    with pytest.raises(UserError, match="another configuration"):
        execute(planned, client)
    assert client.submitted == []
