"""The loop: every method learns its tasks, one after the other; the host has control between chunks of updates."""

import functools
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from pliant.diagnostics import one_blas_thread
from pliant.errors import UserError
from pliant.results import AT_START, COLUMNS, MakeTracker, RunFolder, SeedBlock, environment, tracking
from pliant.specs import name_of, users_code
from pliant.training._background_writer import BackgroundWriter
from pliant.training._checkpoint import Checkpoints
from pliant.training._diagnose import summarize_slots
from pliant.training._plan import MethodPlan, Plan
from pliant.training._trainer import Learned, Trainer


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
    """The metric that is shown, such as "online_accuracy"."""
    score: float
    """Its value so far in this task, mean over seeds."""


def train(
    plan: Plan,
    path: Path,
    report: Callable[[Progress], None] = lambda _: None,
    trackers: Sequence[str | MakeTracker] = (),
    of_seeds: int | None = None,
) -> RunFolder:
    """Trains every method of a plan and writes the run folder; continues an interrupted run, or extends a finished one.

    After every task the metrics are stored, with a learning curve if the source has one. Then a checkpoint is written;
    after short tasks only every two seconds and at the end. A run that is killed at any moment continues from the last
    whole checkpoint when it is started again, and ends with the same numbers, to the bit on the same machine and
    packages. A seed that diverges is recorded (`diverged`, accuracies of 0) and does not touch the others.

    Of a finished run, methods that are new are trained, tasks that are new in every block of seeds, and seeds that are
    new as a block of their own. Fewer tasks or seeds than are stored need no training.

    Args:
      plan: what to run.
      path: the run folder.
      report: called with the progress after every chunk of updates.
      trackers: where the metrics of every task are also shown: names in `pliant.results.TRACKERS`, or such functions.
      of_seeds: the number of seeds of the whole run if the plan is a part of it: blocks of seeds that are not in the
        plan are then left to other processes, and so is `summary.csv`. By default the plan is the whole run.

    Returns:
      The finished run folder.

    Raises:
      UserError: see `RunFolder`.
      BusyError: if another process trains one of the blocks of seeds.
    """
    folder = RunFolder.begin(path, plan.record)
    if of_seeds is None:
        folder.log(f"start: {plan.record.title}")
    reused: dict[Any, Any] = {}
    num_tracked = 0
    with one_blas_thread(), tracking(trackers, folder.path, plan.record.configuration) as log_metrics:

        def track(rows: pd.DataFrame) -> None:
            nonlocal num_tracked
            num_tracked += 1
            log_metrics(rows)

        for number, method in enumerate(plan.methods):
            code = users_code({**plan.specs, **method.specs})
            with folder.open_method(method.method.name, method.configuration) as opened, code, method.source.within():
                seeds, first_seed = plan.protocol.seeds, plan.protocol.first_seed
                blocks = opened.claim(seeds, first_seed, alone=of_seeds is not None)
                opened.record_start(environment(), plan.protocol.tasks, of_seeds or seeds)
                for place, block in enumerate(blocks):
                    done = (number + place / len(blocks)) / len(plan.methods)
                    share = 1 / len(blocks) / len(plan.methods)
                    _train_block(plan, method, folder, block, report, track, (done, share), reused)
    if trackers and not num_tracked:
        folder.log("nothing tracked: the run was finished, and trackers only get tasks as they train", logging.WARNING)
    if of_seeds is None:
        folder.write_summary()
        folder.log("done")
    return RunFolder(path)


def _train_block(
    plan: Plan,
    method: MethodPlan,
    folder: RunFolder,
    block: SeedBlock,
    report: Callable[[Progress], None],
    track: Callable[[pd.DataFrame], None],
    within: tuple[float, float],
    reused: dict[Any, Any],
) -> None:
    """Trains one method with a block of seeds on all tasks that are still to do.

    Args:
      plan: of the run.
      method: what is trained.
      folder: of the run.
      block: of seeds.
      report: called with the progress.
      track: called with the metrics of every task.
      within: what of the whole run is done before, and the share of this block.
      reused: compiled programs and placed data, by what they are for.
    """
    protocol, name, (done, share) = plan.protocol, method.method.name, within
    num_stored = block.num_tasks_stored(with_curves=method.source.points is not None)
    with (
        Checkpoints(block.checkpoints, num_stored, keep=protocol.checkpoints) as checkpoints,
        BackgroundWriter() as writer,
    ):
        first = checkpoints.num_tasks_done()
        if first >= protocol.tasks:
            return
        started = time.perf_counter()
        for diagnostic, reason in method.unmeasured.items():
            folder.log(f"{name}: without {diagnostic}: {reason}")
        trainer = Trainer(protocol, method, block.seeds, reused, lambda text: folder.log(f"{name}: {text}"))
        if first:
            trainer.restore(checkpoints)
            folder.log(f"{name}: continues after task {first} of {protocol.tasks}")
        for index in range(first, protocol.tasks):

            def progress(fraction: float, value: float, index: int = index) -> None:
                whole = done + share * (index + fraction) / protocol.tasks
                report(Progress(name, index + 1, fraction, whole, method.source.progress, value))

            learned = trainer.learn(index, progress)
            now = time.perf_counter()
            store = functools.partial(_store, plan, method, folder, block, track, checkpoints, learned, now - started)
            started = now
            writer.submit(store)
            del learned, store  # so that what one task leaves is gone before the next one's is fetched


def _store(
    plan: Plan,
    method: MethodPlan,
    folder: RunFolder,
    block: SeedBlock,
    track: Callable[[pd.DataFrame], None],
    checkpoints: Checkpoints,
    learned: Learned,
    seconds: float,
) -> None:
    """Summarises and stores a task; the checkpoint comes last, so that every checkpoint has its metrics."""
    task, name, num_slots = learned.task_index + 1, method.method.name, len(block.seeds) * len(method.points)
    found, arrays = _summarize(method, learned, num_slots)
    rows = _rows(plan, method, block.seeds, task, [_Moment(learned.num_updates, learned.numbers, found)])
    points = [_Moment(each.step, each.numbers, _scores(method, each.scored, num_slots)) for each in learned.curve]
    block.record_arrays(task, arrays)
    curve = _rows(plan, method, block.seeds, task, points) if points else None
    block.record_task(task, rows, seconds, curve)
    checkpoints.offer(task, *learned.carry())
    track(rows if curve is None else pd.concat([curve, rows]))
    if plan.record.headline not in set(rows["metric"]):
        raise UserError(
            got=f"the headline {plan.record.headline!r}, which nobody reports",
            wanted=f"one of {', '.join(sorted({name.partition('/')[0] for name in rows['metric']}))}",
            do="Choose another headline, or report it in the source's evaluation.",
        )
    headline = rows.loc[rows["metric"] == plan.record.headline, "value"].mean()
    folder.log(f"{name}: task {task} of {plan.protocol.tasks}, {headline:.3f}")


def _summarize(
    method: MethodPlan, learned: Learned, num_slots: int
) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """Scores and diagnostics of a task: numbers of each slot, and arrays with a slot axis."""
    found, arrays = _scores(method, learned.scored, num_slots), dict[str, np.ndarray]()
    for (measured, diagnostics), prefix in ((learned.at_start, AT_START), (learned.at_end, "")):
        numbers, of_moment = summarize_slots(diagnostics, measured, num_slots)
        arrays |= of_moment
        for scored, of_slot in zip(found, numbers, strict=True):
            scored |= {f"{prefix}{metric}": value for each in of_slot.values() for metric, value in each.items()}
    return found, arrays


def _scores(method: MethodPlan, scored: Any, num_slots: int) -> list[dict[str, float]]:
    """An evaluation as numbers of each slot."""
    of_slots = (jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot]), scored) for slot in range(num_slots))
    return list(map(method.source.summarize, of_slots))


class _Moment(NamedTuple):
    """When metrics are recorded, and what they are."""

    step: int
    """Updates of the run before it."""
    numbers: Mapping[str, np.ndarray]
    """One entry a slot."""
    found: Sequence[dict[str, float]]
    """Of each slot."""


def _rows(plan: Plan, method: MethodPlan, seeds: Sequence[int], task: int, moments: Sequence[_Moment]) -> pd.DataFrame:
    """The metrics at moments of one task in long form."""
    rows = []
    for slot, (label, seed) in enumerate(itertools.product(method.labels, seeds)):
        for step, numbers, found in moments:
            metrics = {name: float(values[slot]) for name, values in numbers.items()} | found[slot]
            if method.source.env_steps:
                metrics["env_steps"] = float(round(step * method.source.env_steps))
            common = (plan.problem, label, name_of(plan.protocol.network), plan.dataset, seed, task, step)
            rows += [(*common, name, value) for name, value in sorted(metrics.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))
