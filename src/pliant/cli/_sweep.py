"""`pliant sweep`: many runs as jobs on several workers."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table
from tyro.conf import OmitArgPrefixes, Positional, Suppress

from pliant import cluster
from pliant.cli._run import ALL, Run, RunAgent, run_command
from pliant.cli._terminal import is_terminal, new_console, print_error, print_line, print_table
from pliant.cluster import Standing, SweepJob, SweepRun, Wanted
from pliant.errors import UserError, require_range, require_whole
from pliant.experiments import RUNS, Scale

FAILED = 1
"""The exit code if jobs have failed."""
_FLAGS = ("--dry-run", "--retry-failed")
"""Options that take no value."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where jobs are executed, and which."""

    workers: int | None = None
    """Worker processes; by default one for each GPU, or for each core if there is none. With --slurm or --pbs, jobs of
    the queue (8)."""
    scheduler: str | None = None
    """Address of a Dask scheduler that runs already, with its workers: tcp://HOST:PORT or tls://HOST:PORT."""
    slurm: str | None = None
    """Workers that SLURM starts: partition=…,gpus=1,cores=8,memory=32GB,time=12:00:00,account=…,interface=…,setup=…,
    extra=…,python=…; of each worker."""
    pbs: str | None = None
    """The same with PBS."""
    tls_ca_file: Path | None = None
    """Certificate of the authority, for tls:// and queues; with --tls-cert and --tls-key."""
    tls_cert: Path | None = None
    """Certificate of all roles, see --tls-ca-file."""
    tls_key: Path | None = None
    """Its key."""
    seeds_per_job: int | None = None
    """Seeds of a method that one job trains together, at most; by default all. What is stored keeps its blocks."""
    retry_failed: bool = False
    """Whether jobs that failed before are tried again; otherwise they are listed."""
    dry_run: bool = False
    """Print the jobs, with estimated hours and memory, and do nothing."""
    tflops: float | None = None
    """For the estimate, 10¹² floating-point operations a second: of a GPU (15), or of a core (by default timed)."""

    @property
    def tls(self) -> cluster.Tls:
        """The certificates."""
        return cluster.Tls(self.tls_ca_file, self.tls_cert, self.tls_key)

    def check(self) -> None:
        """Raises for options that exclude each other."""
        given = [f"--{name}" for name in ("scheduler", "slurm", "pbs") if getattr(self, name) is not None]
        if len(given) > 1 or (self.scheduler and self.workers):
            raise UserError(
                got=" and ".join(given if len(given) > 1 else ["--scheduler", "--workers"]),
                wanted="one place for the jobs",
                do="Give --workers, --scheduler, --slurm or --pbs.",
            )
        require_range("tflops", self.tflops, 1e-6, do="Leave it out for the default.")
        if self.seeds_per_job is not None:
            require_whole("seeds_per_job", self.seeds_per_job, 1, do="Leave it out for all seeds of a method together.")

    @contextlib.contextmanager
    def client(self, shared: Path) -> Iterator[Any]:
        """A client of the workers; `shared` is a folder that all of them see."""
        if self.scheduler is not None:
            with cluster.remote_client(self.scheduler, self.tls) as client:
                yield client
        elif queue := self.queue():
            with cluster.queue_client(*queue, self.workers or 8, shared, self.tls) as client:
                yield client
        else:
            with cluster.local_client(self.workers) as client:
                yield client

    def device(self) -> tuple[cluster.Device, int | None]:
        """How fast a worker is assumed to be, and how many there are, if that is known."""
        tflops = {} if self.tflops is None else {"tflops": self.tflops}
        if queue := self.queue():
            _, resources = queue
            cores = int(resources.get("cores", "4"))
            has_gpu = resources.get("gpus", "0") != "0"
            return cluster.gpu_device(**tflops) if has_gpu else cluster.cpu_device(cores, **tflops), self.workers or 8
        if self.scheduler is None and cluster.num_gpus():
            return cluster.gpu_device(**tflops), len(cluster.worker_environments(self.workers))
        cores = len(cluster.usable_cores())
        if self.scheduler is not None:
            return cluster.cpu_device(1, **tflops), None
        number = len(cluster.worker_environments(self.workers))
        return cluster.cpu_device(max(1, cores // number), **tflops), number

    def queue(self) -> tuple[str, dict[str, str]] | None:
        """The queueing system that is asked for, and the resources of a worker; None without one."""
        for system in ("slurm", "pbs"):
            if (text := getattr(self, system)) is not None:
                return system, cluster.parse_resources(f"--{system}", text)
        return None


def _sweep(engine: Engine, wanted: Sequence[Wanted]) -> int:
    """Plans, executes and reports; returns the exit code."""
    import jax

    engine.check()
    jax.config.update("jax_platforms", "cpu")  # the GPUs are the workers'
    runs, refused = cluster.plan_runs(wanted, engine.seeds_per_job)
    jobs = cluster.jobs_of(runs)
    for run in runs:
        for name, reason in run.left_out.items():
            print_line(f"{run.name}: without {name}: {reason}")
    for name, reason in refused.items():
        print_error(f"cannot be run: {name}: {reason}")
    if engine.dry_run:
        device, num_workers = engine.device()
        estimates = cluster.estimate(jobs, device)
        print_table(plan_table(runs, dict(zip((job.key for job in jobs), estimates, strict=True))))
        print_line(_total(jobs, estimates, device, num_workers))
        if queue := engine.queue():
            print_line(cluster.queue_script(*queue))
        return FAILED if refused else 0
    todo = [job for job in jobs if job.state == "to do" or (engine.retry_failed and job.state == "failed")]
    print_line(f"{len(jobs)} jobs in {len(runs)} run{'' if len(runs) == 1 else 's'}, {len(todo)} to do")
    shared = runs[0].path.parent / "workers"
    failed = [job for job in jobs if job.state == "failed"]
    if todo:
        with engine.client(shared) as client, report_standing() as report:
            costs = {job.key: seconds * job.tasks for job in todo if (seconds := cluster.measured_seconds(job))}
            failed = cluster.execute(runs, client, retry_failed=engine.retry_failed, costs=costs, report=report)
    for job in failed:
        assert job.failure
        where = f" (see {job.path / job.failure.traceback})" if job.failure.traceback else ""
        print_error(f"failed: {job.run}: {job.title}: {job.failure.message}{where}")
    for run in runs:
        print_line(f"run: {run.path}")
    if failed:
        number = f"{len(failed)} job{'' if len(failed) == 1 else 's'}"
        print_error(f"{number} failed; --retry-failed tries again")
    return FAILED if failed or refused else 0


def plan_table(runs: Sequence[SweepRun], estimates: Mapping[str, cluster.Estimate]) -> Table:
    """The jobs of some runs, with what they take; a star marks hours that follow from finished tasks."""
    table = Table("run", "method", "seeds", "points", "tasks", "state", "hours", "GiB")
    for run in runs:
        for place, job in enumerate(run.jobs):
            first, last, of_job = job.block.seeds[0], job.block.seeds[-1], estimates[job.key]
            table.add_row(
                "" if place else run.name,
                job.method.method.name,
                str(first) if first == last else f"{first}–{last}",
                str(len(job.method.points)),
                f"{job.tasks_done} of {job.tasks}" if job.tasks_done else str(job.tasks),
                job.state,
                "–" if job.state == "done" else f"{_hours(of_job.seconds)}{'*' if of_job.is_measured else ''}",
                "–" if job.state == "done" else f"{of_job.memory / 2**30:.2g}",
                end_section=place == len(run.jobs) - 1,
            )
    return table


def _total(
    jobs: Sequence[SweepJob], estimates: Sequence[cluster.Estimate], device: cluster.Device, num_workers: int | None
) -> str:
    """A line about all jobs that are not done."""
    left = [each.seconds for job, each in zip(jobs, estimates, strict=True) if job.state != "done"]
    if not left:
        return f"{len(jobs)} jobs, all done"
    most = max(each.memory for each in estimates) / 2**30
    total = f"{len(left)} of {len(jobs)} jobs to do: {_hours(sum(left))} hours of a worker with {device.name}"
    together = (
        f", {_hours(max(sum(left) / num_workers, *left))} hours with {num_workers} workers" if num_workers else ""
    )
    return f"{total}{together}; {most:.2g} GiB at most. Expect errors by a factor of 3: see docs/sweeps.md."


def _hours(seconds: float) -> str:
    """A time in hours, to two digits.

    Example:
      >>> _hours(3600 * 1234), _hours(3600 * 5.64), _hours(30)
      ('1234', '5.6', '0.0083')
    """
    hours = seconds / 3600
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


@contextlib.contextmanager
def report_standing() -> Iterator[Callable[[Standing], None]]:
    """A bar on standard error where that is a terminal; a line a job on standard output unless both are terminals."""
    has_bar = is_terminal(sys.stderr)
    has_lines = not (has_bar and is_terminal(sys.stdout))
    columns = (
        TextColumn("{task.fields[jobs]}", markup=False, table_column=Column(overflow="fold")),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    progress = Progress(
        *columns, console=new_console(stderr=True), transient=True, redirect_stdout=is_terminal(sys.stdout)
    )
    bar = progress.add_task("", total=1.0, jobs="", left="")

    def report(now: Standing) -> None:
        jobs = f"{now.done} of {now.total} jobs done, {now.running} running, {now.failed} failed"
        left = "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
        if has_bar:
            progress.start()
            progress.update(bar, completed=now.fraction, jobs=jobs, left=left)
        if now.ended and (has_lines or now.ended[1]):
            job, message = now.ended
            ending = f"failed: {message}" if message else "done"
            print_line(f"{job.run}: {job.title}: {ending}; {jobs}{', ' if left else ''}{left}")

    try:
        yield report
    finally:
        if progress.live.is_started:
            progress.stop()


def duration(seconds: float) -> str:
    """A time in words.

    Example:
      >>> duration(42), duration(4000), duration(400_000)
      ('42 s', '1.1 h', '111 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


class _Command:
    """What sweeps of streams and of agents do alike."""

    def __call__(self: Any) -> int:
        """Trains all jobs."""
        if self.track:
            raise UserError(got="--track for a sweep", wanted="none", do="Track a single run: `pliant run`.")
        name = self.stream if isinstance(self, Run) else self.environment
        is_strict = self.methods != ALL
        return _sweep(self.engine, [Wanted(name, self._config(), self.out, self._name(), is_strict, self.data_dir)])


_Engine = Annotated[Engine, OmitArgPrefixes]
_Nothing = Annotated[tuple[str, ...], Suppress]


@dataclasses.dataclass(frozen=True)
class Sweep(_Command, Run):
    """The options of `pliant sweep STREAM`."""

    engine: _Engine = Engine()
    track: _Nothing = ()  # type: ignore[assignment]
    """Not of a sweep."""


@dataclasses.dataclass(frozen=True)
class SweepAgent(_Command, RunAgent):
    """Train an agent with several methods in some environments, as jobs on several workers. The same command continues
    an interrupted sweep.
    """

    engine: _Engine = Engine()
    track: _Nothing = ()  # type: ignore[assignment]
    """Not of a sweep."""


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """Train the runs of a file as jobs on several workers. The same command continues an interrupted sweep."""

    file: Positional[Path]
    """A TOML file with [defaults] and [[runs]]; see docs/sweeps.md."""
    out: Path | None = None
    """Folder in which each run has a folder of its name; by default what the file says, or runs/FILE."""
    data_dir: str | None = None
    """Folder with parquet files of the data sets; by default PLIANT_DATA, or else the Hugging Face hub."""
    engine: _Engine = Engine()

    def with_defaults_of_benchmark(self) -> "SweepFile":
        """The command itself."""
        return self

    def __call__(self) -> int:
        """Trains all jobs."""
        return _sweep(self.engine, cluster.read_sweep(self.file, self.out, self.data_dir))


@dataclasses.dataclass(frozen=True)
class SweepExperiment:
    """Train the runs of an experiment, or of all experiments of a paper, as jobs on several workers. They are those of
    `pliant reproduce`, in the same folders. The same command continues an interrupted sweep.
    """

    name: Positional[str]
    """Experiment such as isometry/supervised, or isometry for all of the paper; see `pliant list experiments`."""
    scale: Scale = "cpu"
    """smoke (minutes; shows that everything runs), cpu (shows the effect), or paper (the published size)."""
    runs: Path = RUNS
    """Folder of the run folders."""
    data_dir: str | None = None
    """Folder with parquet files of the data sets; by default PLIANT_DATA, or else the Hugging Face hub."""
    engine: _Engine = Engine()

    def with_defaults_of_benchmark(self) -> "SweepExperiment":
        """The command itself."""
        return self

    def __call__(self) -> int:
        """Trains all jobs."""
        return _sweep(self.engine, cluster.wanted_of(self.name, self.scale, self.runs, self.data_dir))


def sweep_command(
    arguments: Sequence[str],
) -> type[Sweep] | type[SweepAgent] | type[SweepFile] | type[SweepExperiment]:
    """Whether the words after `pliant sweep` are about a file, an experiment, a stream or an agent.

    Example:
      >>> lines = "--workers 2 a.toml", "isometry --dry-run", "--dry-run probe", "random-labels --out isometry"
      >>> [sweep_command(line.split()).__name__ for line in lines]
      ['SweepFile', 'SweepExperiment', 'SweepAgent', 'Sweep']
    """
    words = [word for word in arguments if word not in _FLAGS]
    places = [word for before, word in zip(["", *words], words, strict=False) if not before.startswith("--")]
    if any(word.endswith(".toml") for word in places):
        return SweepFile
    if any(map(cluster.is_experiment, places)):
        return SweepExperiment
    return Sweep if run_command(words) is Run else SweepAgent
