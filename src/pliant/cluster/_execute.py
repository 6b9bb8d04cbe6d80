"""Hands jobs to workers and follows them: what is finished, running and failed, and the time that is left."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pliant.cluster._failures import Failure, record_failure
from pliant.cluster._job import Ended, Job, run_job
from pliant.cluster._plan import SweepJob, SweepRun, num_tasks_done
from pliant.errors import UserError
from pliant.results import RunFolder

_POLL = 0.5  # seconds between looks at the jobs
_TELL = 2.0  # seconds between what a worker tells of its job
_TOPIC = "pliant"
_GONE = 45.0  # seconds after which a scheduler that does not answer is given up


class Standing(NamedTuple):
    """How far a sweep is."""

    done: int
    running: int
    failed: int
    total: int
    fraction: float
    """Of the work, in [0, 1], with parts of jobs that are running."""
    seconds_left: float | None
    """None before there is anything to estimate it from."""
    ended: tuple[SweepJob, str] | None = None
    """The job that has just ended, and the message of its failure."""


def execute(
    runs: Sequence[SweepRun],
    client: Any,
    *,
    retry_failed: bool = False,
    costs: dict[str, float] | None = None,
    report: Callable[[Standing], None] = lambda _: None,
) -> list[SweepJob]:
    """Executes the jobs of some runs that are not done, and writes the summary of every run.

    A job whose worker dies is given to another one, where it continues from its checkpoint. One that fails is recorded
    in its run folder, and the others go on.

    Args:
      runs: what is to be done.
      client: of `distributed`.
      retry_failed: whether jobs that failed before are tried again.
      costs: what each job takes, by key, in any unit; the longest begin first.
      report: called about every half second, and after every job.

    Returns:
      The jobs that have failed, with their failures: now, and before if they were not tried again.

    Raises:
      UserError: if a folder holds another run, or the scheduler is gone.
    """
    for run in runs:
        if any(job.state != "done" for job in run.jobs):
            folder = RunFolder.begin(run.path, run.plan.record)
            folder.log(f"sweep: {len(run.jobs)} jobs")
            for each in run.plan.methods:  # whose order is that of tables, whoever begins to train first
                with folder.open_method(each.method.name, each.configuration):
                    pass
    jobs = [job for run in runs for job in run.jobs]
    waiting = {job.key: job for job in jobs if job.state == "to do" or (retry_failed and job.state == "failed")}
    failed = [job for job in jobs if job.failure and job.key not in waiting]
    follower = _Follower(len(jobs), waiting, costs or {}, len(jobs) - len(waiting) - len(failed), len(failed))
    client.subscribe_topic(_TOPIC, follower.told)
    order = sorted(waiting.values(), key=lambda job: -follower.cost(job))  # stable: equal ones as planned
    futures = {job.key: client.submit(_work, job.job, job.key, key=job.key, pure=False) for job in order}
    unanswered = None
    while futures:
        ended = [key for key, future in futures.items() if future.done()]
        for key in ended:
            job, future = waiting[key], futures.pop(key)
            if future.cancelled() or future.status == "lost":
                raise _scheduler_gone()
            outcome = _outcome(future)
            if outcome.message:
                failed.append(job._replace(state="failed", failure=_failed(job, outcome)))
            report(follower.end(job, outcome.message))
        if client.status != "running":
            unanswered = unanswered or time.monotonic()
            if client.status == "closed" or time.monotonic() - unanswered > _GONE:
                raise _scheduler_gone()
        else:
            unanswered = None
        report(follower.standing())
        if not ended:
            time.sleep(_POLL)
    for run in runs:
        if (run.path / "methods").exists():
            RunFolder(run.path).write_summary()
    return failed


def _work(job: Job, key: str) -> Ended:
    """What a worker does: the job, telling now and then how far it is."""
    from distributed import get_worker

    worker, told = get_worker(), 0.0

    def report(fraction: float) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL:
            told = time.monotonic()
            worker.log_event(_TOPIC, {"key": key, "fraction": fraction})

    worker.log_event(_TOPIC, {"key": key, "fraction": 0.0})
    return run_job(Job(*job), report)


def _outcome(future: Any) -> Ended:
    """How a job ended; what `distributed` raises, such as for workers that die again and again, is a failure too."""
    error = future.exception()
    if error is None:
        return Ended(*future.result())
    if type(error).__name__ == "KilledWorker":
        return Ended(0.0, "its workers died again and again, perhaps for lack of memory")
    return Ended(0.0, f"{type(error).__name__}: {str(error)[:300]}")


def _failed(job: SweepJob, outcome: Ended) -> Failure:
    RunFolder(job.path).log(f"{job.title}: failed: {outcome.message}")
    tasks_done = num_tasks_done(job.block, job.method)
    return record_failure(
        job.path, job.method.method.name, job.block.seeds, tasks_done, outcome.message, outcome.traceback
    )


def _scheduler_gone() -> UserError:
    return UserError(
        got="no answer from the scheduler of the sweep",
        wanted="a scheduler that runs until the sweep ends",
        do="Finished tasks are kept: start the scheduler again, and give the same command to continue.",
    )


class _Follower:
    """Counts jobs, and estimates the time that is left from the work that was done since the start."""

    def __init__(self, total: int, waiting: dict[str, SweepJob], costs: dict[str, float], done: int, failed: int):
        self._total, self._done, self._failed = total, done, failed
        self._costs = costs
        self._usual = sum(costs.values()) / len(costs) if costs else 1.0
        self._left = {key: self.cost(job) for key, job in waiting.items()}
        self._all = sum(self._left.values())
        self._before = {key: job.tasks_done / job.tasks for key, job in waiting.items() if job.state != "done"}
        self._fractions: dict[str, float] = {}
        self._started = time.monotonic()

    def cost(self, job: SweepJob) -> float:
        """What is left of a job, in the unit of the costs."""
        return self._costs.get(job.key, self._usual) * (1 - job.tasks_done / job.tasks)

    def told(self, event: tuple[float, Any]) -> None:
        """Takes what a worker has told."""
        _, message = event
        key = message["key"]
        if key in self._left:
            before = self._before[key]
            self._fractions[key] = max(0.0, float(message["fraction"]) - before) / (1 - before)

    def end(self, job: SweepJob, message: str) -> Standing:
        """Counts a job that has ended."""
        self._left.pop(job.key)
        self._fractions.pop(job.key, None)
        if message:
            self._failed += 1
        else:
            self._done += 1
        return self.standing()._replace(ended=(job, message))

    def standing(self) -> Standing:
        """How far the sweep is now."""
        left = sum(cost * (1 - self._fractions.get(key, 0.0)) for key, cost in list(self._left.items()))
        done = self._all - left
        elapsed = time.monotonic() - self._started
        seconds_left = elapsed * left / done if done > 0.01 * self._all else None
        fraction = done / self._all if self._all else 1.0
        return Standing(self._done, len(self._fractions), self._failed, self._total, fraction, seconds_left)
