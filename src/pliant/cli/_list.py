"""`pliant list`: the names that a run knows."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from pliant.cli._terminal import print_line, print_table
from pliant.diagnostics import DIAGNOSTICS
from pliant.experiments import BENCHMARKS, EXPERIMENTS, SCALES, Benchmark, Experiment
from pliant.methods import METHODS, defaults
from pliant.networks import NETWORKS
from pliant.rl import AGENTS
from pliant.rl.environments import ENVIRONMENTS
from pliant.settings import description, meanings, options
from pliant.streams import DATASETS, STREAMS, TRANSITIONS

_Kind = Literal[
    "methods",
    "experiments",
    "benchmarks",
    "streams",
    "environments",
    "agents",
    "transitions",
    "datasets",
    "networks",
    "diagnostics",
]


@dataclasses.dataclass(frozen=True)
class List:
    """The options of `pliant list`."""

    kind: Positional[_Kind]
    """What to list."""
    plain: bool = False
    """Print names only, one a line."""

    def __call__(self) -> None:
        """Prints the list."""
        makers: dict[str, Callable[[], list[tuple[str, str, str]]]] = {
            "methods": lambda: [(m.name, m.summary, _pairs(defaults(m))) for m in METHODS.values()],
            "experiments": lambda: [(e.name, e.question, _counted(e)) for e in EXPERIMENTS.values()],
            "benchmarks": lambda: [(p.name, p.summary, _sizes(p)) for p in BENCHMARKS.values()],
            "streams": lambda: [_factory_row(name, make) for name, make in STREAMS.items()],
            "environments": lambda: [_factory_row(name, make) for name, make in ENVIRONMENTS.items()],
            "agents": lambda: [_factory_row(name, make) for name, make in AGENTS.items()],
            "transitions": lambda: [(name, *_suited(make)) for name, make in TRANSITIONS.items()],
            "datasets": lambda: [(name, d.summary, d.hub or "embedded") for name, d in DATASETS.items()],
            "networks": lambda: [_factory_row(name, make) for name, make in NETWORKS.items()],
            "diagnostics": lambda: [(d.name, d.summary, d.cost) for d in DIAGNOSTICS.values()],
        }
        rows = makers[self.kind]()
        if self.plain:
            print_line("\n".join(name for name, _, _ in rows))
            return
        last = {
            "experiments": "runs, claims",
            "benchmarks": "smoke, cpu, paper: seeds × tasks",
            "transitions": "for",
            "datasets": "source",
            "diagnostics": "cost",
        }.get(self.kind, "options (--set NAME.OPTION=VALUE)")
        table = Table("name", "what it is", last)
        for row in rows:
            table.add_row(*map(escape, row))
        print_table(table)


def _factory_row(name: str, factory: Callable[..., Any]) -> tuple[str, str, str]:
    own_flags = ("num_tasks", "widths", "use_bias")  # --tasks, --widths, --use-bias
    values = {key: option.default for key, option in options(factory).items() if key not in own_flags}
    return name, description(factory)[0], _pairs(values)


def _counted(experiment: Experiment) -> str:
    return f"{len(experiment.runs)}, {len(experiment.claims)}"


def _sizes(benchmark: Benchmark) -> str:
    return ", ".join(f"{benchmark.configs[scale].seeds} × {benchmark.configs[scale].tasks}" for scale in SCALES)


def _suited(transition: Callable[..., Any]) -> tuple[str, str]:
    """The first line of a transition's documentation, and the streams that it suits."""
    return description(transition)[0], meanings(transition).get("stream", "all streams")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
