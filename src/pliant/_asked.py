"""What a call in Python asks for: names, files and objects become a configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError, unknown_name
from pliant.experiments import BENCHMARKS, Scale, with_choices
from pliant.methods import METHODS
from pliant.networks import NETWORKS
from pliant.problems import Config, kind_of
from pliant.rl import AgentConfig
from pliant.rl.environments import ENVIRONMENTS, is_environment
from pliant.specs import Objects, name_of
from pliant.streams import DATASETS, STREAMS
from pliant.supervised import RunConfig
from pliant.types import EnvironmentStream, Stream


class Asked(NamedTuple):
    """A configuration, what its names stand for, and what its folder is called."""

    config: Config
    objects: Objects
    folder: str | None
    """None for the name of the problem."""


def asked_for(
    problem: Any = None,
    /,
    *,
    methods: Any = None,
    stream: Any = None,
    environment: Any = None,
    network: Any = None,
    dataset: Any = None,
    diagnostics: Any = None,
    scale: Scale | None = None,
    **choices: Any,
) -> Asked:
    """Makes the configuration of a call; arguments as of `pliant.run`.

    Raises:
      UserError: for unknown choices, objects of the wrong kind, and several problems at once.
    """
    if isinstance(problem, RunConfig | AgentConfig):
        base: Config = problem
        problem = None
    else:
        base = _base(problem, stream, environment, choices)
    kind = kind_of(base)
    if [problem is not None, stream is not None, environment is not None].count(True) > 1:
        do = "Give one of them, as the first argument."
        raise UserError(got="several problems: a stream, environments", wanted="one of them", do=do)
    posed = next((each for each in (problem, stream, environment) if each is not None), None)
    benchmark = BENCHMARKS.get(posed) if isinstance(posed, str) else None
    if benchmark and base not in (RunConfig(), AgentConfig()):
        got = f"a configuration and the benchmark {benchmark.name!r}, which is another"
        raise UserError(got=got, wanted="one of them", do="Give what you change of the benchmark by name, as tasks=10.")
    if scale is not None and benchmark is None:
        raise UserError(got=f"scale={scale!r} without a benchmark", wanted="none", do="See `pliant list benchmarks`.")
    known = {field.name for field in dataclasses.fields(base)} - set(_KINDS.values())
    unknown = [choice for choice in choices if choice not in known]
    if unknown:
        raise unknown_name(
            "choice", unknown[0], known, do=f"See {type(base).__module__.rpartition('.')[0]}.{type(base).__name__}."
        )
    if isinstance(posed, Stream | EnvironmentStream):
        choices = {"tasks": posed.num_tasks} | choices
    asked = {"method": methods, kind: None if benchmark else posed, "network": network}
    asked |= {"dataset": dataset, "diagnostic": diagnostics}
    named = {name: _named(name, _several(each)) for name, each in asked.items() if each is not None}
    for name, names in named.items():
        choices[_KINDS[name]] = tuple(names) if name in ("method", "diagnostic") else next(iter(names), "")
    objects = Objects(**named)
    if benchmark is None:
        folder: str | None = None
        config = dataclasses.replace(base, **choices)
    else:
        size = scale or "cpu"
        folder = f"{benchmark.name.replace('/', '-')}-{size}"
        config = with_choices(benchmark, size, choices, objects)
    return Asked(config, objects, folder)


def _base(problem: Any, stream: Any, environment: Any, choices: Mapping[str, Any]) -> Config:
    """The configuration to begin with: of an agent, if environments or an agent are asked for."""
    if stream is not None:
        return RunConfig()
    if environment is not None or "agent" in choices:
        return AgentConfig()
    if isinstance(problem, str):
        benchmark = BENCHMARKS.get(problem)
        is_of_agent = kind_of(benchmark.configs["cpu"]) == "environment" if benchmark else problem in ENVIRONMENTS
        return AgentConfig() if is_of_agent else RunConfig()
    is_of_agent = is_environment(problem) or any(problem is each for each in ENVIRONMENTS.values())
    return AgentConfig() if is_of_agent else RunConfig()


_KINDS = {
    "method": "methods",
    "stream": "stream",
    "environment": "environment",
    "network": "network",
    "dataset": "dataset",
    "diagnostic": "diagnostics",
}
"""The fields of a configuration that name something."""
_REGISTRIES: Mapping[str, Mapping[str, Any]] = {
    "method": METHODS,
    "stream": STREAMS,
    "environment": ENVIRONMENTS,
    "network": NETWORKS,
    "dataset": DATASETS,
    "diagnostic": DIAGNOSTICS,
}


def _several(asked: Any) -> tuple[Any, ...]:
    """One or several: some objects, such as a `Method` or what `gymnax.make` returns, are tuples too."""
    return tuple(asked) if type(asked) in (list, tuple) and not is_environment(asked) else (asked,)


def _named(kind: str, specs: Sequence[Any]) -> dict[str, Any]:
    """What a configuration calls each: its registered name, its own, or what was given as a text."""
    found: dict[str, Any] = {}
    for spec in specs:
        registered = (name for name, each in _REGISTRIES[kind].items() if each is spec)
        name = spec if isinstance(spec, str) else next(registered, name_of(spec))
        other = found.get(name, spec)
        if other is not spec and not (isinstance(other, str) and isinstance(spec, str)):
            raise UserError(got=f"two {kind}s named {name!r}", wanted="every name once", do="Rename one of them.")
        found[name] = spec
    return found
