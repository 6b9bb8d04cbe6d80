"""Diagnostics of a finished or interrupted run, from its checkpoints."""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pliant.diagnostics import DIAGNOSTICS, choose, one_blas_thread
from pliant.errors import UserError
from pliant.methods import as_arrays, build, users_code
from pliant.results import RunFolder
from pliant.training._checkpoint import Checkpoints
from pliant.training._config import RunConfig
from pliant.training._diagnose import has_twin, probe_indices, summarize_slots, unmeasurable
from pliant.training._learner import make_learner
from pliant.training._plan import MethodPlan, Plan, make_plan, probe_size
from pliant.training._record import fingerprint, record
from pliant.training._run import slots


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


def diagnose_run(
    path: str | Path,
    task: int | None = None,
    diagnostics: str | Sequence[str] = ("full",),
    methods: str | Sequence[str] = (),
    data_dir: str | None = None,
) -> list[Diagnosis]:
    """Measures the networks of a run as they were at the end of a task, from its checkpoints.

    The spectra, matrices and curves go to the run's `arrays/`, beside those of the run itself; its metrics stay as they
    are. Numbers are those that the run would have recorded with the same diagnostics.

    Args:
      path: the run folder.
      task: counted from 1; by default the last of each method that has a checkpoint. Others than the last have one if
        the run was made with `checkpoints="all"`.
      diagnostics: names or sets. Those that compare with the task before want its checkpoint too.
      methods: names; by default all of the run.
      data_dir: see `pliant.streams.load_dataset`.

    Returns:
      What was found, by method and point of the grid; without methods that have no checkpoint yet.

    Raises:
      UserError: if the folder is no run, was made with other data or another version, or has no such checkpoint or
        method.
    """
    folder = RunFolder(path)
    diagnostics, methods = ((each,) if isinstance(each, str) else each for each in (diagnostics, methods))
    chosen = choose(diagnostics)
    plan = _plan(folder, data_dir)
    own = [method for method in plan.methods if not methods or method.method.name in methods]
    unknown = set(methods) - {method.method.name for method in own}
    if unknown:
        known = ", ".join(method.method.name for method in plan.methods)
        raise UserError(
            got=f"no method {unknown.pop()!r} in {path}", wanted=f"some of {known}", do="Leave --methods out for all."
        )
    found = []
    with (
        RunFolder.opened(folder.path, folder.configuration, fingerprint(folder.configuration)) as folder,
        one_blas_thread(),
    ):
        for method, of_method in _tasks(folder, own, task):
            kept = Checkpoints(folder.checkpoints(method.method.name), sys.maxsize, keep="all")
            with kept as checkpoints, users_code(method.source):
                found += _diagnose_method(checkpoints, folder, plan, method, of_method, chosen)
    return found


def _plan(folder: RunFolder, data_dir: str | None) -> Plan:
    """The plan that the run was made with, made again."""
    stored = folder.configuration["config"]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    known = {field.name for field in dataclasses.fields(RunConfig)}
    plan = make_plan(RunConfig(**values), data_dir) if set(values) == known else None
    if plan is None or fingerprint(record(plan)) != fingerprint(folder.configuration):
        raise UserError(
            got=f"{folder.path}, which was made with other data, another version or other files of yours",
            wanted="a run that this version would make in the same way",
            do="Give the --data-dir of the run, or diagnose it with the version that made it.",
        )
    return plan


def _tasks(folder: RunFolder, methods: Sequence[MethodPlan], task: int | None) -> list[tuple[MethodPlan, int]]:
    """Which task of each method is looked at: known before anything is measured."""
    found = []
    for method in methods:
        with Checkpoints(folder.checkpoints(method.method.name), sys.maxsize, keep="all") as checkpoints:
            kept = checkpoints.kept()
        if task is not None and task not in kept:
            raise UserError(
                got=f"no checkpoint of {method.method.name} after task {task}",
                wanted=f"one of {', '.join(map(str, kept))}" if kept else "at least one finished task",
                do=f"Choose another --task of {folder.path}; runs with --checkpoints all keep one of every task.",
            )
        if kept:
            found.append((method, task or kept[-1]))
    if not found:
        raise UserError(
            got=f"{folder.path}, in which no task is finished",
            wanted="at least one finished task",
            do="Start the run again with the same command.",
        )
    return found


def _diagnose_method(
    checkpoints: Checkpoints, folder: RunFolder, plan: Plan, method: MethodPlan, task: int, chosen: Sequence[str]
) -> list[Diagnosis]:
    config, stream, index = plan.config, method.stream, task - 1
    has_previous = task == 1 or task - 1 in checkpoints.kept()
    size = probe_size(config, plan.stream)
    reasons = _reasons(plan, method, chosen, has_previous=has_previous, probe_size=size)
    method = method._replace(diagnostics=tuple(name for name in chosen if name not in reasons))
    seeds, own = slots(config, method)
    learner = make_learner(method, len(seeds), config=config)
    axis = learner.axis
    traced = axis.share(as_arrays(method.traced))
    initial, slot = learner.init(axis.put((seeds, own)), traced)
    like = axis.get(initial)
    state = axis.put(checkpoints.restore(like, task))
    previous = axis.put(checkpoints.restore(like, task - 1)) if task > 1 and has_previous else initial
    item = (state, initial, previous), slot, learner.make_task(slot, np.int32(index))
    probe = probe_indices(stream.train.num(index), size)
    shared = (traced, axis.share(stream.data), probe, np.int32(index))
    measured: dict[str, Any] = {}
    for of_name in learner.measure.values():
        measured |= of_name(item, shared)
    numbers, arrays = summarize_slots(method.diagnostics, axis.get(measured), len(seeds))
    folder.record_arrays(method.method.name, task, arrays)
    return [
        Diagnosis(label, task, _means(numbers[point * config.seeds : (point + 1) * config.seeds]), reasons)
        for point, label in enumerate(method.labels)
    ]


def _reasons(
    plan: Plan, method: MethodPlan, chosen: Sequence[str], *, has_previous: bool, probe_size: int
) -> dict[str, str]:
    """Why diagnostics are left out."""
    reasons = {}
    for name in chosen:
        needs = DIAGNOSTICS[name].needs
        if DIAGNOSTICS[name].measure is None:
            reasons[name] = "follows training; measured by `pliant run --diagnostics`"
        elif "twin" in needs and not has_twin(choose(plan.config.diagnostics)):
            reasons[name] = f"needs a run with --diagnostics {name}"
        elif "previous" in needs and not has_previous:
            reasons[name] = "needs the checkpoint of the task before: a run with --checkpoints all"
    parts = functools.partial(build, method.method, method.network.wiring, method.static | method.traced)
    rest = [name for name in chosen if name not in reasons]
    return reasons | unmeasurable(rest, method.network, parts, method.stream, probe_size, plan.config.batch_size)


def _means(numbers: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Over seeds, of what is a number."""
    return {
        name: {metric: _mean([of_seed[name][metric] for of_seed in numbers]) for metric in metrics}
        for name, metrics in numbers[0].items()
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
