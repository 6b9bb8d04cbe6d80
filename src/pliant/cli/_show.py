"""`pliant show`: the table of a run, or an explanation of a name."""

import dataclasses
import difflib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import docstring_parser
import pandas as pd
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from pliant import tuning
from pliant.cli._claims import claims_table
from pliant.cli._guide import WHEN, WHEN_BENCHMARK, WHEN_EXPERIMENT
from pliant.cli._plot import require_finished
from pliant.cli._tables import Format, print_cells, print_frame, print_run, print_scores, print_tuning
from pliant.cli._terminal import print_error, print_line, print_paragraph, print_table
from pliant.diagnostics import DIAGNOSTICS, SETS
from pliant.errors import UserError, unknown_name
from pliant.experiments import (
    BENCHMARKS,
    EXPERIMENTS,
    RUNS,
    SCALES,
    Experiment,
    NotMeasuredError,
    Over,
    Results,
    Scale,
    Score,
    from_folder,
    run_cells,
    stored_results,
    verdict_table,
)
from pliant.methods import METHODS, defaults, find, option_meanings, search_space, split_spec
from pliant.networks import NETWORKS
from pliant.results import RunFolder
from pliant.rl import AGENTS, AgentConfig
from pliant.rl.environments import ENVIRONMENTS
from pliant.settings import description, meanings, options, plain_text
from pliant.streams import DATASETS, STREAMS, TRANSITIONS
from pliant.supervised import RunConfig
from pliant.tuning import TuningFolder
from pliant.types import Method

FLAGS = {"num_tasks": "tasks", "micro_steps": "micro_steps", "widths": "widths", "use_bias": "use_bias"}
"""Options of factories that are options of a run."""
COSTS = {
    "cheap": "measured after every task, in milliseconds",
    "spectral": "measured after every task, by decompositions on the host",
    "per-task": "measured after every task, in seconds",
    "rare": "measured after tasks 1, 2, 5, 10, 20, 50, … and the last, in minutes",
}


@dataclasses.dataclass(frozen=True)
class Show:
    """The options of `pliant show`."""

    what: Positional[str]
    """Run folder, or any name that `pliant list` prints."""
    format: Format = "table"
    """Format of the table of a run, a tuning or an experiment. All but "table" include the interquartile mean of a run
    with its 95 % interval; csv has all digits."""
    metric: tuple[str, ...] = ()
    """Metrics of a run or an experiment that its table shows, such as dormant_fraction; by default the headline, and of
    an experiment what its figure shows."""
    over: Over = "last"
    """Tasks that the metrics are averaged over: "last", "early", "first" or "mean" for all of them; "fall" is early
    minus last, "rise" last minus early."""
    table: str | None = None
    """Another table of an experiment, such as the correlations of lyle/falsification: one of those that `pliant show`
    prints below the scores."""
    baseline: str | None = None
    """Method of the run with which its others are compared: differences of paired seeds and the probability of being
    better, each with its 95 % interval."""
    profile: bool = False
    """Adds the performance profile: the share of scores in the last five tasks above round numbers, with its 95 %
    interval. In csv it stands alone."""

    scale: Scale = "cpu"
    """Of an experiment's results: smoke, cpu or paper."""
    runs: Path = RUNS
    """Folder with an experiment's runs. Where a run is missing, the results that come with pliant are read."""

    def __call__(self) -> None:
        """Prints the table or the explanation."""
        found = [(kind, explain) for kind, (has, explain) in _KINDS.items() if has(self.what)]
        if found:
            self._show_name(found)
        elif not os.path.exists(os.path.expanduser(self.what)):
            near = difflib.get_close_matches(
                self.what, [*BENCHMARKS, *(name for kind in WHEN.values() for name in kind)]
            )
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise UserError(
                got=f"{self.what!r}, which is neither a folder nor a name",
                wanted="a run folder, or a name that `pliant list` prints",
                do=hint + "See `pliant list methods` and its like.",
            )
        elif tuning.is_tuned(self.what):
            self._show_tuning()
        else:
            self._show_run(RunFolder(self.what))

    @property
    def _of_run(self) -> list[str]:
        """The options given that only run folders have."""
        return [f"--baseline {self.baseline}"] * (self.baseline is not None) + ["--profile"] * self.profile

    @property
    def _of_scores(self) -> list[str]:
        """The options given that choose what a table shows."""
        metric = [f"--metric {' '.join(self.metric)}"] * bool(self.metric)
        return metric + [f"--over {self.over}"] * (self.over != "last")

    @property
    def _named(self) -> list[str]:
        """The option that names a table, if given."""
        return [f"--table {self.table}"] * (self.table is not None)

    @property
    def _of_table(self) -> list[str]:
        """The options given that ask for a table alone."""
        return [f"--format {self.format}"] * (self.format != "table") + self._of_scores + self._named

    @property
    def _of_experiment(self) -> list[str]:
        """The options given that only experiments have."""
        runs = [f"--runs {self.runs}"] * (self.runs != RUNS)
        return [f"--scale {self.scale}"] * (self.scale != "cpu") + runs + self._named

    def _refuse(self, given: Sequence[str], what: str, wanted: str) -> None:
        """Refuses the first of options that do not go with what is shown."""
        for option in given:
            raise UserError(got=f"{option} for {what}", wanted=wanted, do=f"Leave {option.split()[0]} out.")

    def _scores(self, usual: Sequence[Score]) -> list[Score]:
        metrics = self.metric or [score.metric for score in usual]
        return [usual[0]._replace(metric=metric, over=self.over) for metric in metrics]

    def _make_table(self, name: str, experiment: Experiment) -> Callable[[Mapping[str, Results]], pd.DataFrame]:
        self._refuse(self._of_scores, f"the table {name!r}", "one of them")
        if not experiment.tables:
            having = [each.name for each in EXPERIMENTS.values() if each.tables]
            self._refuse(self._named, self.what, f"an experiment with further tables: {' or '.join(having)}")
        if name not in experiment.tables:
            raise unknown_name(f"table of {self.what}", name, experiment.tables, do="Choose one of these.")
        return experiment.tables[name]

    def _show_name(self, found: Sequence[tuple[str, Callable[[str], None]]]) -> None:
        what = f"the {found[0][0]} {self.what!r}"
        self._refuse(self._of_run, what, "a run folder")
        if self.what in EXPERIMENTS:
            experiment = EXPERIMENTS[self.what]
            if self._of_table:
                results = stored_results(experiment, self.scale, self.runs)
                if self.table is None:
                    print_scores(results, self._scores(experiment.scores), self.what, self.format)
                else:
                    make = self._make_table(self.table, experiment)
                    for label, own in results.items():
                        if own.lacks:
                            print_error(f"without {label}: {own.lacks}")
                    print_frame(self.table, make(_whole(results)), self.format)
                return
        else:
            self._refuse(self._of_table, what, "a run folder or an experiment, which have a table")
            self._refuse(self._of_experiment, what, "an experiment")
        for place, (kind, explain) in enumerate(found):  # a method and a diagnostic may share a name
            print_line(("\n" if place else "") + f"{kind} {self.what}")
            if kind == "experiment":
                _explain_experiment(self.what, self.scale, self.runs)
            else:
                explain(self.what)

    def _show_tuning(self) -> None:
        self._refuse(self._of_experiment, "a tuning", "an experiment")
        selected = shlex.quote(os.path.join(self.what, "selected"))
        if given := " ".join(self._of_run or self._of_scores):
            raise UserError(
                got=f"{given} for a tuning",
                wanted="a run folder",
                do=f"Look at what was selected: `pliant show {selected} {given}`.",
            )
        print_tuning(TuningFolder(self.what), self.format)

    def _show_run(self, folder: RunFolder) -> None:
        self._refuse(self._of_experiment, "a run folder", "an experiment")
        if not self._of_scores:
            print_run(folder, self.format, self.baseline, profile=self.profile)
            return
        self._refuse(self._of_run, f"other metrics ({self._of_scores[0]})", "one of them")
        require_finished(folder)
        of_run = from_folder(folder, int(folder.select(folder.headline)["task"].max()))
        print_scores({folder.title: of_run}, self._scores([Score("")]), folder.title, self.format)


def _is_method(name: str) -> bool:
    return all(part in METHODS or ".py:" in part for part in split_spec(name))


def _explain_method(name: str) -> None:
    method, members = find(name), [find(part) for part in split_spec(name)]
    print_paragraph(method.summary)
    print_paragraph(f"From: {method.reference}")
    for member in members:
        if member.name in WHEN["method"]:
            _print_when("method", member.name, of=member.name if len(members) > 1 else "it")
    for what, how in method_facts(method).items():
        print_line(f"{what}: {how}")
    space = {option: tuning.range_text(of) for option, of in search_space(method).items()}
    _print_options(
        defaults(method), option_meanings(method), f"--set {name}.OPTION=VALUE", f"--set {name}.", space=space
    )


def method_facts(method: Method) -> dict[str, str]:
    """What a method does besides its options: changes to the network, and what switches it off.

    Example:
      >>> method_facts(METHODS["adamo-maxmin"])
      {'changes the network': 'activation=maxmin', 'is adam with': 'isometry_strength=0.0'}
    """
    facts = {
        "changes the network": _pairs(dict(method.network)),
        "replaces": ", ".join(f"{network} by {other}" for network, other in method.replaces.items()),
        "is told when the task changes": "yes" if method.boundary_aware else "",
        f"is {method.base} with": _pairs(dict(method.off)),
    }
    return {what: how for what, how in facts.items() if how}


def _explain_factory(kind: str, factories: Mapping[str, Callable[..., Any]]) -> Callable[[str], None]:
    def explain(name: str) -> None:
        factory = factories[name]
        for text in description(factory):
            print_paragraph(text)
        _print_when(kind, name)
        values = {key: option.default for key, option in options(factory).items()}
        config = AgentConfig if kind in ("environment", "agent") else RunConfig
        _print_options(values, meanings(factory), f"--set {name}.OPTION=VALUE", f"--set {name}.", config)

    return explain


def _explain_dataset(name: str) -> None:
    origin = DATASETS[name]
    print_paragraph(origin.summary)
    print_paragraph(f"From: {origin.hub or 'scikit-learn, embedded'}")
    _print_when("dataset", name)
    _print_run_options("train_size", "test_size", "standardize", "augment")


def _explain_diagnostic(name: str) -> None:
    diagnostic = DIAGNOSTICS[name]
    print_paragraph(diagnostic.summary)
    for text in description(diagnostic.measure or diagnostic.follow):
        print_paragraph(text)
    _print_when("diagnostic", name)
    print_paragraph(f"Cost: {COSTS[diagnostic.cost]}.")
    inside = [each for each, names in SETS.items() if name in names]
    print_paragraph(f"In runs: --diagnostics {name}; part of {', '.join(inside)}.")
    if diagnostic.make:
        values = {key: option.default for key, option in options(diagnostic.make).items()}
        _print_options(
            values, meanings(diagnostic.make), f"--diagnostics {name}:OPTION=VALUE", f"--diagnostics {name}:"
        )
    _print_run_options("diagnostics", "diagnose_after", "probe_size", "checkpoints")


def _explain_set(name: str) -> None:
    print_paragraph(", ".join(SETS[name]))
    _print_when("set of diagnostics", name)


def _explain_benchmark(name: str) -> None:
    benchmark = BENCHMARKS[name]
    for text in (
        benchmark.summary,
        f"From: {benchmark.reference}",
        f"Use it {WHEN_BENCHMARK}",
        *benchmark.notes.split("\n\n"),
    ):
        print_paragraph(text)
    table = Table("choice", *SCALES, "meaning")
    kind = type(benchmark.configs["paper"])
    known = field_meanings(kind)
    for field in dataclasses.fields(kind):
        values = [getattr(benchmark.configs[scale], field.name) for scale in SCALES]
        if any(value != field.default for value in values):
            table.add_row(*map(escape, (field.name, *map(spelled, values), known[field.name])))
    print_table(table)


def _whole(results: Mapping[str, Results]) -> dict[str, Results]:
    """The runs that lack nothing: only these can be compared with each other."""
    return {label: own for label, own in results.items() if not own.lacks}


def _explain_experiment(name: str, scale: Scale = "cpu", runs: Path = RUNS) -> None:
    """Prints the record of an experiment: the question, the runs, what the source shows, and what was measured here."""
    experiment = EXPERIMENTS[name]
    facts = (experiment.question, f"From: {experiment.reference}", f"Use it {WHEN_EXPERIMENT}")
    for text in (*facts, f"The source: {experiment.shows}"):
        print_paragraph(text)
    found = stored_results(experiment, scale, runs)
    print_cells(f"scale: {scale}", run_cells(experiment, found, scale))
    with suppress(NotMeasuredError):
        print_scores(found, experiment.scores, "measured")
    for title, make in experiment.tables.items():
        with suppress(NotMeasuredError):
            print_frame(title, make(_whole(found)))
    print_table(claims_table(verdict_table([experiment], scale, runs)))
    print_line(f"Run it with `pliant reproduce {name} --scale {scale}`.")


_KINDS: Mapping[str, tuple[Callable[[str], bool], Callable[[str], None]]] = {
    "experiment": (EXPERIMENTS.__contains__, _explain_experiment),
    "benchmark": (BENCHMARKS.__contains__, _explain_benchmark),
    "method": (_is_method, _explain_method),
    "stream": (STREAMS.__contains__, _explain_factory("stream", STREAMS)),
    "environment": (ENVIRONMENTS.__contains__, _explain_factory("environment", ENVIRONMENTS)),
    "agent": (AGENTS.__contains__, _explain_factory("agent", AGENTS)),
    "transition": (TRANSITIONS.__contains__, _explain_factory("transition", TRANSITIONS)),
    "dataset": (DATASETS.__contains__, _explain_dataset),
    "network": (NETWORKS.__contains__, _explain_factory("network", NETWORKS)),
    "diagnostic": (DIAGNOSTICS.__contains__, _explain_diagnostic),
    "set of diagnostics": (SETS.__contains__, _explain_set),
}


def _print_when(kind: str, name: str, of: str = "it") -> None:
    print_paragraph(f"Use {of} {WHEN[kind][name]}")


def _print_options(
    values: Mapping[str, Any],
    known: Mapping[str, str],
    how: str,
    before: str,
    config: type[RunConfig | AgentConfig] = RunConfig,
    space: Mapping[str, str] | None = None,
) -> None:
    """Prints a table of options; those that are flags of a run go by the flag.

    Args:
      values: defaults by name.
      known: meanings by name.
      how: how an option is set.
      before: what stands before the name of an option there.
      config: what has the flags.
      space: what options are tuned over, of a method.
    """
    if not values:
        return
    table = Table("option", "default", *(["tuned over"] if space is not None else []), "meaning")
    for key, value in values.items():
        if key in FLAGS:
            _add_run_option(table, FLAGS[key], config)
        else:
            over = [space.get(key, "")] if space is not None else []
            table.add_row(*map(escape, (key, spelled(value, ","), *over, known.get(key, ""))))
    print_table(table)
    settable = [key for key in values if key not in FLAGS]
    if settable:
        print_line(f"Set with {how}, such as {before}{settable[0]}={spelled(values[settable[0]], ',')}")


def _print_run_options(*names: str) -> None:
    """Prints the options of `pliant run` that concern what is explained."""
    table = Table("option", "default", "meaning")
    for name in names:
        _add_run_option(table, name)
    print_table(table)


def _add_run_option(table: Table, name: str, config: type[RunConfig | AgentConfig] = RunConfig) -> None:
    default = spelled(getattr(config, name))
    table.add_row(*map(escape, (f"--{name.replace('_', '-')}", default, field_meanings(config)[name])))


def spelled(value: Any, between: str = " ") -> str:
    """A value as it is written on the command line."""
    return between.join(map(str, value)) if isinstance(value, tuple) else str(value)


def field_meanings(kind: type) -> dict[str, str]:
    """The texts below the fields of a dataclass and of those that it extends."""
    parsed = [docstring_parser.parse_from_object(each) for each in reversed(kind.__mro__) if each is not object]
    return {each.arg_name: plain_text(each.description or "") for one in parsed for each in one.params}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
