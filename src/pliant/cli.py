"""The command line: parse, call, print."""

import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from tyro.conf import Positional, UseAppendAction, arg

import pliant
from pliant import _xla, results, training
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError, unknown_name
from pliant.methods import METHODS, defaults, find
from pliant.networks import NETWORKS
from pliant.presets import PRESETS, SCALES, Preset, Scale
from pliant.results import RunFolder
from pliant.settings import options
from pliant.streams import DATASETS, STREAMS, TRANSITIONS
from pliant.training import RunConfig
from pliant.types import Method

USER_ERROR = 2
_ALL = ("all",)
_WIDTH_OF_FILES = 120

_Settings = Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(name="set", metavar="NAME.OPTION=VALUE")]


@dataclasses.dataclass(frozen=True)
class Run(RunConfig):
    """Train methods on a stream of tasks. The same command continues an interrupted run."""

    stream: Positional[str] = "random-labels"
    """Stream of tasks, or a published benchmark such as kumar/permuted-mnist, whose choices then are the defaults of
    the options below. `pliant list streams`, `pliant list benchmarks`."""
    scale: Scale | None = None
    """Size of a benchmark: smoke (a minute, digits in place of larger data), cpu, or paper; by default cpu."""
    settings: _Settings = ()  # type: ignore[assignment] # --set may be repeated, and take several
    """Any option of a method, of the stream or of the network, such as adamo.isometry_strength=0.03,
    random-labels.labels=iid or mlp.norm=layer. `pliant list` shows them."""
    out: Path | None = None
    """Run folder; by default runs/STREAM-DATASET-ID or runs/BENCHMARK-SCALE-ID."""
    data_dir: str | None = None
    """Folder with parquet files of the data set; by default PLIANT_DATA, or else the Hugging Face hub."""

    def __call__(self) -> None:
        """Trains, then prints the table and where the figure is."""
        config = self._config()
        _xla.use_every_core()
        if self.methods == _ALL:
            config, left_out = training.fitting(config, self.data_dir)
            for name, reason in left_out.items():
                Console(highlight=False).print(f"without {name}: {reason}", markup=False, soft_wrap=True)
        _xla.cache_compilations()
        progress = _progress()
        bar = progress.add_task("", total=1.0, method="", task="", score="")

        def report(now: training.Progress) -> None:
            if progress.console.is_terminal:  # the first report starts it: errors of the configuration come before
                progress.start()
            progress.update(
                bar,
                completed=now.done,
                method=now.method,
                task=f"task {now.task}/{config.tasks}",
                score=f"{now.score_name.replace('_', ' ')} {now.score:.3g}",
            )

        try:
            folder = training.run(config, self.out, name=self._name(), data_dir=self.data_dir, report=report)
        finally:
            if progress.live.is_started:
                progress.stop()
        _print_table(folder)
        _print_figure([folder])

    def with_defaults_of_benchmark(self) -> "Run":
        """What the command line starts from, now that it is known which benchmark it names."""
        if self.stream not in PRESETS:
            if self.scale is not None or "/" in self.stream:
                raise unknown_name("benchmark", self.stream, PRESETS, do="Streams have no slash and no --scale.")
            return Run()
        scale = self.scale or "cpu"
        choices = vars(PRESETS[self.stream].configs[scale]) | {"stream": self.stream, "settings": ()}
        return Run(**choices, scale=scale)

    def _config(self) -> RunConfig:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(RunConfig)}
        fields |= {"settings": tuple(itertools.chain(*self.settings))}
        config = RunConfig(**fields | ({"methods": tuple(METHODS)} if self.methods == _ALL else {}))
        if self.scale is None:
            return config
        preset = PRESETS[self.stream].configs[self.scale]
        config = dataclasses.replace(config, stream=preset.stream)
        return dataclasses.replace(
            config, settings=(*training.settings_in_use(preset.settings, config), *config.settings)
        )

    def _name(self) -> str | None:
        return None if self.scale is None else f"{self.stream.replace('/', '-')}-{self.scale}"


@dataclasses.dataclass(frozen=True)
class List:
    """List what can be named in a run, with what can be set."""

    kind: Positional[Literal["methods", "benchmarks", "streams", "transitions", "datasets", "networks", "diagnostics"]]
    """What to list."""
    plain: bool = False
    """One name a line, nothing else."""

    def __call__(self) -> None:
        """Prints the list."""
        makers: dict[str, Callable[[], list[tuple[str, str, str]]]] = {
            "methods": lambda: [(m.name, m.summary, _pairs(defaults(m))) for m in METHODS.values()],
            "benchmarks": lambda: [(p.name, p.summary, _sizes(p)) for p in PRESETS.values()],
            "streams": lambda: [_factory_row(name, make) for name, make in STREAMS.items()],
            "transitions": lambda: [(name, *_wants(make)) for name, make in TRANSITIONS.items()],
            "datasets": lambda: [(name, d.summary, d.hub or "embedded") for name, d in DATASETS.items()],
            "networks": lambda: [_factory_row(name, make) for name, make in NETWORKS.items()],
            "diagnostics": lambda: [(d.name, d.summary, d.cost) for d in DIAGNOSTICS.values()],
        }
        rows = makers[self.kind]()
        if self.plain:
            print("\n".join(name for name, _, _ in rows))
            return
        last = {
            "benchmarks": "smoke, cpu, paper: seeds × tasks",
            "transitions": "for",
            "datasets": "source",
            "diagnostics": "cost",
        }.get(self.kind, "options (--set NAME.OPTION=VALUE)")
        table = Table("name", "what it is", last)
        for row in rows:
            table.add_row(*row)
        Console().print(table)


@dataclasses.dataclass(frozen=True)
class Show:
    """Print the table of a run again, all choices of a published benchmark, or where a method comes from."""

    what: Positional[str]
    """Run folder, or the name of a benchmark or of a method."""

    def __call__(self) -> None:
        """Prints the table."""
        if self.what in PRESETS:
            _print_benchmark(PRESETS[self.what])
        elif set(self.what.split("+")) <= set(METHODS):
            _print_method(find(self.what))
        else:
            _print_table(RunFolder(Path(self.what)))


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the figure of a run again, or of several runs in one; or a picture of what its diagnostics found."""

    dirs: Positional[tuple[Path, ...]]
    """Run folders. Several must have the same headline metric; their lines are named by folder and method."""
    out: Path | None = None
    """File without suffix; by default in the (first) run folder. With --picture, -METHOD is added to it."""
    picture: str | None = None
    """In place of the figure, of one run: spectra, jacobian, ntk, hessian, gradient-cosine, probes or dormant."""
    method: str | None = None
    """Method of the picture; by default every one of the run, a file each."""

    def __call__(self) -> None:
        """Draws the figure or the pictures and prints where they are."""
        if not self.dirs:
            raise UserError(got="no run folder", wanted="at least one", do="Give what `pliant run` printed.")
        if self.picture is not None:
            _print_pictures(self.dirs, self.picture, self.method, self.out)
        elif self.method is not None:
            raise UserError(
                got=f"--method {self.method} without --picture", wanted="both or neither", do="The figure has them all."
            )
        else:
            _print_figure([RunFolder(path) for path in self.dirs], self.out)


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Measure the networks of a run from its checkpoints, and print what was found."""

    dir: Positional[Path]
    """Run folder."""
    task: int | None = None
    """Task, counted from 1, at whose end to look; by default the last with a checkpoint. Runs with --checkpoints all
    keep one of every task."""
    diagnostics: tuple[str, ...] = ("full",)
    """What to measure: basic, standard, full, or names; see `pliant list diagnostics`."""
    methods: tuple[str, ...] = ()
    """Methods of the run; by default all."""
    data_dir: str | None = None
    """See `pliant run --help`."""

    def __call__(self) -> None:
        """Prints a table for each method; spectra and matrices go to the run's arrays/."""
        _xla.use_every_core()
        _xla.cache_compilations()
        found = training.diagnose_run(self.dir, self.task, self.diagnostics, self.methods, self.data_dir)
        summaries = {each.name: each.summary for each in DIAGNOSTICS.values()}
        console = _console()
        for each in found:
            title = f"{each.label}, end of task {each.task}, mean over seeds"
            console.print(results.diagnosis_table(title, each.numbers, summaries, each.reasons))


_COMMANDS: dict[str, Callable[..., Any]] = {"run": Run, "list": List, "show": Show, "plot": Plot, "diagnose": Diagnose}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 2 user error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"pliant {pliant.__version__}")
        return 0
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="pliant",
        args=arguments,
        description="Neural networks that keep learning: methods, streams of tasks and diagnostics of plasticity.",
    )
    errors = Console(stderr=True, highlight=False)
    try:
        if isinstance(command, Run):  # read again: a benchmark brings its own defaults
            defaults_now = command.with_defaults_of_benchmark()
            command = tyro.cli(Run, prog="pliant run", args=arguments[1:], default=defaults_now)
        command()
    except UserError as error:
        errors.print(f"pliant: {error}", markup=False, soft_wrap=True)
        return USER_ERROR
    except BrokenPipeError:  # no file of the user's
        raise
    except OSError as error:
        errors.print(
            f"pliant: got {type(error).__name__}: {error}; wanted files that can be read and written. "
            "Check permissions and free space.",
            markup=False,
            soft_wrap=True,
        )
        return USER_ERROR
    return 0


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.fields[method]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[task]}  {task.fields[score]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _console() -> Console:
    console = Console()
    if not console.is_terminal:  # rich takes a file for 80 columns wide, and breaks the names of methods
        console.width = _WIDTH_OF_FILES
    return console


def _print_table(folder: RunFolder) -> None:
    summary = results.summarize_run(_finished(folder), folder.headline)
    _console().print(results.summary_table(summary, folder.seconds, folder.headline, folder.title))


def _print_benchmark(preset: Preset) -> None:
    console = Console(highlight=False)
    for text in (f"{preset.name}: {preset.summary}", f"{preset.reference}\n", f"{preset.notes}\n"):
        console.print(text, markup=False)
    table = Table("choice")
    for scale in SCALES:
        table.add_column(scale, overflow="fold")
    for field in dataclasses.fields(RunConfig):
        values = [getattr(preset.configs[scale], field.name) for scale in SCALES]
        if any(value != field.default for value in values):
            table.add_row(field.name, *(" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values))
    console.print(table)


def _print_method(method: Method) -> None:
    console = Console(highlight=False)
    for text in (f"{method.name}: {method.summary}", method.reference):
        console.print(text, markup=False)
    facts = {
        "network": _pairs(dict(method.network)),
        "replaces": ", ".join(f"{network} by {other}" for network, other in method.replaces.items()),
        "is told when the task changes": "yes" if method.boundary_aware else "",
        f"is {method.base} with": _pairs(dict(method.off)),
    }
    table = Table("choice", "value")
    for name, value in (defaults(method) | {name: fact for name, fact in facts.items() if fact}).items():
        table.add_row(name, str(value))
    console.print(table)


def _print_figure(folders: Sequence[RunFolder], out: Path | None = None) -> None:
    first = folders[0]
    if len({folder.headline for folder in folders}) > 1:
        got = ", ".join(f"{folder.path}: {folder.headline}" for folder in folders)
        raise UserError(got=got, wanted="runs with one headline metric", do="Draw the others apart.")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise UserError(got="a run folder twice", wanted="each once", do="Leave the second out.")
    tables = [_finished(folder) for folder in folders]
    title = first.title
    if len(folders) > 1:
        title = first.headline.replace("_", " ")
        tables = [
            table.assign(method=f"{folder.path}: " + table["method"])
            for folder, table in zip(folders, tables, strict=True)
        ]
    figure = results.headline_figure(pd.concat(tables), first.headline, title, first.chance)
    png, _ = results.save_figure(figure, out or first.path / first.headline)
    Console().print(f"figure: {png} (and .pdf)", soft_wrap=True, highlight=False, markup=False)


def _print_pictures(dirs: Sequence[Path], picture: str, method: str | None, out: Path | None) -> None:
    """Draws a picture of every method asked for that has what it shows; an error if none has."""
    if picture not in results.PICTURES:
        raise unknown_name("picture", picture, results.PICTURES, do="Leave --picture out for the figure of the run.")
    if len(dirs) > 1:
        raise UserError(got=f"{len(dirs)} run folders", wanted="one for a picture", do="Draw each apart.")
    folder = RunFolder(dirs[0])
    labels = [str(label) for label in _finished(folder)["method"].unique()]
    chosen = [label for label in labels if method in (None, label, label.partition("[")[0])]
    if not chosen:
        raise unknown_name("method", str(method), labels, do=f"Give one of {folder.path}.")
    start = out or folder.path / picture
    lines, errors = [], []
    for label in chosen:
        try:
            figure = results.draw_picture(folder, picture, label)
        except UserError as error:
            errors.append(error)
            lines.append(f"without {label}: {error}")
        else:
            png, _ = results.save_figure(figure, start.with_name(f"{start.name}-{label}"))
            lines.append(f"picture: {png} (and .pdf)")
    if len(errors) == len(chosen):
        raise errors[0]
    Console(soft_wrap=True, highlight=False).print("\n".join(lines), markup=False)


def _finished(folder: RunFolder) -> Any:
    if folder.metrics.empty:
        raise UserError(
            got=f"{folder.path}, in which no task is finished",
            wanted="at least one finished task",
            do="Start the run again with the same command.",
        )
    return folder.metrics


def _factory_row(name: str, factory: Callable[..., Any]) -> tuple[str, str, str]:
    first_line = (inspect.getdoc(factory) or "").splitlines()[0]
    own_flags = ("num_tasks", "widths", "use_bias")  # --tasks, --widths, --use-bias
    values = {key: option.default for key, option in options(factory).items() if key not in own_flags}
    return name, first_line, _pairs(values)


def _sizes(preset: Preset) -> str:
    return ", ".join(f"{preset.configs[scale].seeds} × {preset.configs[scale].tasks}" for scale in SCALES)


def _wants(transition: Callable[..., Any]) -> tuple[str, str]:
    """First line of a transition's documentation, and what it says of the stream."""
    text = inspect.getdoc(transition) or ""
    stream = re.search(r"stream: (.*)\.", text)
    return text.splitlines()[0], stream.group(1) if stream else "all streams"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
