"""A run: every method learns the stream, task by task; the host has control between chunks of steps."""

import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Int

from pliant.diagnostics import one_blas_thread
from pliant.methods import as_arrays, users_code
from pliant.results import COLUMNS, RunFolder, environment, summarize_run
from pliant.training._checkpoint import Checkpoints
from pliant.training._config import RunConfig
from pliant.training._diagnose import due, probe_indices, summarize_slots
from pliant.training._evaluate import Sizes, scores
from pliant.training._learner import Learner, make_learner
from pliant.training._meanwhile import Meanwhile
from pliant.training._observe import Program
from pliant.training._order import batch_indices
from pliant.training._pace import epoch_ends, followed_weights, micro_steps, num_steps, rates
from pliant.training._plan import MethodPlan, Plan, make_plan, probe_size
from pliant.training._record import fingerprint, record
from pliant.training._step import Pace
from pliant.types import Stream

_CHUNK = 128  # steps at most in a compiled call: long against its overhead, short against a user's patience


class Progress(NamedTuple):
    """Where a run is; reported after every chunk."""

    method: str
    task: int
    """Counted from 1."""
    task_done: float
    """Fraction of the task, in [0, 1]; every task is reported with 1.0 once, at its end."""
    done: float
    """Fraction of the whole run, in [0, 1]."""
    score_name: str
    score: float
    """The online score so far in this task, mean over seeds."""


def run(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    name: str | None = None,
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
      out: the run folder; by default runs/NAME-ID.
      name: by default STREAM-DATASET.
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
      ['diverged', 'dormant_exact_fraction', 'dormant_fraction']
    """
    plan = make_plan(config, data_dir)
    configuration = record(plan)
    identity = fingerprint(configuration)
    name = name or f"{config.stream}-{plan.stream.dataset}"
    path = Path(os.path.expanduser(out)) if out is not None else Path("runs") / f"{name}-{identity}"
    with (
        RunFolder.opened(path, configuration, identity) as folder,
        one_blas_thread(),
    ):
        folder.record_environment(environment())
        folder.log(f"start: {folder.title}")
        programs: dict[Any, Program] = {}
        for number, method in enumerate(plan.methods):
            with users_code(method.source):
                _run_method(plan, method, folder, report, number / len(plan.methods), programs)
        summarize_run(folder.metrics, folder.headline).to_csv(folder.path / "summary.csv", index=False)
        folder.log("done")
    return folder


def _run_method(
    plan: Plan,
    method: MethodPlan,
    folder: RunFolder,
    report: Callable[[Progress], None],
    done: float,
    programs: dict[Any, Program],
) -> None:
    """Trains one method on all tasks that are still to do."""
    config, stream, name = plan.config, method.stream, method.method.name
    stored = folder.num_tasks_stored(method.labels[0])
    with (
        Checkpoints(folder.checkpoints(name), stored, keep=config.checkpoints) as checkpoints,
        Meanwhile() as meanwhile,
    ):
        first = checkpoints.num_tasks_done()
        if first >= config.tasks:
            return
        started = time.perf_counter()
        seeds, own = slots(config, method)
        for diagnostic, reason in method.unmeasured.items():
            folder.log(f"{name}: without {diagnostic}: {reason}")
        learner = make_learner(method, len(seeds), config=config, programs=programs)
        axis = learner.axis
        traced = axis.share(as_arrays(method.traced))
        shared = (traced, axis.share(stream.data))
        state, slot = learner.init(axis.put((seeds, own)), traced)
        initial = state
        if first:
            state = axis.put(checkpoints.restore(axis.get(state)))
            folder.log(f"{name}: continues after task {first} of {config.tasks}")
        chunk = _Chunk()
        for index in range(first, config.tasks):
            told: dict[str, np.ndarray] = {}
            previous = state
            if index and _switches(plan, method):
                state, info = learner.switch((state, slot), (traced, np.int32(index)))
                told = axis.get(info)
            task = learner.make_task(slot, np.int32(index))

            def progress(fraction: float, score: float, index: int = index) -> None:
                whole = done + (index + fraction) / config.tasks / len(plan.methods)
                report(Progress(name, index + 1, fraction, whole, stream.objective.score, score))

            state, means = _run_task(
                config, stream, learner, seeds, (state, slot, task), shared, index, chunk, progress
            )
            sizes = Sizes(np.int32(stream.train.num(index)), np.int32(stream.test.num(index) if stream.test else 0))
            probe = probe_indices(stream.train.num(index), probe_size(config, plan.stream))
            results = learner.evaluate((state, slot, task), (*shared, sizes))
            item = ((state, initial, previous), slot, task)
            names = _due(learner, config, index)
            measured = _measure(learner, names, item, (*shared, probe, np.int32(index)))
            results, measured = axis.get((results, measured))
            now = time.perf_counter()
            learned = _Learned(index, means | told, results, measured, names, state, now - started)
            started = now
            meanwhile.do(functools.partial(_store, plan, method, learner, folder, checkpoints, learned))
            del learned, measured, results  # so that what one task leaves is gone before the next one's is fetched


class _Learned(NamedTuple):
    """A task that has been learned."""

    task_index: int
    """Counted from 0."""
    means: dict[str, np.ndarray]
    scored: Any
    measured: dict[str, Any]
    names: list[str]
    """Of the diagnostics that were measured."""
    state: Any
    """At its end; it stays as it is while training goes on from it, since nothing is donated."""
    seconds: float


def _store(
    plan: Plan, method: MethodPlan, learner: Learner, folder: RunFolder, checkpoints: Checkpoints, learned: _Learned
) -> None:
    """Summarises and writes a task; the checkpoint comes last, so that every checkpoint has its metrics."""
    index, name = learned.task_index, method.method.name
    found, arrays = _summarize(method.stream, learned, learner.axis.num_seeds)
    rows = _rows(plan, method, index, learned.means, found)
    folder.record_arrays(name, index + 1, arrays)
    folder.record_task(index + 1, rows, learned.seconds)
    checkpoints.save(index + 1, learner.axis.get(learned.state))
    folder.log(f"{name}: task {index + 1} of {plan.config.tasks}, {_headline(rows, plan):.3f}")


class _Chunk:
    """How many steps a compiled call runs: twice as many as before while that takes less than a second."""

    def __init__(self) -> None:
        self.size = 4

    def took(self, seconds: float) -> None:
        if seconds < 1.0:
            self.size = min(2 * self.size, _CHUNK)


def slots(config: RunConfig, method: MethodPlan) -> tuple[Int[np.ndarray, " slot"], dict[str, np.ndarray]]:
    """The seed of every slot, and its values of what a grid varies: all seeds of the first point, then of the next."""
    seeds = np.tile(np.arange(config.seeds, dtype=np.int32), len(method.points))
    own = {
        name: np.repeat(np.stack([as_arrays(point)[name] for point in method.points]), config.seeds)
        for name in method.points[0]
    }
    return seeds, own


def _switches(plan: Plan, method: MethodPlan) -> bool:
    """Whether anything is to be done when the task changes."""
    kept = (plan.config.optimizer_at_switch, plan.config.head_at_switch) == ("keep", "keep")
    return method.method.boundary_aware or not kept


def _run_task(
    config: RunConfig,
    stream: Stream,
    learner: Learner,
    seeds: Int[np.ndarray, " slot"],
    carry: tuple[Any, Any, Any],
    arguments: tuple[Any, Any],
    index: int,
    chunk: _Chunk,
    progress: Callable[[float, float], None],
) -> tuple[Any, dict[str, np.ndarray]]:
    """Trains on one task; also returns its metrics: means over steps, and sums of counts, one entry a slot."""
    axis = learner.axis
    total, num_train = num_steps(config, stream, index), stream.train.num(index)
    moments, factors = micro_steps(config, stream, index), rates(config, total)
    weights = followed_weights(total)
    before = sum(num_steps(config, stream, earlier) for earlier in range(index))
    sums: dict[str, np.ndarray] = {}
    state, slot, task = carry
    is_selecting = config.weights_at_end == "best-validation"
    ends = epoch_ends(config, stream, index) if is_selecting else [total]
    best = learner.no_epoch(state, ()) if is_selecting else None
    start = 0
    while start < total:
        began, stop = time.perf_counter(), min(start + chunk.size, *(end for end in ends if end > start))
        order = np.zeros((config.seeds, _CHUNK, config.batch_size), np.int32)
        for seed in range(config.seeds):
            order[seed, : stop - start] = batch_indices(
                seed, index, start, stop, num_examples=num_train, batch_size=config.batch_size
            )
        pace = Pace(
            _padded(moments[start:stop], np.int32),
            _padded(factors[start:stop], np.float32),
            _padded(np.arange(start, stop) / total, np.float32),
            _padded(weights[start:stop], np.float32),
            np.int32(before + start),
            np.int32(stop - start),
            np.int32(num_train),
        )
        state, metrics = learner.train((state, slot, task, axis.put(order[seeds])), (*arguments, pace))
        for name, values in axis.get(metrics).items():
            kind = np.int64 if values.dtype.kind == "i" else np.float64
            sums[name] = _added(sums.get(name, np.zeros(len(seeds), kind)), values[:, : stop - start])
        if is_selecting and stop in ends:
            assert stream.validation is not None
            held_out = (arguments[1], np.int32(stream.validation.num(index)))
            best = learner.better((best, state, task), held_out)
        start = stop
        chunk.took(time.perf_counter() - began)
        progress(stop / total, float(sums[f"online_{stream.objective.score}"].mean() / stop))
    means = {name: each if each.dtype.kind == "i" else each / total for name, each in sums.items()}
    if best is not None:
        state = state._replace(params=best.params, statistics=best.statistics)
        means[f"validation_{stream.objective.score}"] = axis.get(best.score)
    return state, means


def _added(totals: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The totals of the seeds after more steps, added one by one: chunks, which go by the clock, change no bit."""
    return np.column_stack([totals, values]).cumsum(axis=1)[:, -1]


def _padded(values: np.ndarray, kind: type) -> np.ndarray:
    """An array as long as a chunk may be."""
    return np.resize(values.astype(kind), _CHUNK)


def _rows(
    plan: Plan, method: MethodPlan, index: int, means: dict[str, np.ndarray], found: Sequence[dict[str, float]]
) -> pd.DataFrame:
    """The metrics of one task in long form."""
    config = plan.config
    step = sum(num_steps(config, method.stream, earlier) for earlier in range(index + 1))
    rows = []
    for slot, (label, seed) in enumerate(itertools.product(method.labels, range(config.seeds))):
        metrics = {name: float(values[slot]) for name, values in means.items()} | found[slot]
        common = (plan.stream.name, label, config.network, plan.stream.dataset, seed, index + 1, step)
        rows += [(*common, name, value) for name, value in sorted(metrics.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _due(learner: Learner, config: RunConfig, index: int) -> list[str]:
    """The diagnostics that are measured at the end of a task; of a group all are, or none."""
    groups = (group for group in learner.measure if due(group[0], index + 1, config.tasks, config.diagnose_after))
    return [name for group in groups for name in group]


def _measure(learner: Learner, names: Sequence[str], item: Any, shared: Any) -> dict[str, Any]:
    """What those diagnostics find, of every slot."""
    measured: dict[str, Any] = {}
    for group, of_group in learner.measure.items():
        if group[0] in names:
            measured |= of_group(item, shared)
    return measured


def _summarize(
    stream: Stream, learned: _Learned, num_slots: int
) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """Scores and diagnostics at the end of a task: numbers of each slot, and arrays with a slot axis."""
    numbers, arrays = summarize_slots(learned.names, learned.measured, num_slots)
    found = []
    for slot, of_slot in enumerate(numbers):
        scored = scores(stream, jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot]), learned.scored))
        found.append(scored | {metric: value for each in of_slot.values() for metric, value in each.items()})
    return found, arrays


def _headline(rows: pd.DataFrame, plan: Plan) -> float:
    return float(rows.loc[rows["metric"] == plan.stream.headline, "value"].mean())
