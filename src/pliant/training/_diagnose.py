"""Diagnostics of a run: what they look at, which can be measured, and when."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pliant.diagnostics import failure, measure, summarize
from pliant.keys import seed_keys
from pliant.methods import Parts, View, view
from pliant.training._state import init_carry
from pliant.types import Diagnostic, Key, Measured, Network, Rule, Scene, Source, State, Subject

ALWAYS = ("cheap", "spectral")  # classes that are measured after every task


def due(diagnostic: Diagnostic, task: int, num_tasks: int, diagnose_after: Sequence[int] = ()) -> bool:
    """Whether a diagnostic is measured at the end of a task.

    Cheap and spectral ones always are. The others are after the tasks in `diagnose_after`; without that, per-task ones
    after every task, and rare ones after tasks 1, 2, 5, 10, 20, 50, … and the last.

    Args:
      diagnostic: which.
      task: counted from 1.
      num_tasks: of the run.
      diagnose_after: tasks, counted from 1.

    Example:
      >>> from pliant.diagnostics import DIAGNOSTICS
      >>> [task for task in range(1, 31) if due(DIAGNOSTICS["brownian-twin"], task, 30)]
      [1, 2, 5, 10, 20, 30]
    """
    if diagnostic.measure is None:
        return False
    if diagnostic.cost in ALWAYS:
        return True
    if diagnose_after:
        return task in diagnose_after
    digits = str(task).rstrip("0")
    return diagnostic.cost == "per-task" or digits in ("1", "2", "5") or task == num_tasks


class Views(NamedTuple):
    """The networks that a subject is made of."""

    now: View
    initial: View | None
    """At the start of training; None if no diagnostic compares with it."""
    previous: View | None
    """At the end of the previous task; None if no diagnostic compares with it."""
    followed: Mapping[str, State]
    """By name, the states of the diagnostics that follow training."""


def make_subject(
    network: Network,
    source: Source,
    views: Views,
    key: Key,
    scene: Scene,
    source_state: State,
    rule: Rule | None = None,
) -> Subject:
    """What diagnostics look at: a network on fixed examples of a task.

    Args:
      network: with the method's changes.
      source: of the examples.
      views: the networks that it compares.
      key: for measurements.
      scene: for the source, in the task that is measured.
      source_state: at the end of that task.
      rule: of training; for the diagnostics that need it.
    """
    batch, task = source.probe(network, scene, source_state)

    def losses(output: Any, targets: Any) -> Any:
        return source.objective.losses(output, targets, task)

    now, initial, previous, followed = views
    coded = source.objective.coded
    return Subject(network, *now, batch, losses, key, initial, previous, rule, followed, source.output, coded)


def summarize_slots(
    diagnostics: Sequence[Diagnostic], measured: Mapping[str, Any], num_slots: int
) -> tuple[list[dict[str, Mapping[str, float]]], dict[str, np.ndarray]]:
    """Numbers of each slot by diagnostic and metric, and arrays by DIAGNOSTIC/ARRAY with a slot axis."""

    def of_slot(slot: int) -> dict[str, Measured]:
        return summarize(diagnostics, jax.tree.map(lambda leaf: np.asarray(leaf[slot]), dict(measured)))

    found = list(map(of_slot, range(num_slots)))
    numbers = [{name: each.numbers for name, each in of_one.items()} for of_one in found]
    arrays = [
        {f"{name}/{key}": array for name, each in of_one.items() for key, array in each.arrays.items()}
        for of_one in found
    ]
    return numbers, {name: np.stack([of_one[name] for of_one in arrays]) for name in arrays[0]}


def unmeasurable(
    diagnostics: Sequence[Diagnostic], network: Network, parts: Callable[[], Parts], source: Source, batch_size: int
) -> dict[str, str]:
    """Why diagnostics cannot measure a network on a source; found by tracing them, nothing is computed."""
    negative = f"the loss of {source.name} can be negative, so that a share of it says nothing"
    is_share = [each.name for each in diagnostics if each.measures_shares and source.objective.can_be_negative]
    reasons = dict.fromkeys(is_share, negative)

    def trace(facts: Any) -> None:
        subject = first_subject(network, parts(), source, diagnostics, batch_size, (source.data, facts, source.numbers))
        for each in diagnostics:
            if each.measure and each.name not in reasons:
                reason = failure(functools.partial(measure, subject, [each]))
                reasons.update({} if reason is None else {each.name: reason})

    jax.eval_shape(trace, source.facts(0))
    return reasons


def first_subject(
    network: Network, parts: Parts, source: Source, diagnostics: Sequence[Diagnostic], batch_size: int, given: Any
) -> Subject:
    """The network before the first update, for tracing what diagnostics do.

    Args:
      network: with the method's changes.
      parts: of the method.
      source: of the examples.
      diagnostics: those that follow training have their first states.
      batch_size: of training.
      given: the data of the source, its facts of the first task and its numbers.
    """
    data, facts, numbers = given
    keys = seed_keys(0)
    learner, followed = init_carry(network, parts, keys.network, diagnostics)
    scene = Scene(keys.noise, data, source.task(keys.tasks, 0), facts, numbers)
    source_state = source.init(network, scene, learner.learned()) if source.init else ()
    seen = view(parts, learner)
    rule = Rule(parts.optimizer, batch_size)
    return make_subject(network, source, Views(seen, seen, seen, followed), keys.probe, scene, source_state, rule)
