"""`pliant run`: trains, and says how far it is."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from tyro.conf import Positional, UseAppendAction, arg

from pliant import problems, training
from pliant.cli._plot import draw_figure
from pliant.cli._tables import print_run
from pliant.cli._terminal import is_terminal, new_console, print_line
from pliant.errors import unknown_name
from pliant.experiments import BENCHMARKS, Benchmark, Scale, with_choices
from pliant.methods import METHODS
from pliant.problems import Config
from pliant.rl import AgentConfig
from pliant.rl.environments import ENVIRONMENTS
from pliant.supervised import RunConfig

ALL = ("all",)
_WIDE = 100  # there is room for a bar

_Settings = Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(name="set", metavar="NAME.OPTION=VALUE")]


_FLAGS = ("--use-bias", "--no-use-bias")  # options that take no value


class Command:
    """What runs of streams and of agents do alike."""

    def __call__(self: Any) -> None:
        """Trains, then prints the table and where the figure is."""
        config, left_out = self._config(), dict[str, str]()
        if self.methods == ALL:
            plan, left_out = problems.plan_suited(config, self.data_dir)
        else:
            plan = problems.make_plan(config, self.data_dir)
        for name, reason in left_out.items():
            print_line(f"without {name}: {reason}")
        with report_progress(config.tasks) as report:
            folder = training.train(plan, training.run_folder(plan, self.out, self._name()), report, self.track)
        print_run(folder)
        draw_figure([folder])

    def with_defaults_of_benchmark(self: Any) -> Any:
        """What the command line starts from, now that it is known which benchmark it names."""
        kind = problems.kind_of(type(self))
        problem = getattr(self, kind)
        if problem not in BENCHMARKS:
            if self.scale is not None or ("/" in problem and ".py:" not in problem):
                raise unknown_name("benchmark", problem, BENCHMARKS, do="Streams have no slash and no --scale.")
            return type(self)()
        scale: Scale = self.scale or "cpu"
        choices = vars(BENCHMARKS[problem].configs[scale]) | {kind: problem, "settings": ()}
        return type(self)(**choices, scale=scale)

    def _config(self: Any) -> Config:
        kind = problems.kind_of(type(self))
        of_problem = AgentConfig if kind == "environment" else RunConfig
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(of_problem)}
        fields |= {"settings": tuple(itertools.chain(*self.settings))}
        fields |= {"methods": tuple(METHODS)} if self.methods == ALL else {}
        if self.scale is None:
            return of_problem(**fields)
        return with_choices(BENCHMARKS[fields[kind]], self.scale, fields)

    def _name(self: Any) -> str | None:
        name = getattr(self, problems.kind_of(type(self)))
        return None if self.scale is None else f"{name.replace('/', '-')}-{self.scale}"


@dataclasses.dataclass(frozen=True)
class Run(Command, RunConfig):
    """The options of `pliant run STREAM`."""

    stream: Positional[str] = "random-labels"
    """Stream of tasks; a published benchmark such as kumar/permuted-mnist, whose choices then are the defaults of the
    options below; or a stream of your own, path/to/file.py:name. `pliant list streams`, `pliant list benchmarks`."""
    scale: Scale | None = None
    """Size of a benchmark: smoke (a minute, digits in place of larger data), cpu, or paper; by default cpu."""
    settings: _Settings = ()  # type: ignore[assignment] # --set may be repeated, and take several
    """Any option of a method, of the stream or of the network, such as adamo.isometry_strength=0.03,
    random-labels.labels=iid or mlp.norm=layer. `pliant show NAME` explains them."""
    out: Path | None = None
    """Run folder; by default runs/STREAM-DATASET-ID or runs/BENCHMARK-SCALE-ID."""
    data_dir: str | None = None
    """Folder with parquet files of the data set; by default PLIANT_DATA, or else the Hugging Face hub."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the metrics of every task are also shown, beside the run folder; WANDB_MODE=offline needs no network."""


@dataclasses.dataclass(frozen=True)
class RunAgent(Command, AgentConfig):
    """Train an agent with several methods in a sequence of environments. The same command continues an interrupted run;
    with more methods, tasks or seeds it extends a finished one, and trains only what is new.
    """

    environment: Positional[str] = AgentConfig.environment
    """Environments; a published benchmark such as isometry/continual-minatar, whose choices then are the defaults of
    the options below; or environments of your own, path/to/file.py:name, together with --agent. `pliant list
    environments`, `pliant list benchmarks`."""
    scale: Scale | None = None
    """Size of a benchmark: smoke (a minute), cpu, or paper; by default cpu."""
    settings: _Settings = ()  # type: ignore[assignment] # --set may be repeated, and take several
    """Any option of a method, of the environments, of the agent or of the network, such as
    adamo.isometry_strength=0.03, minatar.games=breakout, ppo.clip=0.1 or mlp.norm=layer. `pliant show NAME` explains
    them."""
    out: Path | None = None
    """Run folder; by default runs/ENVIRONMENT-DATASET-ID or runs/BENCHMARK-SCALE-ID."""
    data_dir: str | None = None
    """Folder with parquet files of the data set, for environments that show images."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the metrics of every task are also shown, beside the run folder; WANDB_MODE=offline needs no network."""


def run_command(arguments: Sequence[str]) -> type[Run] | type[RunAgent]:
    """Whether the words after `pliant run` are about a stream or an agent: an agent is named, or environments are.

    Example:
      >>> run_command(["--seeds", "2", "probe"]).__name__, run_command(["--out", "probe"]).__name__
      ('RunAgent', 'Run')
    """
    environments = {*ENVIRONMENTS, *(name for name, each in BENCHMARKS.items() if is_of_agent(each))}
    for place, word in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        is_value = before.startswith("--") and before not in _FLAGS and "=" not in before
        if word.partition("=")[0] == "--agent" or (word in environments and not is_value):
            return RunAgent
    return Run


def is_of_agent(benchmark: Benchmark) -> bool:
    """Whether a benchmark is one of agents."""
    return isinstance(benchmark.configs["paper"], AgentConfig)


@contextmanager
def report_progress(num_tasks: int) -> Iterator[Callable[[training.Progress], None]]:
    """A bar on standard error where that is a terminal; a line a task on standard output unless both are terminals."""
    has_bar = is_terminal(sys.stderr)
    has_lines = not (has_bar and is_terminal(sys.stdout))
    progress = _bar()
    bar = progress.add_task("", total=1.0, method="", task="", score="")

    def report(now: training.Progress) -> None:
        score = f"{now.score_name.replace('_', ' ')} {now.score:.3g}"
        if has_bar:
            progress.start()  # the first report starts it: errors of the configuration come before
            progress.update(
                bar, completed=now.done, method=now.method, task=f"task {now.task}/{num_tasks}", score=score
            )
        if has_lines and now.task_done == 1.0:
            print_line(f"{now.method}: task {now.task} of {num_tasks}, {score}")

    try:
        yield report
    finally:
        if progress.live.is_started:
            progress.stop()


def _bar() -> Progress:
    console = new_console(stderr=True)
    method, score = (
        TextColumn(text, markup=False, table_column=Column(overflow="fold"))  # names are wrapped, not cut off
        for text in ("{task.fields[method]}", "{task.fields[task]}  {task.fields[score]}")
    )
    left = TextColumn("left"), TimeRemainingColumn()
    is_wide = console.width >= _WIDE
    columns = (method, BarColumn(), TaskProgressColumn(), score, *left) if is_wide else (method, score, *left)
    return Progress(*columns, console=console, transient=True, redirect_stdout=is_terminal(sys.stdout))
