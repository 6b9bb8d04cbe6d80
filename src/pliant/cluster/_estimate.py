"""What jobs take, before they are executed: hours and memory."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pliant.cluster._arithmetic import Work
from pliant.cluster._device import Device
from pliant.cluster._needs import Needs, needs_of
from pliant.cluster._plan import SweepJob
from pliant.results import MethodFolder
from pliant.training import choose_batching, due

_START = 10.0  # seconds in which a job loads its data and compiles its programs
_COPIES = 2  # of the state of a learner: before and after an update
_HOST_COPIES = 2  # and those that become a checkpoint


class Estimate(NamedTuple):
    """What a job takes."""

    seconds: float
    """For the tasks that are left."""
    memory: int
    """Bytes on the device; on the CPU with those for checkpoints, and without those of the process itself, 0.5 GiB."""
    is_measured: bool
    """Whether the time is that of tasks of the same run that were trained before."""


def estimate(jobs: Sequence[SweepJob], device: Device) -> list[Estimate]:
    """What jobs take on a device.

    Where the same method of the same run has finished tasks, their time counts. Otherwise the arithmetic of updates,
    evaluations and diagnostics is counted, and divided by the speed of the device.

    Args:
      jobs: planned.
      device: what each is executed on.

    Returns:
      An estimate for each job; nothing for those that are done.
    """
    needs: dict[int, Needs] = {}
    found = []
    for job in jobs:
        method = job.method
        if job.state == "done":
            found.append(Estimate(0.0, 0, False))
            continue
        if id(method) not in needs:
            needs[id(method)] = needs_of(method, job.job.config)
        of_seed, slots = needs[id(method)], len(job.block.seeds) * len(method.points)
        measured = measured_seconds(job)
        seconds = _task_seconds(of_seed, job, device, slots) if measured is None else measured
        left = job.tasks - job.tasks_done
        is_together = device.cores is None or choose_batching(method.network, "cpu") == "vmap"
        lanes = slots if is_together else min(slots, device.cores or 1)
        copies = _COPIES if device.cores is None else _COPIES + _HOST_COPIES
        memory = slots * of_seed.state * copies + lanes * of_seed.activations + of_seed.data
        found.append(Estimate(left * seconds + _START, memory, measured is not None))
    return found


def measured_seconds(job: SweepJob) -> float | None:
    """Seconds of a task of a job, by the tasks that its run has finished with any seeds; None without."""
    folder = job.path / "methods" / job.method.method.name
    if not (folder / "config.json").exists():
        return None
    of_a_seed = [
        seconds / len(block.seeds) for block in MethodFolder(folder).blocks() for seconds in block.seconds().values()
    ]
    return statistics.median(of_a_seed) * len(job.block.seeds) if of_a_seed else None


def _task_seconds(needs: Needs, job: SweepJob, device: Device, slots: int) -> float:
    """Seconds of an average task, by its arithmetic."""
    source, config = job.method.source, job.job.config
    updates = sum(map(source.num_updates, range(job.tasks))) / job.tasks
    evaluations = 1 if source.points is None else len(source.points(0)) + 1
    parts = [(updates, needs.update), (evaluations, needs.evaluation)]
    for diagnostic, work in needs.diagnoses:
        times = sum(due(diagnostic, task, job.tasks, config.diagnose_after) for task in range(1, job.tasks + 1))
        parts.append((times / job.tasks, work))
    return sum(times * _seconds_of(work, device, slots) for times, work in parts)


def _seconds_of(work: Work, device: Device, slots: int) -> float:
    of_one = work.products / device.products + work.elements / device.elements
    if device.cores is None:
        return max(slots * of_one, work.kernels * device.start)
    return math.ceil(slots / min(slots, device.cores)) * of_one
