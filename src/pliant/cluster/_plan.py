"""From what is asked for to runs and their jobs; nothing is trained."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pliant import problems
from pliant.cluster._failures import Failure, failures_of
from pliant.cluster._job import Job, job_of
from pliant.cluster._structures import structures
from pliant.errors import UserError, unknown_name
from pliant.experiments import EXPERIMENTS, RUNS, Scale, folder_of, with_choices
from pliant.problems import Config
from pliant.results import MethodFolder, RunFolder, SeedBlock, fingerprint
from pliant.specs import NO_OBJECTS
from pliant.training import MethodPlan, Plan, run_folder

State = Literal["done", "failed", "to do"]


class Wanted(NamedTuple):
    """A run that is asked for."""

    name: str
    config: Config
    path: Path | None = None
    """The run folder; by default that of `pliant run`."""
    folder: str | None = None
    """What that is named after if it is not the problem."""
    is_strict: bool = True
    """Whether a method that cannot do the run is an error; otherwise it is left out."""
    data_dir: str | None = None
    """See `pliant.streams.load_dataset`."""


class SweepJob(NamedTuple):
    """A job, and where it stands."""

    job: Job
    run: str
    """The name of its run."""
    path: Path
    """The run folder."""
    method: MethodPlan
    block: SeedBlock
    tasks: int
    tasks_done: int
    state: State
    failure: Failure | None = None
    """The last one, unless the job has got further since."""

    @property
    def key(self) -> str:
        """A name that no other job has."""
        return f"{self.path.absolute()}: {self.title}"

    @property
    def title(self) -> str:
        """The method and its seeds."""
        first, last = self.block.seeds[0], self.block.seeds[-1]
        seeds = f"seed {first}" if first == last else f"seeds {first}–{last}"
        return f"{self.method.method.name}, {seeds}"


class SweepRun(NamedTuple):
    """A run folder, and the jobs that fill it."""

    name: str
    path: Path
    plan: Plan
    jobs: tuple[SweepJob, ...]
    left_out: dict[str, str]
    """Methods that cannot do the run, and why."""


def plan_runs(wanted: Sequence[Wanted], seeds_per_job: int | None = None) -> tuple[list[SweepRun], dict[str, str]]:
    """The runs of several configurations, each in jobs.

    Args:
      wanted: what is asked for.
      seeds_per_job: seeds that are trained together at most; by default all of a method.

    Returns:
      The runs, and for every configuration that cannot be run, such as for lack of its data, the reason.

    Raises:
      UserError: if none can be run: the reason of the first; if two runs have the same folder.
    """
    runs, refused = list[SweepRun](), dict[str, UserError]()
    for each in wanted:
        try:
            runs += _plan_structures(each, seeds_per_job)
        except UserError as error:
            refused[each.name] = error
    if not runs:
        raise next(iter(refused.values()))
    paths = [run.path.absolute() for run in runs]
    doubled = [path for path in paths if paths.count(path) > 1]
    if doubled:
        raise UserError(
            got=f"two runs in {doubled[0]}",
            wanted="a folder for each run",
            do="Drop or rename one of them.",
        )
    return runs, {name: str(error) for name, error in refused.items()}


def wanted_of(name: str, scale: Scale, runs: Path = RUNS, data_dir: str | None = None) -> list[Wanted]:
    """The runs of an experiment, or of all whose names begin with a word; each once, in the folders of `reproduce`.

    Args:
      name: of an experiment, such as "isometry/supervised", or what stands before the slash.
      scale: of its runs.
      runs: the folder of run folders.
      data_dir: for the runs that read their data from a folder, see `pliant.streams.load_dataset`.

    Raises:
      UserError: for an unknown name.
    """
    chosen = [each for each in EXPERIMENTS.values() if name in (each.name, each.name.partition("/")[0])]
    if not chosen:
        raise unknown_name("experiment", name, EXPERIMENTS, do="See `pliant list experiments`.")
    configs = {
        benchmark.name: with_choices(benchmark, scale, {}) for each in chosen for benchmark in each.benchmarks.values()
    }
    return [
        Wanted(each, config, folder_of(each, scale, runs), data_dir=problems.folder_for(config, data_dir))
        for each, config in configs.items()
    ]


def is_experiment(word: str) -> bool:
    """Whether a word names an experiment, or stands before the slash of some.

    Example:
      >>> is_experiment("isometry"), is_experiment("random-labels")
      (True, False)
    """
    return any(word in (name, name.partition("/")[0]) for name in EXPERIMENTS)


def _plan_structures(wanted: Wanted, seeds_per_job: int | None) -> list[SweepRun]:
    """The runs of a configuration: one for each structure of its grid.

    Raises:
      UserError: as `pliant.problems.make_plan`; for a folder that holds another run; for options that shape the program
        in a grid for all methods.
    """
    parts = structures(wanted.config)
    if len(parts) == 1 and not parts[0].name:
        return [_plan_part(wanted, seeds_per_job)]
    base = wanted.path
    if base is None:
        identity = dataclasses.asdict(wanted.config) | {"methods": (), "seeds": 0, "tasks": 0}
        name = wanted.folder or str(getattr(wanted.config, problems.kind_of(wanted.config)))
        base = Path("runs") / f"sweep-{re.sub('[^A-Za-z0-9_.-]', '-', name)}-{fingerprint(identity)}"
    runs = []
    for name, config in parts:
        name = name or "others"
        part = wanted._replace(name=f"{wanted.name}, {name}", config=config, path=base / name)
        runs.append(_plan_part(part, seeds_per_job))
    return runs


def _plan_part(wanted: Wanted, seeds_per_job: int | None) -> SweepRun:
    """One run: its plan, and a job for each method and block of seeds."""
    config, data_dir, left_out = wanted.config, wanted.data_dir, dict[str, str]()
    if wanted.is_strict:
        plan = problems.make_plan(config, data_dir)
    else:
        plan, left_out = problems.plan_suited(config, data_dir)
    path = run_folder(plan, wanted.path, wanted.folder)
    stored = RunFolder(path) if (path / "config.json").exists() else None
    if stored and (others := stored.others({each.method.name: each.configuration for each in plan.methods})):
        raise UserError(
            got=f"{path}, which holds {', '.join(others)} with another configuration",
            wanted="an empty folder, or the run's own to continue it",
            do="Choose another folder, or give the options that the run was started with.",
        )
    failures = failures_of(path)
    jobs = []
    for method in plan.methods:
        for block in _blocks(path / "methods" / method.method.name, config, seeds_per_job):
            tasks_done = num_tasks_done(block, method)
            failure = failures.get((method.method.name, (block.seeds[0], block.seeds[-1])))
            if failure and (tasks_done > failure.tasks_done or tasks_done >= config.tasks):
                failure = None
            state: State = "done" if tasks_done >= config.tasks else "failed" if failure else "to do"
            job = job_of(_of_job(config, method, block), path, config.seeds, data_dir)
            jobs.append(SweepJob(job, wanted.name, path, method, block, config.tasks, tasks_done, state, failure))
    return SweepRun(wanted.name, path, plan, tuple(jobs), left_out)


def _blocks(folder: Path, config: Config, seeds_per_job: int | None) -> Iterator[SeedBlock]:
    """The blocks that hold the seeds asked for: those that are stored, and the rest in jobs."""
    asked = range(config.first_seed, config.first_seed + config.seeds)
    blocks = [SeedBlock(folder / f"seeds-{asked[0]:04d}-{asked[-1]:04d}", asked)]
    if (folder / "config.json").exists():
        blocks = sorted(MethodFolder(folder).blocks(config.seeds, config.first_seed), key=lambda each: each.seeds.start)
    for block in blocks:
        if not set(block.seeds) & set(asked):
            continue
        if block.has_metrics or seeds_per_job is None:
            yield block
            continue
        for first in range(block.seeds.start, block.seeds.stop, seeds_per_job):
            seeds = range(first, min(first + seeds_per_job, block.seeds.stop))
            yield SeedBlock(folder / f"seeds-{seeds[0]:04d}-{seeds[-1]:04d}", seeds)


def num_tasks_done(block: SeedBlock, method: MethodPlan) -> int:
    """The tasks that have their metrics and a checkpoint, which comes after them."""
    checkpoints = [int(each.name) for each in block.checkpoints.glob("*") if each.name.isdigit()]
    return min(block.num_tasks_stored(with_curves=method.source.points is not None), max(checkpoints, default=0))


def _of_job(config: Config, method: MethodPlan, block: SeedBlock) -> Config:
    """The run of one method with one block of seeds."""
    alone = dataclasses.replace(
        config,
        methods=(method.spec,),
        first_seed=block.seeds.start,
        seeds=len(block.seeds),
        settings=(),
        grid=(),
    )
    return dataclasses.replace(
        alone,
        settings=problems.settings_in_use(config.settings, alone, NO_OBJECTS),
        grid=problems.settings_in_use(config.grid, alone, NO_OBJECTS),
    )


def jobs_of(runs: Sequence[SweepRun]) -> list[SweepJob]:
    """The jobs of several runs."""
    return [job for run in runs for job in run.jobs]
