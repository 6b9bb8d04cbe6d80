"""One call that trains methods on a stream of tasks, whoever wrote them."""

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
from pliant.supervised import RunConfig, make_plan, run_folder
from pliant.training import Progress, train
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
    mixture. The same call continues an interrupted run. Objects are recorded by the hash of their source, so a run is
    not continued with code that was edited; only what has a name or stands in a file can be found again by
    `pliant diagnose`.

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
    if stream is not None and problem is not None:
        raise UserError(
            got="a problem and a stream", wanted="one of them", do="Give the stream alone, as the first argument."
        )
    problem = stream if problem is None else problem
    known = {field.name for field in dataclasses.fields(RunConfig)} - set(_KINDS.values())
    for name in choices:
        if name not in known:
            raise unknown_name("choice", name, known, do="See pliant.supervised.RunConfig.")
    asked = {"method": _several(methods), "network": _several(network), "diagnostic": _several(diagnostics)}
    is_benchmark = isinstance(problem, str) and problem in PRESETS
    if scale is not None and not is_benchmark:
        raise UserError(got=f"scale={scale!r} without a benchmark", wanted="none", do="See `pliant list benchmarks`.")
    if isinstance(problem, Stream):
        choices = {"tasks": problem.num_tasks} | choices
    if problem is not None and not is_benchmark and not isinstance(problem, RunConfig):
        asked["stream"] = (problem,)
    named = {kind: _named(kind, specs) for kind, specs in asked.items() if specs}
    objects = Objects(**named)
    several = {_KINDS[kind]: tuple(names) for kind, names in named.items()}
    choices |= {field: names if field in ("methods", "diagnostics") else names[0] for field, names in several.items()}
    if is_benchmark:
        config = with_choices(PRESETS[problem], scale or "cpu", choices, objects)
    else:
        config = dataclasses.replace(problem if isinstance(problem, RunConfig) else RunConfig(), **choices)
    plan = make_plan(config, data_dir, objects)
    of_benchmark = f"{problem.replace('/', '-')}-{scale or 'cpu'}" if is_benchmark else None
    return train(plan, run_folder(plan, out, of_benchmark), report)


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
    if asked is None:
        return ()
    return tuple(asked) if type(asked) in (list, tuple) else (asked,)


def _named(kind: str, specs: Sequence[Any]) -> dict[str, Any]:
    """What a configuration calls each: its registered name, its own, or what was given as a text."""
    found: dict[str, Any] = {}
    for spec in specs:
        registered = (name for name, each in _REGISTRIES[kind].items() if each is spec)
        name = spec if isinstance(spec, str) else next(registered, name_of(spec))
        if name in found and found[name] is not spec:
            raise UserError(got=f"two {kind}s named {name!r}", wanted="every name once", do="Rename one of them.")
        found[name] = spec
    return found
