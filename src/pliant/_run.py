"""One call that trains methods on any problem: names, files and objects."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pliant._asked import asked_for
from pliant.experiments import Scale
from pliant.problems import make_plan
from pliant.results import MakeTracker, RunFolder
from pliant.training import Progress, run_folder, train


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
    asked = asked_for(
        problem,
        methods=methods,
        stream=stream,
        environment=environment,
        network=network,
        dataset=dataset,
        diagnostics=diagnostics,
        scale=scale,
        **choices,
    )
    plan = make_plan(asked.config, data_dir, asked.objects)
    trackers = [track] if isinstance(track, str) or callable(track) else track
    return train(plan, run_folder(plan, out, asked.folder), report, trackers)
