"""What a name stands for, as `pliant show` explains it."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docstring_parser
from rich.markup import escape
from rich.table import Table

from pliant import tuning
from pliant.cli._claims import claims_table
from pliant.cli._guide import WHEN, WHEN_BENCHMARK, WHEN_EXPERIMENT
from pliant.cli._tables import print_cells, print_frame, print_scores
from pliant.cli._terminal import print_line, print_paragraph, print_table
from pliant.diagnostics import DIAGNOSTICS, SETS
from pliant.experiments import (
    BENCHMARKS,
    EXPERIMENTS,
    RUNS,
    SCALES,
    NotMeasuredError,
    Scale,
    run_cells,
    stored_results,
    verdict_table,
)
from pliant.methods import METHODS, defaults, find, option_meanings, search_space, split_spec
from pliant.networks import NETWORKS
from pliant.rl import AGENTS, AgentConfig
from pliant.rl.environments import ENVIRONMENTS
from pliant.settings import description, meanings, options, plain_text
from pliant.streams import DATASETS, STREAMS, TRANSITIONS
from pliant.supervised import RunConfig
from pliant.types import Method

FLAGS = {"num_tasks": "tasks", "micro_steps": "micro_steps", "widths": "widths", "use_bias": "use_bias"}
"""Options of factories that are options of a run."""
COSTS = {
    "cheap": "measured after every task, in milliseconds",
    "spectral": "measured after every task, by decompositions on the host",
    "per-task": "measured after every task, in seconds",
    "rare": "measured after tasks 1, 2, 5, 10, 20, 50, … and the last, in minutes",
}


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


def explain_experiment(name: str, scale: Scale = "cpu", runs: Path = RUNS) -> None:
    """Prints the record of an experiment: the question, the runs, what the source shows, and what was measured here."""
    experiment = EXPERIMENTS[name]
    facts = (experiment.question, f"From: {experiment.reference}", f"Use it {WHEN_EXPERIMENT}")
    for text in (*facts, f"The source: {experiment.shows}"):
        print_paragraph(text)
    found = stored_results(experiment, scale, runs)
    print_cells(f"scale: {scale}", run_cells(experiment, found, scale))
    with suppress(NotMeasuredError):
        print_scores(found, experiment.scores, "measured")
    for table in experiment.tables:
        with suppress(NotMeasuredError):
            print_frame(table, experiment.table(table, found))
    print_table(claims_table(verdict_table([experiment], scale, runs)))
    print_line(f"Run it with `pliant reproduce {name} --scale {scale}`.")


KINDS: Mapping[str, tuple[Callable[[str], bool], Callable[[str], None]]] = {
    "experiment": (EXPERIMENTS.__contains__, explain_experiment),
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
"""For each kind of name: whether there is one, and what prints its explanation."""


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
