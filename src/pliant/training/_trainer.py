"""One method's learning with a block of seeds: its state between tasks, and how it learns the next one."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from pliant.methods import View, as_arrays
from pliant.training._checkpoint import Checkpoints
from pliant.training._chunk import Pace
from pliant.training._curve import Point, points_of
from pliant.training._diagnose import Views, due
from pliant.training._learner import Begun, make_learner
from pliant.training._memory import require_memory
from pliant.training._observe import Group, Observed, Shared
from pliant.training._plan import MethodPlan
from pliant.training._protocol import Protocol
from pliant.training._rates import rates, sampled_weights
from pliant.training._sums import Sums
from pliant.types import Diagnostic, State

_CHUNK = 128  # updates at most in a compiled call: long against its overhead, short against a user's patience


class Findings(NamedTuple):
    """What diagnostics found at one moment, with a slot axis, on the host."""

    measured: Mapping[str, Any]
    diagnostics: Sequence[Diagnostic]
    """Those that were measured."""


class Learned(NamedTuple):
    """A task that has been learned, with a slot axis, on the host but for the learner."""

    task_index: int
    """Counted from 0."""
    num_updates: int
    """Of the run, to the end of the task."""
    numbers: Mapping[str, np.ndarray]
    scored: Any
    at_start: Findings
    """Before the first update."""
    at_end: Findings
    curve: Sequence[Point]
    """Empty if the source has none. The last point has the scores of the task."""
    carry: Callable[[], tuple[Any, Any]]
    """Fetches what goes into the checkpoint."""


class Trainer:
    """A learner in every slot, and the state of its source."""

    def __init__(
        self,
        protocol: Protocol,
        method: MethodPlan,
        seeds: Sequence[int],
        reused: dict[Any, Any],
        log: Callable[[str], None] = lambda _: None,
    ):
        """Initialises the learner of every slot; programs and data in `reused` are not made again.

        Raises:
          UserError: if the source's state does not fit into memory; how much it takes is logged before it is made.
        """
        self._protocol, self._method, self._seeds = protocol, method, seeds
        of_slot, own = _slots(seeds, method)
        self._place = np.tile(np.arange(len(seeds)), len(method.points))  # of each slot's seed among the seeds
        self._learner = make_learner(
            method,
            len(of_slot),
            batching="map" if method.source.one_by_one else None,
            protocol=protocol,
            programs=reused,
        )
        axis, source = self._learner.axis, method.source
        place = "data", id(source.data), axis.mesh
        if place not in reused:
            reused[place] = axis.share(source.data)
        self._shared = Shared(
            axis.share(as_arrays(method.traced)), reused[place], source.facts(0), np.int32(0)
        )._replace(numbers=axis.share(as_arrays(source.numbers)))
        self._carry, self._slot = self._learner.init(axis.put((of_slot, own)), self._shared)
        self._initial = self._look() if self._compares_with("initial") else None
        self._previous = self._look() if self._compares_with("previous") else None
        self._source_state: State = ()
        if self._learner.init_source:
            given = self._begun(np.int32(0)), self._shared
            shapes = jax.eval_shape(self._learner.init_source, *given)
            require_memory(source.name, shapes, axis.num_slots, axis.mesh.devices.reshape(-1), log)
            self._source_state = self._learner.init_source(*given)
        self._chunk = _Chunk()
        self._updates = [0]

    def restore(self, checkpoints: Checkpoints, task: int | None = None) -> None:
        """Goes back to the end of a task, counted from 1, and of the newest by default, to train on.

        With `task`, what was before it is the network of the task before, if that has a checkpoint.
        """
        axis, carried = self._learner.axis, (self._carry, self._source_state)
        carry, source_state = axis.like(carried)
        self._source_state = jax.tree.map(lambda leaf: leaf[:0], self._source_state)  # a replay would be there twice
        carried = (self._carry, self._source_state)
        if task is not None and task - 1 in checkpoints.kept() and self._compares_with("previous"):
            self._carry, _ = axis.put_like(checkpoints.restore(carry, source_state, task - 1), carried)
            self._previous = self._look()
        self._carry, self._source_state = axis.put_like(checkpoints.restore(carry, source_state, task), carried)
        if task is None and self._compares_with("previous"):
            self._previous = self._look()

    def learn(self, index: int, progress: Callable[[float, float], None]) -> Learned:
        """Trains on a task and observes what was learned."""
        learner, axis, source = self._learner, self._learner.axis, self._method.source
        shared = self._shared._replace(facts=source.facts(index), index=np.int32(index))
        told: dict[str, np.ndarray] = {}
        if index and _switches(self._protocol, self._method):
            self._carry, info = learner.switch((self._carry, self._slot), shared)
            told = axis.get(info)
        begun = self._begun(shared.index)
        if index and learner.switch_source:
            (self._source_state,) = learner.switch_source((self._source_state, begun), shared)
        at_start = self._measured("start", index, begun.task, shared)
        numbers, curve = self._train(index, begun.task, shared, progress)
        observed = self._observed(begun.task)
        scored = axis.get(learner.observers.evaluate(observed, shared))
        at_end = self._measured("end", index, begun.task, shared, observed)
        if self._compares_with("previous"):
            self._previous = observed.views
        kept = (self._carry, axis.get(self._source_state))  # the latter is donated to the next chunk
        if curve:
            curve[-1] = curve[-1]._replace(scored=scored)
        done = self._updates_before(index + 1)
        return Learned(index, done, numbers | told, scored, at_start, at_end, curve, lambda: axis.get(kept))

    def measure(self, index: int) -> dict[str, Any]:
        """What all diagnostics find at the end of a task, with a slot axis, on the host."""
        shared = self._shared._replace(facts=self._method.source.facts(index), index=np.int32(index))
        observed = self._observed(self._begun(shared.index).task)
        return dict(self._found(self._learner.observers.groups, observed, shared).measured)

    def _begun(self, index: Any) -> Begun:
        return Begun(self._carry, self._slot, self._learner.make_task(self._slot, index))

    def _updates_before(self, index: int) -> int:
        """Updates of all tasks before one; each task is asked for its own once, so that no task takes longer."""
        for task in range(len(self._updates) - 1, index):
            self._updates.append(self._updates[task] + self._method.source.num_updates(task))
        return self._updates[index]

    def _look(self) -> View:
        return self._learner.observers.look(self._carry.learner, self._slot, self._shared.traced)

    def _observed(self, task: Any) -> Observed:
        return Observed(self._look(), self._slot, self._source_state, task)

    def _compares_with(self, moment: str) -> bool:
        """Whether a diagnostic compares with an earlier network, which is kept for it."""
        return any(moment in each.needs for each in self._method.diagnostics)

    def _measured(
        self, moment: Literal["start", "end"], index: int, task: Any, shared: Shared, observed: Observed | None = None
    ) -> Findings:
        """What the diagnostics find that are due at a moment of a task; of a group all are due, or none.

        `observed` is what they look at, if that is known; else it is made if any is due.
        """
        protocol = self._protocol
        groups = [
            group
            for group in self._learner.observers.groups
            if (first := group.diagnostics[0]).moment == moment
            and due(first, index + 1, protocol.tasks, protocol.diagnose_after)
        ]
        if not groups:
            return Findings({}, ())
        return self._found(groups, self._observed(task) if observed is None else observed, shared)

    def _found(self, groups: Sequence[Group], observed: Observed, shared: Shared) -> Findings:
        """What groups of diagnostics find now."""
        views = Views(observed.views, self._initial, self._previous, self._carry.followed)
        measured: dict[str, Any] = {}
        for group in groups:
            measured |= group.program(observed._replace(views=views), shared)
        return Findings(self._learner.axis.get(measured), [each for group in groups for each in group.diagnostics])

    def _train(
        self, index: int, task: Any, shared: Shared, progress: Callable[[float, float], None]
    ) -> tuple[dict[str, np.ndarray], list[Point]]:
        """Trains on one task; returns its numbers, one entry a slot: means over updates, and sums of counts; and the
        points of its learning curve, of which the last is not evaluated yet.
        """
        learner, axis, source = self._learner, self._learner.axis, self._method.source
        total = source.num_updates(index)
        factors, weights = rates(self._protocol, total), sampled_weights(total)
        before = self._updates_before(index)
        selection = source.selection
        ends = selection.after(index) if selection else []
        best = learner.no_best(self._carry, ()) if selection else None
        points, curve = points_of(source, index), list[Point]()
        stops = {total, *ends, *points}
        sums, since_point = Sums(), Sums()
        start = last = 0
        while start < total:
            began, stop = time.perf_counter(), min(start + self._chunk.size, *(each for each in stops if each > start))
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
            self._source_state, self._carry, info = learner.train((self._source_state, begun), of_chunk)
            reported = axis.get(info)
            sums.add(reported, stop - start)
            if points:
                since_point.add(reported, stop - start)
            if best is not None and stop in ends:
                begun = begun._replace(carry=self._carry, fed=())
                best = learner.better((best, begun, self._source_state), shared)
            start = stop
            self._chunk.took(time.perf_counter() - began)
            progress(stop / total, sums.mean(source.progress, stop))
            if stop in points:
                scored = self._scored(task, shared, before + stop) if stop < total else None  # `learn` scores the end
                curve.append(Point(before + stop, since_point.numbers(stop - last), scored))
                since_point, last = Sums(), stop
        numbers = sums.numbers(total)
        if best is not None:
            assert selection is not None
            best_learner = self._carry.learner._replace(params=best.params, statistics=best.statistics)
            self._carry = self._carry._replace(learner=best_learner)
            numbers[selection.metric] = axis.get(best.score)
        return numbers, curve

    def _scored(self, task: Any, shared: Shared, step: int) -> Any:
        """What the source's evaluation returns at a point of a learning curve, on the host."""
        scored = self._learner.observers.evaluate(self._observed(task), shared._replace(point=np.int32(step)))
        return self._learner.axis.get(scored)


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


def _slots(seeds: Sequence[int], method: MethodPlan) -> tuple[Int[np.ndarray, " slot"], dict[str, np.ndarray]]:
    """The seed of every slot, and its values of what a grid varies: all seeds of the first point, then of the next."""
    of_slot = np.tile(np.array(seeds, np.int32), len(method.points))
    own = {
        name: np.repeat(np.stack([as_arrays(point)[name] for point in method.points]), len(seeds))
        for name in method.points[0]
    }
    return of_slot, own


def _switches(protocol: Protocol, method: MethodPlan) -> bool:
    """Whether anything is done to the learner when the task changes."""
    kept = (protocol.optimizer_at_switch, protocol.head_at_switch) == ("keep", "keep")
    return method.method.boundary_aware or not kept
