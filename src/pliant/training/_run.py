"""A run: every method learns the stream, task by task; the host has control between chunks of steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import threadpoolctl

from pliant.methods import as_arrays, users_code
from pliant.results import COLUMNS, RunFolder, environment, summarize_run
from pliant.training._checkpoint import Checkpoints
from pliant.training._config import RunConfig
from pliant.training._evaluate import probe_indices, summarize
from pliant.training._learner import Learner, make_learner
from pliant.training._order import batch_indices
from pliant.training._plan import MethodPlan, Plan, make_plan
from pliant.training._record import fingerprint, record

_CHUNK = 128  # steps at most in a compiled call: long against its overhead, short against a user's patience


class Progress(NamedTuple):
    """Where a run is; reported after every chunk."""

    method: str
    task: int
    """Counted from 0."""
    done: float
    """Fraction of the whole run, in [0, 1]."""
    accuracy: float
    """Online accuracy so far in this task, mean over seeds."""


def run(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    data_dir: str | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> RunFolder:
    """Trains every method of a configuration and writes the run folder; continues an interrupted run.

    After every task the metrics are stored and a checkpoint is written. A run that is killed at any moment goes on
    from the last whole checkpoint when it is called again, and ends with the same numbers, to the bit on the same
    machine and packages. A seed that diverges is recorded (`diverged`, accuracies of 0) and does not touch the
    others.

    Args:
      config: what to run.
      out: the run folder; by default runs/STREAM-DATASET-ID.
      data_dir: see `pliant.streams.load_dataset`.
      report: called with the progress after every chunk of steps.

    Returns:
      The finished run folder.

    Raises:
      UserError: see `make_plan` and `RunFolder`.

    Example:
      >>> import tempfile
      >>> config = RunConfig(methods=("adam",), seeds=1, tasks=1, epochs=1, widths=(16,))
      >>> with tempfile.TemporaryDirectory() as out:
      ...     folder = run(config, out)
      >>> sorted(folder.metrics.metric)[:3]
      ['diverged', 'dormant_fraction', 'effective_rank']
    """
    plan = make_plan(config, data_dir)
    configuration = record(plan)
    identity = fingerprint(configuration)
    path = Path(out) if out is not None else Path("runs") / f"{config.stream}-{config.dataset}-{identity}"
    with (
        RunFolder.opened(path, configuration, identity) as folder,
        # NumPy's BLAS gets one thread: several that wait for each other make a small SVD take seconds on busy cores.
        threadpoolctl.threadpool_limits(1, user_api="blas"),
    ):
        folder.record_environment(environment())
        folder.log(f"start: {folder.title}")
        for number, method in enumerate(plan.methods):
            with users_code(method.source):
                _run_method(plan, method, folder, report, number / len(plan.methods))
        summarize_run(folder.metrics, folder.headline).to_csv(folder.path / "summary.csv", index=False)
        folder.log("done")
    return folder


def _run_method(
    plan: Plan, method: MethodPlan, folder: RunFolder, report: Callable[[Progress], None], done: float
) -> None:
    """Trains one method on all tasks that are still to do."""
    config, name = plan.config, method.method.name
    with Checkpoints(folder.checkpoints(name), folder.num_tasks_stored(name)) as checkpoints:
        first = checkpoints.num_tasks_done()
        if first >= config.tasks:
            return
        started = time.perf_counter()
        learner = make_learner(plan.stream, method, config.seeds)
        axis = learner.axis
        traced = axis.share(as_arrays(method.traced))
        data = axis.share(plan.stream.data)
        probe = axis.share(probe_indices(plan.stream.num_train, config.probe_size))
        state, keys = learner.init(axis.put(np.arange(config.seeds, dtype=np.int32)), traced)
        if first:
            state = axis.put(checkpoints.restore(axis.get(state)))
            folder.log(f"{name}: continues after task {first} of {config.tasks}")

        for index in range(first, config.tasks):
            task = learner.make_task(keys, np.int32(index))

            def progress(fraction: float, accuracy: float, index: int = index) -> None:
                whole = done + (index + fraction) / config.tasks / len(plan.methods)
                report(Progress(name, index, whole, accuracy))

            state, means = _run_task(plan, learner, (state, keys, task), (traced, data), index, progress)
            results = jax.device_get(learner.evaluate((state, keys, task), (data, probe, np.int32(index))))
            rows = _rows(plan, name, index, means, results)
            now = time.perf_counter()
            folder.record_task(name, index, rows, now - started)
            started = now
            checkpoints.save(index + 1, axis.get(state))
            folder.log(f"{name}: task {index + 1} of {config.tasks}, {_headline(rows, plan):.3f}")


def _run_task(
    plan: Plan,
    learner: Learner,
    carry: tuple[Any, Any, Any],
    arguments: tuple[Any, Any],
    index: int,
    progress: Callable[[float, float], None],
) -> tuple[Any, dict[str, np.ndarray]]:
    """Trains on one task; also returns its metrics: means over steps, and sums of counts, one entry a seed."""
    config, axis = plan.config, learner.axis
    num_steps = num_steps_per_task(plan)
    chunk = min(_CHUNK, num_steps)
    totals: dict[str, np.ndarray] = {}
    state, keys, task = carry
    for start in range(0, num_steps, chunk):
        stop = min(start + chunk, num_steps)
        indices = np.zeros((config.seeds, chunk, config.batch_size), np.int32)
        for seed in range(config.seeds):
            indices[seed, : stop - start] = batch_indices(
                seed, index, start, stop, num_examples=plan.stream.num_train, batch_size=config.batch_size
            )
        shared = (*arguments, np.int32(index * num_steps + start), np.int32(stop - start))
        state, sums = learner.train((state, keys, task, axis.put(indices)), shared)
        for name, value in axis.get(sums).items():
            totals[name] = totals.get(name, 0) + value.astype(np.int64 if value.dtype.kind == "i" else np.float64)
        progress(stop / num_steps, float(totals["online_accuracy"].mean() / stop))
    means = {name: total if total.dtype.kind == "i" else total / num_steps for name, total in totals.items()}
    return state, means


def num_steps_per_task(plan: Plan) -> int:
    """Updates in a task: whole batches in all its epochs together."""
    return plan.config.epochs * plan.stream.num_train // plan.config.batch_size


def _rows(plan: Plan, method: str, index: int, means: dict[str, np.ndarray], results: Any) -> pd.DataFrame:
    """The metrics of one task in long form."""
    config = plan.config
    num_steps = num_steps_per_task(plan)
    rows = []
    for seed in range(config.seeds):
        metrics = {name: float(values[seed]) for name, values in means.items()} | summarize(results, seed)
        common = (
            plan.stream.name,
            method,
            config.network,
            config.dataset,
            seed,
            index,
            (index + 1) * num_steps,
        )
        rows += [(*common, name, value) for name, value in sorted(metrics.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _headline(rows: pd.DataFrame, plan: Plan) -> float:
    return float(rows.loc[rows["metric"] == plan.stream.headline, "value"].mean())
