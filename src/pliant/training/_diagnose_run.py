"""Diagnostics of a finished or interrupted run, from its checkpoints."""

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pliant.diagnostics import choose, one_blas_thread
from pliant.errors import UserError
from pliant.results import MethodFolder, RunFolder, SeedBlock
from pliant.specs import users_code
from pliant.training._checkpoint import Checkpoints
from pliant.training._diagnose import summarize_slots, unmeasurable
from pliant.training._plan import MethodPlan, Plan
from pliant.training._trainer import Trainer
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
    has_previous = task == 1 or task - 1 in checkpoints.kept()
    reasons = _reasons(plan, method, chosen, has_previous=has_previous)
    followed = {each.name for each in method.diagnostics if each.init}
    measured = tuple(
        each if each.name in followed else each._replace(init=None, follow=None)  # their states are in no checkpoint
        for each in chosen
        if each.name not in reasons
    )
    names = {each.name for each in measured}
    unasked = tuple(each._replace(measure=None) for each in method.diagnostics if each.init and each.name not in names)
    trainer = Trainer(plan.protocol, method._replace(diagnostics=(*measured, *unasked)), block.seeds, {})
    trainer.restore(checkpoints, task)
    size = len(block.seeds)
    numbers, arrays = summarize_slots(measured, trainer.measure(task - 1), size * len(method.points))
    block.record_arrays(task, arrays)
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
    rest = [each for each in chosen if each.name not in reasons]
    parts = functools.partial(method.parts, {})
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
