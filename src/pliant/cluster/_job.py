"""A job: one method with one block of seeds of one run, as plain data, and its execution."""

import dataclasses
import functools
import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pliant import problems
from pliant.errors import BusyError, UserError, in_one_line
from pliant.problems import Config
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig
from pliant.training import train
from pliant.xla import guard

CORES = "PLIANT_CORES"
"""The environment variable with the cores that a worker computes on, such as 0,1; all if it is not set."""
_PAUSE = 2.0  # seconds between attempts to claim a block that another process is training


class Job(NamedTuple):
    """What a worker executes; every field is JSON data."""

    kind: str
    """ "stream" or "environment"."""
    choices: Mapping[str, Any]
    """The fields of the `RunConfig` or `AgentConfig`, with one method and one block of seeds."""
    out: str
    """The run folder, absolute, on a disk that all workers share."""
    of_seeds: int
    """The number of seeds of the whole run."""
    data_dir: str | None
    directory: str
    """The working directory, in which relative paths of the user's files are found."""

    @property
    def config(self) -> Config:
        """The configuration of the job as a run.

        Example:
          >>> job_of(RunConfig(methods=("adam",), widths=(8,)), Path("run"), 4).config.widths
          (8,)
        """
        of_problem = AgentConfig if self.kind == "environment" else RunConfig
        return of_problem(**{name: _as_tuple(value) for name, value in self.choices.items()})


def job_of(config: Config, out: Path, of_seeds: int, data_dir: str | None = None) -> Job:
    """The job of a configuration with one method and one block of seeds.

    Args:
      config: of the job.
      out: the run folder.
      of_seeds: the number of seeds of the whole run.
      data_dir: see `pliant.streams.load_dataset`.
    """
    choices = json.loads(json.dumps(dataclasses.asdict(config)))
    return Job(problems.kind_of(config), choices, str(out.absolute()), of_seeds, data_dir, str(Path.cwd()))


class Ended(NamedTuple):
    """How a job ended, as plain data."""

    seconds: float
    message: str = ""
    """Of what it failed with; empty if it is finished."""
    traceback: str = ""


def run_job(job: Job, report: Callable[[float], None] = lambda _: None) -> Ended:
    """Trains what a job says; one that is finished needs no training, and an interrupted one is continued.

    It equals `pliant.run` of the same method and seeds. Whatever goes wrong is returned, not raised.

    Args:
      job: what is trained.
      report: called with the fraction of the job that is done, after every chunk of updates.
    """
    started = time.perf_counter()
    try:
        os.chdir(job.directory)
        _start_jax()
        plan = problems.make_plan(job.config, job.data_dir)
        while True:
            try:
                train(plan, Path(job.out), lambda now: report(now.done), of_seeds=job.of_seeds)
                break
            except BusyError:  # such as a worker that the scheduler has given up, and that is still alive
                time.sleep(_PAUSE)
    except Exception as error:
        message = in_one_line(error)
        told = "" if isinstance(error, UserError) else traceback.format_exc()
        return Ended(time.perf_counter() - started, message, told)
    return Ended(time.perf_counter() - started)


@functools.cache
def _start_jax() -> None:
    """Restricts this worker to its cores, each a device, before JAX starts."""
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):  # of this thread, and of those that it starts
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    guard.use_every_core()
    guard.cache_compilations()


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
