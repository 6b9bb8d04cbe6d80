"""Diagnostics of a finished or interrupted run, from its checkpoints."""

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pliant.diagnostics import choose, one_blas_thread
from pliant.errors import UserError
from pliant.methods import as_arrays, build
from pliant.results import MethodFolder, RunFolder, SeedBlock
from pliant.specs import users_code
from pliant.training._checkpoint import Checkpoints
from pliant.training._diagnose import summarize_slots, unmeasurable
from pliant.training._learner import make_learner
from pliant.training._observe import Observed, Shared, views_of
from pliant.training._plan import MethodPlan, Plan
from pliant.training._run import slots
from pliant.types import Diagnostic


class Diagnosis(NamedTuple):
    """What diagnostics found in one method's networks."""

    label: str
    """The method, with the point of the grid if there is one."""
    task: int
    """Counted from 1."""
    numbers: Mapping[str, Mapping[str, float]]
    """By diagnostic and metric; means over the seeds in which there is a number."""
    reasons: Mapping[str, str]
    """Why others were not measured."""


def diagnose_plan(
    folder: RunFolder, plan: Plan, task: int | None, diagnostics: Sequence[str | Diagnostic]
) -> list[Diagnosis]:
    """Measures the networks of a run as they were at the end of a task, from its checkpoints.

    Args:
      folder: of the run.
      plan: of the methods to look at, as the run was made with it.
      task: counted from 1; by default the last of each method that has a checkpoint.
      diagnostics: names, sets, files and names, or objects.

    Returns:
      What was found, by method and point of the grid; without methods that have no checkpoint yet.

    Raises:
      UserError: if there is no such checkpoint.
    """
    chosen = choose(diagnostics)
    found = []
    with one_blas_thread(), contextlib.ExitStack() as stack:
        opened = [
            (method, stack.enter_context(folder.open_method(method.method.name, method.configuration)))
            for method in plan.methods
        ]
        for method, blocks, of_method in _tasks(folder, opened, task):
            with users_code({**plan.specs, **method.specs, "diagnostic": diagnostics}):
                parts = [_diagnose_block(block, plan, method, of_method, chosen) for block in blocks]
            for point, label in enumerate(method.labels):
                numbers = [each for part in parts for each in part.numbers[point]]
                found.append(Diagnosis(label, of_method, _means(numbers), parts[0].reasons))
    return found


def _tasks(
    folder: RunFolder, methods: Sequence[tuple[MethodPlan, MethodFolder]], task: int | None
) -> list[tuple[MethodPlan, list[SeedBlock], int]]:
    """Which task of each method is looked at, with the blocks of its seeds: known before anything is measured."""
    found = []
    for method, opened in methods:
        blocks = opened.blocks()
        kept = sorted(set.intersection(*map(_kept, blocks))) if blocks else []
        if task is not None and task not in kept:
            raise UserError(
                got=f"no checkpoint of {method.method.name} after task {task}",
                wanted=f"one of {', '.join(map(str, kept))}" if kept else "at least one finished task",
                do=f"Choose another --task of {folder.path}; runs with --checkpoints all keep one of every task.",
            )
        if kept:
            found.append((method, blocks, task or kept[-1]))
    if not found:
        raise UserError(
            got=f"{folder.path}, in which no task is finished",
            wanted="at least one finished task",
            do="Start the run again with the same command.",
        )
    return found


def _kept(block: SeedBlock) -> set[int]:
    """The tasks of which a block of seeds has a checkpoint."""
    with _checkpoints(block) as checkpoints:
        return set(checkpoints.kept())


def _checkpoints(block: SeedBlock) -> Checkpoints:
    return Checkpoints(block.checkpoints, sys.maxsize, keep="all")


class _OfBlock(NamedTuple):
    """What was found in a block of seeds."""

    numbers: Sequence[Sequence[Mapping[str, Mapping[str, float]]]]
    """By point of the grid and seed."""
    reasons: Mapping[str, str]


def _diagnose_block(
    block: SeedBlock, plan: Plan, method: MethodPlan, task: int, chosen: Sequence[Diagnostic]
) -> _OfBlock:
    with _checkpoints(block) as checkpoints:
        return _diagnose_checkpoints(checkpoints, block, plan, method, task, chosen)


def _diagnose_checkpoints(
    checkpoints: Checkpoints,
    block: SeedBlock,
    plan: Plan,
    method: MethodPlan,
    task: int,
    chosen: Sequence[Diagnostic],
) -> _OfBlock:
    protocol, source, index = plan.protocol, method.source, task - 1
    has_previous = task == 1 or task - 1 in checkpoints.kept()
    reasons = _reasons(plan, method, chosen, has_previous=has_previous)
    following = [each for each in method.diagnostics if each.init]  # their states are in the checkpoints
    measured = tuple(each for each in chosen if each.name not in reasons)
    names = {each.name for each in measured}
    method = method._replace(diagnostics=(*measured, *(each for each in following if each.name not in names)))
    seeds, own = slots(block.seeds, method)
    learner = make_learner(method, len(seeds), protocol=protocol)
    axis, look = learner.axis, learner.observers.look
    shared = Shared(axis.share(as_arrays(method.traced)), axis.share(source.data), source.facts(index), np.int32(index))
    initial, slot = learner.init(axis.put((seeds, own)), shared._replace(facts=source.facts(0)))
    first = learner.make_task(slot, np.int32(0))
    state = learner.init_source((slot, first), shared._replace(facts=source.facts(0))) if learner.init_source else ()
    carry_like, state_like = axis.get((initial, state))
    carry, state = axis.put(checkpoints.restore(carry_like, state_like, task))
    at_start = at_previous = look(initial.learner, slot, shared.traced)
    if task > 1 and has_previous:
        before, _ = axis.put(checkpoints.restore(carry_like, state_like, task - 1))
        at_previous = look(before.learner, slot, shared.traced)
    now = look(carry.learner, slot, shared.traced)
    observed = Observed(now, slot, state, learner.make_task(slot, np.int32(index)))
    found: dict[str, Any] = {}
    for group in learner.observers.groups:
        if names & {each.name for each in group.diagnostics}:
            views = views_of(group.diagnostics, now, at_start, at_previous, carry.followed)
            found |= group.program(observed._replace(views=views), shared)
    numbers, arrays = summarize_slots(measured, axis.get(found), len(seeds))
    block.record_arrays(task, arrays)
    size = len(block.seeds)
    return _OfBlock([numbers[point * size : (point + 1) * size] for point in range(len(method.points))], reasons)


def _reasons(plan: Plan, method: MethodPlan, chosen: Sequence[Diagnostic], *, has_previous: bool) -> dict[str, str]:
    """Why diagnostics are left out."""
    followed = {each.name for each in method.diagnostics if each.init}
    reasons = {}
    for each in chosen:
        if each.measure is None:
            reasons[each.name] = "follows training; measured by `pliant run --diagnostics`"
        elif "followed" in each.needs and each.name not in followed:
            reasons[each.name] = f"needs a run with --diagnostics {each.name}"
        elif "previous" in each.needs and not has_previous:
            reasons[each.name] = "needs the checkpoint of the task before: a run with --checkpoints all"
    parts = functools.partial(build, method.method, method.network.wiring, method.static | method.traced)
    rest = [each for each in chosen if each.name not in reasons]
    return reasons | unmeasurable(rest, method.network, parts, method.source, plan.protocol.batch_size)


def _means(numbers: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Over seeds, of what is a number."""
    return {
        name: {metric: _mean([of_seed[name][metric] for of_seed in numbers]) for metric in metrics}
        for name, metrics in numbers[0].items()
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
