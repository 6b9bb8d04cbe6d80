"""One call that trains methods on a stream of tasks: names, files and objects."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError, unknown_name
from pliant.methods import METHODS
from pliant.networks import NETWORKS
from pliant.presets import PRESETS, Scale, with_choices
from pliant.results import RunFolder
from pliant.specs import Objects, name_of
from pliant.streams import STREAMS
from pliant.supervised import RunConfig, make_plan
from pliant.training import Progress, run_folder, train
from pliant.types import Stream


def run(
    problem: Any = None,
    /,
    *,
    methods: Any = None,
    stream: Any = None,
    network: Any = None,
    diagnostics: Any = None,
    scale: Scale | None = None,
    out: str | Path | None = None,
    data_dir: str | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    **choices: Any,
) -> RunFolder:
    """Trains methods on a stream of tasks and returns the folder of results: `pliant run` for Python.

    Everything can be a name that `pliant list` prints, `path/to/file.py:name`, or an object of your own, in any
    mixture. The same call continues an interrupted run; with more methods, tasks or seeds it extends a finished one.
    Objects are recorded by the hash of their source, so a run is not continued with code that was edited. Only what has
    a name or stands in a file can be found again by `pliant diagnose`.

    Args:
      problem: a stream as below, a published benchmark such as "kumar/permuted-mnist", or a `RunConfig`.
      methods: a method or several: names, files and names, or `pliant.types.Method`.
      stream: a name, a file and a name, a function `(dataset, *, num_tasks, options) -> Stream`, without `dataset` if
        it makes its own data; or a `pliant.types.Stream`.
      network: a name, a file and a name, a function `(input_shape, num_outputs, *, options) -> Network`, or a
        `pliant.types.Network`.
      diagnostics: one or several: names, sets, files and names, or `pliant.types.Diagnostic`.
      scale: of a benchmark: "smoke", "cpu" or "paper"; by default "cpu".
      out: the run folder; by default runs/NAME-ID.
      data_dir: see `pliant.streams.load_dataset`.
      report: called with the progress after every chunk of updates.
      **choices: any field of `pliant.supervised.RunConfig`, such as `seeds=4`, `tasks=10` or `learning_rate=1e-4`.
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
    base = problem if isinstance(problem, RunConfig) else RunConfig()
    if not isinstance(problem, RunConfig | None):
        if stream is not None:
            do = "Give the stream alone, as the first argument."
            raise UserError(got="a problem and a stream", wanted="one of them", do=do)
        stream = problem
    benchmark = PRESETS.get(stream) if isinstance(stream, str) else None
    if benchmark and isinstance(problem, RunConfig):
        got = f"a configuration and the benchmark {benchmark.name!r}, which is another"
        raise UserError(got=got, wanted="one of them", do="Give what you change of the benchmark by name, as tasks=10.")
    if scale is not None and benchmark is None:
        raise UserError(got=f"scale={scale!r} without a benchmark", wanted="none", do="See `pliant list benchmarks`.")
    known = {field.name for field in dataclasses.fields(RunConfig)} - set(_KINDS.values())
    unknown = [choice for choice in choices if choice not in known]
    if unknown:
        raise unknown_name("choice", unknown[0], known, do="See pliant.supervised.RunConfig.")
    if isinstance(stream, Stream):
        choices = {"tasks": stream.num_tasks} | choices
    asked = {"method": methods, "stream": None if benchmark else stream, "network": network, "diagnostic": diagnostics}
    named = {kind: _named(kind, _several(each)) for kind, each in asked.items() if each is not None}
    for kind, names in named.items():
        choices[_KINDS[kind]] = tuple(names) if kind in ("method", "diagnostic") else next(iter(names), "")
    objects = Objects(**named)
    if benchmark is None:
        name: str | None = None
        config = dataclasses.replace(base, **choices)
    else:
        size = scale or "cpu"
        name = f"{benchmark.name.replace('/', '-')}-{size}"
        config = with_choices(benchmark, size, choices, objects)
    plan = make_plan(config, data_dir, objects)
    return train(plan, run_folder(plan, out, name), report)


_KINDS = {"method": "methods", "stream": "stream", "network": "network", "diagnostic": "diagnostics"}
"""The fields of a configuration that name something."""
_REGISTRIES: Mapping[str, Mapping[str, Any]] = {
    "method": METHODS,
    "stream": STREAMS,
    "network": NETWORKS,
    "diagnostic": DIAGNOSTICS,
}


def _several(asked: Any) -> tuple[Any, ...]:
    """One or several: some objects, such as a `Method`, are tuples too."""
    return tuple(asked) if type(asked) in (list, tuple) else (asked,)


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
