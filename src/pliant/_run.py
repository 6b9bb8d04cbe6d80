"""One call that trains methods on any problem: names, files and objects."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError, unknown_name
from pliant.experiments import BENCHMARKS, Scale, with_choices
from pliant.methods import METHODS
from pliant.networks import NETWORKS
from pliant.problems import Config, kind_of, make_plan
from pliant.results import MakeTracker, RunFolder
from pliant.rl import AgentConfig
from pliant.rl.environments import ENVIRONMENTS, is_environment
from pliant.specs import Objects, name_of
from pliant.streams import DATASETS, STREAMS
from pliant.supervised import RunConfig
from pliant.training import Progress, run_folder, train
from pliant.types import EnvironmentStream, Stream


def run(
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
    out: str | Path | None = None,
    data_dir: str | None = None,
    track: str | MakeTracker | Sequence[str | MakeTracker] = (),
    report: Callable[[Progress], None] = lambda _: None,
    **choices: Any,
) -> RunFolder:
    """Trains methods on a stream of tasks, or an agent in environments, and returns the folder of results.

    This is `pliant run` for Python.

    Everything can be a name that `pliant list` prints, `path/to/file.py:name`, or an object of your own, in any
    mixture. The same call continues an interrupted run; with more methods, tasks or seeds it extends a finished one.
    Objects are recorded by the hash of their source, so a run is not continued with code that was edited. Only what has
    a name or stands in a file can be found again by `pliant diagnose`.

    Args:
      problem: a stream or environments as below, a published benchmark such as "kumar/permuted-mnist", a `RunConfig` or
        an `AgentConfig`.
      methods: a method or several: names, files and names, or `pliant.types.Method`.
      stream: a name, a file and a name, a function `(dataset, *, num_tasks, options) -> Stream`, without `dataset` if
        it makes its own data; or a `pliant.types.Stream`.
      environment: a name, a file and a name, a function `(*, num_tasks, options) -> EnvironmentStream`, a
        `pliant.types.EnvironmentStream` or `Environment`, or an environment of gymnax or Gymnasium.
      network: a name, a file and a name, a function `(input_shape, num_outputs, *, options) -> Network`, or a
        `pliant.types.Network`.
      dataset: a name, a path, a repository on the Hugging Face hub, or a file and a name, see
        `pliant.streams.load_dataset`; or a `pliant.streams.Dataset`, such as `from_arrays` makes.
      diagnostics: one or several: names, sets, files and names, or `pliant.types.Diagnostic`.
      scale: of a benchmark: "smoke", "cpu" or "paper"; by default "cpu".
      out: the run folder; by default runs/NAME-ID.
      data_dir: see `pliant.streams.load_dataset`.
      track: where the metrics of every task are also shown: "wandb", "tensorboard", or functions such as those in
        `pliant.results.TRACKERS`.
      report: called with the progress after every chunk of updates.
      **choices: any field of `pliant.supervised.RunConfig`, or of `pliant.rl.AgentConfig` for agents, such as
        `seeds=4`, `tasks=10` or `learning_rate=1e-4`.
        `settings` name an object by its `name` or `__name__`.

    Returns:
      The finished run folder: `folder.metrics` is a table with a row for every number.

    Raises:
      UserError: for unknown names and choices, numbers out of range, objects of the wrong kind, combinations that make
        no sense, and a folder that holds another run.

    Example:
      >>> import tempfile
      >>> import optax
      >>> from pliant.types import Method
      >>> def optimizer(wiring, *, learning_rate, momentum=0.9):
      ...     return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))
      >>> mine = Method("heavy-ball", "SGD with momentum", "Polyak 1964", optimizer)
      >>> with tempfile.TemporaryDirectory() as out:
      ...     folder = run("random-labels", methods=["adam", mine], seeds=1, tasks=1, epochs=1, widths=(16,), out=out)
      ...     sorted(set(folder.metrics["method"]))
      ['adam', 'heavy-ball']
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
    asked_for = next((each for each in (problem, stream, environment) if each is not None), None)
    benchmark = BENCHMARKS.get(asked_for) if isinstance(asked_for, str) else None
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
    if isinstance(asked_for, Stream | EnvironmentStream):
        choices = {"tasks": asked_for.num_tasks} | choices
    asked = {"method": methods, kind: None if benchmark else asked_for, "network": network}
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
    plan = make_plan(config, data_dir, objects)
    trackers = [track] if isinstance(track, str) or callable(track) else track
    return train(plan, run_folder(plan, out, folder), report, trackers)


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
