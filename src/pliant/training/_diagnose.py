"""Diagnostics of a run: what they look at, which can be measured, and when."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from pliant.diagnostics import DIAGNOSTICS, failure, measure, summarize
from pliant.methods import Parts
from pliant.training._step import SeedKeys, TrainState, init_state, seed_keys
from pliant.types import Batch, Diagnostic, Key, Measured, Network, Params, Rule, State, Stream, Subject

_PROBE_SEED = 0  # the probe examples are the same for all seeds, tasks and methods
ALWAYS = ("cheap", "spectral")  # classes that are measured after every task


def followed(names: Sequence[str]) -> tuple[Diagnostic, ...]:
    """Those that look at every update."""
    return tuple(DIAGNOSTICS[name] for name in names if DIAGNOSTICS[name].follow)


def has_twin(names: Sequence[str]) -> bool:
    """Whether training has to carry a Brownian twin."""
    return any("twin" in DIAGNOSTICS[name].needs for name in names)


def due(name: str, task: int, num_tasks: int, diagnose_after: Sequence[int] = ()) -> bool:
    """Whether a diagnostic is measured at the end of a task.

    Cheap and spectral ones always are. The others are after the tasks in `diagnose_after`; without that, per-task ones
    after every task, and rare ones after tasks 1, 2, 5, 10, 20, 50, … and the last.

    Args:
      name: of the diagnostic.
      task: counted from 1.
      num_tasks: of the run.
      diagnose_after: tasks, counted from 1.

    Example:
      >>> [task for task in range(1, 31) if due("brownian-twin", task, 30)]
      [1, 2, 5, 10, 20, 30]
    """
    diagnostic = DIAGNOSTICS[name]
    if diagnostic.measure is None:
        return False
    if diagnostic.cost in ALWAYS:
        return True
    if diagnose_after:
        return task in diagnose_after
    digits = str(task).rstrip("0")
    return diagnostic.cost == "per-task" or digits in ("1", "2", "5") or task == num_tasks


def probe_indices(num_train: int, probe_size: int) -> Int[np.ndarray, " probe"]:
    """The fixed training examples that diagnostics look at: `probe_size` of them, or all."""
    order = np.random.default_rng(_PROBE_SEED).permutation(num_train)
    return np.sort(order[:probe_size]).astype(np.int32)


class View(NamedTuple):
    """What is measured of a learner: the network that the method reports."""

    params: Params
    state: State
    twin: Params = ()
    """See `TrainState`."""


def view(parts: Parts, state: TrainState) -> View:
    """The parameters and running statistics that a method is scored by."""
    if parts.intervention and parts.intervention.reported:
        return View(*parts.intervention.reported(state.learned(), state.intervention), state.twin)
    return View(state.params, state.statistics, state.twin)


def make_subject(
    network: Network,
    stream: Stream,
    views: tuple[View, View, View],
    key: Key,
    data: Any,
    task: Any,
    probe: Int[Array, " probe"],
    rule: Rule | None = None,
) -> Subject:
    """What diagnostics look at: a network on fixed training examples of a task.

    Args:
      network: with the method's changes.
      stream: the stream.
      views: of it: now, at the start of training, and at the end of the task before.
      key: for measurements.
      data: the stream's.
      task: the current one.
      probe: indices of the examples.
      rule: of training; for the diagnostics that need it.
    """

    def losses(output: Array, targets: Any) -> Array:
        return stream.objective.losses(output, targets, task)

    now, initial, previous = views
    batch: Batch = stream.train.batch(data, task, probe)
    before = (initial.params, initial.state), (previous.params, previous.state)
    return Subject(network, now.params, now.state, batch, losses, key, *before, rule, now.twin or None)


def summarize_slots(
    names: Sequence[str], measured: Mapping[str, Any], num_slots: int
) -> tuple[list[dict[str, Mapping[str, float]]], dict[str, np.ndarray]]:
    """Numbers of each slot by diagnostic and metric, and arrays by DIAGNOSTIC/ARRAY with a slot axis."""

    def of_slot(slot: int) -> dict[str, Measured]:
        return summarize(names, jax.tree.map(lambda leaf: np.asarray(leaf[slot]), dict(measured)))

    found = list(map(of_slot, range(num_slots)))
    numbers = [{name: each.numbers for name, each in of_one.items()} for of_one in found]
    arrays = [
        {f"{name}/{key}": array for name, each in of_one.items() for key, array in each.arrays.items()}
        for of_one in found
    ]
    return numbers, {name: np.stack([of_one[name] for of_one in arrays]) for name in arrays[0]}


def unmeasurable(
    names: Sequence[str], network: Network, parts: Callable[[], Parts], stream: Stream, probe_size: int, batch_size: int
) -> dict[str, str]:
    """Why diagnostics cannot measure a network on a stream; found by tracing them, nothing is computed."""
    reasons = {}

    def trace(probe: Array) -> None:
        keys: SeedKeys = seed_keys(0)
        state = init_state(network, parts(), keys.network, has_twin=has_twin(names))
        task = stream.task(keys.tasks, 0)
        made = parts()
        rule, seen = Rule(made.optimizer, batch_size), view(made, state)
        subject = make_subject(network, stream, (seen,) * 3, keys.probe, stream.data, task, probe, rule)
        for name in names:
            if DIAGNOSTICS[name].measure:
                reason = failure(functools.partial(measure, subject, [name]))
                reasons.update({} if reason is None else {name: reason})

    jax.eval_shape(trace, jax.ShapeDtypeStruct((probe_size,), np.int32))
    return reasons
