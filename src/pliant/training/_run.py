"""The loop: every method learns its tasks, one after the other; the host has control between chunks of updates."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Int

from pliant.diagnostics import one_blas_thread
from pliant.methods import as_arrays
from pliant.results import COLUMNS, RunFolder, SeedBlock, environment
from pliant.specs import name_of, users_code
from pliant.training._background_writer import BackgroundWriter
from pliant.training._checkpoint import Checkpoints
from pliant.training._chunk import Pace
from pliant.training._diagnose import due, summarize_slots
from pliant.training._learner import Begun, make_learner
from pliant.training._observe import Group, Observed, Shared, views_of
from pliant.training._pace import rates, sampled_weights
from pliant.training._plan import MethodPlan, Plan
from pliant.training._state import Carry, SeedSlot, View
from pliant.training._sums import Sums
from pliant.types import Diagnostic, State

_CHUNK = 128  # updates at most in a compiled call: long against its overhead, short against a user's patience


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


def train(plan: Plan, path: Path, report: Callable[[Progress], None] = lambda _: None) -> RunFolder:
    """Trains every method of a plan and writes the run folder; continues an interrupted run, or extends a finished one.

    After every task the metrics are stored and a checkpoint is written. A run that is killed at any moment continues
    from the last whole checkpoint when it is started again, and ends with the same numbers, to the bit on the same
    machine and packages. A seed that diverges is recorded (`diverged`, accuracies of 0) and does not touch the others.

    Of a finished run, methods that are new are trained, tasks that are new in every block of seeds, and seeds that are
    new as a block of their own. Fewer tasks or seeds than are stored need no training.

    Args:
      plan: what to run.
      path: the run folder.
      report: called with the progress after every chunk of updates.

    Returns:
      The finished run folder.

    Raises:
      UserError: see `RunFolder`.
    """
    folder = RunFolder.begin(path, plan.record)
    folder.log(f"start: {plan.record.title}")
    reused: dict[Any, Any] = {}
    with one_blas_thread():
        for number, method in enumerate(plan.methods):
            code = users_code({**plan.specs, **method.specs})
            with folder.open_method(method.method.name, method.configuration) as opened, code:
                opened.record_start(environment(), plan.protocol.tasks, plan.protocol.seeds)
                blocks = opened.blocks(plan.protocol.seeds)
                for place, block in enumerate(blocks):
                    done = (number + place / len(blocks)) / len(plan.methods)
                    share = 1 / len(blocks) / len(plan.methods)
                    _train_block(plan, method, folder, block, report, (done, share), reused)
    folder.write_summary()
    folder.log("done")
    return RunFolder(path)


def _train_block(
    plan: Plan,
    method: MethodPlan,
    folder: RunFolder,
    block: SeedBlock,
    report: Callable[[Progress], None],
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
      within: what of the whole run is done before, and the share of this block.
      reused: compiled programs and placed data, by what they are for.
    """
    protocol, name, (done, share) = plan.protocol, method.method.name, within
    with (
        Checkpoints(block.checkpoints, block.num_tasks_stored(), keep=protocol.checkpoints) as checkpoints,
        BackgroundWriter() as writer,
    ):
        first = checkpoints.num_tasks_done()
        if first >= protocol.tasks:
            return
        started = time.perf_counter()
        for diagnostic, reason in method.unmeasured.items():
            folder.log(f"{name}: without {diagnostic}: {reason}")
        trainer = _Trainer(plan, method, block.seeds, reused)
        if first:
            trainer.restore(checkpoints)
            folder.log(f"{name}: continues after task {first} of {protocol.tasks}")
        for index in range(first, protocol.tasks):

            def progress(fraction: float, value: float, index: int = index) -> None:
                whole = done + share * (index + fraction) / protocol.tasks
                report(Progress(name, index + 1, fraction, whole, method.source.progress, value))

            learned = trainer.learn(index, progress)
            now = time.perf_counter()
            store = functools.partial(_store, plan, method, folder, block, checkpoints, learned, now - started)
            started = now
            writer.submit(store)
            del learned, store  # so that what one task leaves is gone before the next one's is fetched


class _Learned(NamedTuple):
    """A task that has been learned, with a slot axis, on the host but for the learner."""

    task_index: int
    """Counted from 0."""
    numbers: Mapping[str, np.ndarray]
    scored: Any
    measured: Mapping[str, Any]
    diagnostics: Sequence[Diagnostic]
    """Those that were measured."""
    carry: Callable[[], tuple[Any, Any]]
    """Fetches what goes into the checkpoint."""


class _Trainer:
    """The state of one method's learning between tasks, and how it goes on."""

    def __init__(self, plan: Plan, method: MethodPlan, seeds: Sequence[int], reused: dict[Any, Any]):
        """Initialises the learner of every slot; programs and data in `reused` are not made again."""
        self._plan, self._method, self._seeds = plan, method, seeds
        of_slot, own = slots(seeds, method)
        self._place = np.tile(np.arange(len(seeds)), len(method.points))  # of each slot's seed among the seeds
        learner = make_learner(method, len(of_slot), protocol=plan.protocol, programs=reused)
        self._learner, axis = learner, learner.axis
        place = "data", id(method.source.data), axis.mesh
        if place not in reused:
            reused[place] = axis.share(method.source.data)
        self._shared = Shared(axis.share(as_arrays(method.traced)), reused[place], facts=method.source.facts(0))
        self._carry: Carry
        self._slot: SeedSlot
        self._carry, self._slot = learner.init(axis.put((of_slot, own)), self._shared)
        self._initial = self._previous = self._look()
        self._source: State = ()
        if learner.init_source:
            self._source = learner.init_source((self._slot, learner.make_task(self._slot, np.int32(0))), self._shared)
        self._chunk = _Chunk()

    def restore(self, checkpoints: Checkpoints) -> None:
        """Goes back to where the newest checkpoint was."""
        axis = self._learner.axis
        like = axis.get((self._carry, self._source))
        self._carry, self._source = axis.put(checkpoints.restore(*like))
        self._previous = self._look()

    def learn(self, index: int, progress: Callable[[float, float], None]) -> _Learned:
        """Trains on a task and observes what was learned."""
        learner, axis, source = self._learner, self._learner.axis, self._method.source
        shared = self._shared._replace(facts=source.facts(index), index=np.int32(index))
        told: dict[str, np.ndarray] = {}
        if index and _switches(self._plan, self._method):
            self._carry, info = learner.switch((self._carry, self._slot), shared)
            told = axis.get(info)
        task = learner.make_task(self._slot, np.int32(index))
        if index and learner.switch_source:
            self._source = learner.switch_source((self._source, Begun(self._carry, self._slot, task)), shared)
        numbers = self._train(index, task, shared, progress)
        now = self._look()
        observed = Observed(now, self._slot, self._source, task)
        scored = learner.observers.evaluate(observed, shared)
        groups = _due(learner.observers.groups, self._plan, index)
        measured: dict[str, Any] = {}
        for group in groups:
            views = views_of(group.diagnostics, now, self._initial, self._previous, self._carry.followed)
            measured |= group.program(observed._replace(views=views), shared)
        scored, measured = axis.get((scored, measured))
        self._previous = now
        names = [each for group in groups for each in group.diagnostics]
        kept = (self._carry, axis.get(self._source))  # the source's state is donated to the next chunk
        return _Learned(index, numbers | told, scored, measured, names, lambda: axis.get(kept))

    def _look(self) -> View:
        return self._learner.observers.look(self._carry.learner, self._slot, self._shared.traced)

    def _train(
        self, index: int, task: Any, shared: Shared, progress: Callable[[float, float], None]
    ) -> dict[str, np.ndarray]:
        """Trains on one task; returns its numbers, one entry a slot: means over updates, and sums of counts."""
        learner, axis, source = self._learner, self._learner.axis, self._method.source
        total = source.num_updates(index)
        factors, weights = rates(self._plan.protocol, total), sampled_weights(total)
        before = sum(map(source.num_updates, range(index)))
        selection = source.selection
        ends = selection.after(index) if selection else [total]
        best = learner.no_best(self._carry, ()) if selection else None
        sums = Sums()
        start = 0
        while start < total:
            began, stop = time.perf_counter(), min(start + self._chunk.size, *(end for end in ends if end > start))
            fed = source.feed(self._seeds, index, start, stop)
            own = jax.tree.map(lambda leaf: _padded(leaf, axis=1)[self._place], fed.own)
            pace = Pace(
                _padded(factors[start:stop].astype(np.float32)),
                _padded((np.arange(start, stop) / total).astype(np.float32)),
                _padded(weights[start:stop].astype(np.float32)),
                np.int32(before + start),
                np.int32(stop - start),
            )
            begun = Begun(self._carry, self._slot, task, axis.put(own))
            of_chunk = shared._replace(pace=pace, fed=jax.tree.map(_padded, fed.shared))
            self._source, self._carry, info = learner.train((self._source, begun), of_chunk)
            sums.add(axis.get(info), stop - start)
            if best is not None and stop in ends:
                best = learner.better((best, begun._replace(carry=self._carry, fed=())), shared)
            start = stop
            self._chunk.took(time.perf_counter() - began)
            progress(stop / total, sums.mean(source.progress, stop))
        numbers = sums.numbers(total)
        if best is not None:
            assert selection is not None
            best_learner = self._carry.learner._replace(params=best.params, statistics=best.statistics)
            self._carry = self._carry._replace(learner=best_learner)
            numbers[selection.metric] = axis.get(best.score)
        return numbers


def _padded(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """An array as long as a chunk may be."""
    missing = [(0, _CHUNK - size if place == axis else 0) for place, size in enumerate(values.shape)]
    return np.pad(values, missing, mode="edge")


class _Chunk:
    """How many updates a compiled call runs: twice as many as before while that takes less than a second."""

    def __init__(self) -> None:
        self.size = 4

    def took(self, seconds: float) -> None:
        if seconds < 1.0:
            self.size = min(2 * self.size, _CHUNK)


def slots(seeds: Sequence[int], method: MethodPlan) -> tuple[Int[np.ndarray, " slot"], dict[str, np.ndarray]]:
    """The seed of every slot, and its values of what a grid varies: all seeds of the first point, then of the next."""
    of_slot = np.tile(np.array(seeds, np.int32), len(method.points))
    own = {
        name: np.repeat(np.stack([as_arrays(point)[name] for point in method.points]), len(seeds))
        for name in method.points[0]
    }
    return of_slot, own


def _switches(plan: Plan, method: MethodPlan) -> bool:
    """Whether anything is done to the learner when the task changes."""
    kept = (plan.protocol.optimizer_at_switch, plan.protocol.head_at_switch) == ("keep", "keep")
    return method.method.boundary_aware or not kept


def _due(groups: Sequence[Group], plan: Plan, index: int) -> list[Group]:
    """The diagnostics that are measured at the end of a task; of a group all are, or none."""
    protocol = plan.protocol
    return [group for group in groups if due(group.diagnostics[0], index + 1, protocol.tasks, protocol.diagnose_after)]


def _store(
    plan: Plan,
    method: MethodPlan,
    folder: RunFolder,
    block: SeedBlock,
    checkpoints: Checkpoints,
    learned: _Learned,
    seconds: float,
) -> None:
    """Summarises and writes a task; the checkpoint comes last, so that every checkpoint has its metrics."""
    task, name = learned.task_index + 1, method.method.name
    found, arrays = _summarize(method, learned, len(block.seeds) * len(method.points))
    rows = _rows(plan, method, block.seeds, learned, found)
    block.record_arrays(task, arrays)
    block.record_task(task, rows, seconds)
    checkpoints.save(task, *learned.carry())
    headline = rows.loc[rows["metric"] == plan.record.headline, "value"].mean()
    folder.log(f"{name}: task {task} of {plan.protocol.tasks}, {headline:.3f}")


def _summarize(
    method: MethodPlan, learned: _Learned, num_slots: int
) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """Scores and diagnostics at the end of a task: numbers of each slot, and arrays with a slot axis."""
    numbers, arrays = summarize_slots(learned.diagnostics, learned.measured, num_slots)
    found = []
    for slot, of_slot in enumerate(numbers):
        scored = method.source.summarize(jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot]), learned.scored))
        found.append(scored | {metric: value for each in of_slot.values() for metric, value in each.items()})
    return found, arrays


def _rows(
    plan: Plan, method: MethodPlan, seeds: Sequence[int], learned: _Learned, found: Sequence[dict[str, float]]
) -> pd.DataFrame:
    """The metrics of one task in long form."""
    step = sum(map(method.source.num_updates, range(learned.task_index + 1)))
    rows = []
    for slot, (label, seed) in enumerate(itertools.product(method.labels, seeds)):
        metrics = {name: float(values[slot]) for name, values in learned.numbers.items()} | found[slot]
        common = (plan.problem, label, name_of(plan.protocol.network), plan.dataset, seed, learned.task_index + 1, step)
        rows += [(*common, name, value) for name, value in sorted(metrics.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))
