"""How wrong the estimates of `pliant sweep --dry-run` are: memory of processes, and hours of finished runs.

    python benchmarks/estimates.py                                          # memory
    python benchmarks/estimates.py --experiments survey lyle/width          # hours of their runs in runs/experiments

Memory is the largest resident set of a process that trains a few updates, less that of one that trains next to nothing.
Hours are compared with arithmetic alone, on the speed that this machine has now: a ratio above 1 is measured to be
slower than estimated, which another load of the machine shifts as a whole.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _timing import options, report
from pliant import cluster, problems
from pliant.experiments import RUNS, SCALES, Scale
from pliant.supervised import RunConfig
from pliant.training import train

GIB = 2**30
CASES: dict[str, dict[str, Any]] = {
    "next to nothing": {"widths": (8,), "seeds": 1},
    "MLP, 2 × 1,024 units, 32 seeds": {"widths": (1024, 1024), "seeds": 32},
    "MLP, 4 × 512 units, 64 seeds": {"widths": (512,) * 4, "seeds": 64},
    "CNN, 8 channels, 8 seeds": {"network": "cnn", "widths": (64,), "settings": ("cnn.channels=8,8,8",), "seeds": 8},
}
"""Three updates on digits, which every machine has, with batches of 128."""


def config(case: str) -> RunConfig:
    """The run of a case."""
    rest = {"methods": ("adam",), "tasks": 1, "steps": 3, "batch_size": 128, "diagnostics": ("weight-norm",)}
    return RunConfig(stream="random-labels", **rest, **CASES[case])


def resident(case: str) -> float:
    """GiB of a process that trains a case, at most."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([sys.executable, __file__, "--train", case, "--runs", folder])
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"Training {case!r} has failed.")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def memory(cases: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each case."""
    nothing, *rest = CASES
    of_nothing, rows = resident(nothing), []
    for case in cases or rest:
        ((run,), _) = cluster.plan_runs([cluster.Wanted(case, config(case))])
        (expected,) = cluster.estimate(run.jobs, cluster.cpu_device(1))
        measured = resident(case) - of_nothing
        rows.append({"run": case, "estimated, GiB": expected.memory / GIB, "measured, GiB": measured})
    return rows


def hours(experiment: str, scale: Scale, runs: Path) -> list[dict[str, Any]]:
    """A row for each run of an experiment that has finished tasks."""
    device, rows = cluster.cpu_device(1), []
    planned, _ = cluster.plan_runs(cluster.wanted_of(experiment, scale, runs, os.environ.get("PLIANT_DATA")))
    for run in planned:
        ratios = []
        for job in run.jobs:
            if (measured := cluster.measured_seconds(job)) is not None:
                anew = job._replace(path=Path("nowhere"), tasks_done=0, state="to do")
                ratios.append(measured * job.tasks / cluster.estimate([anew], device)[0].seconds)
        if ratios:
            spread = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
            rows.append({"run": run.name, "jobs": len(ratios), **spread})
    return rows


def main() -> None:
    """Prints the table."""
    parser = options("Estimates of sweeps against what was measured.")
    parser.add_argument("--experiments", nargs="*", default=(), help="whose finished runs; without, memory is measured")
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="of these runs")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), help="for memory; by default all")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of run folders")
    parser.add_argument("--train", choices=list(CASES), help="train a case in --runs, and nothing else")
    chosen = parser.parse_args()
    if chosen.train:
        train(problems.make_plan(config(chosen.train)), chosen.runs / "run")
        return
    if not chosen.experiments:
        report(memory(chosen.cases), chosen.json)
        return
    rows = [row for each in chosen.experiments for row in hours(each, chosen.scale, chosen.runs)]
    if not rows:
        raise SystemExit(
            f"got no finished task in {chosen.runs}; wanted runs of {', '.join(chosen.experiments)}. Run them."
        )
    report(rows, chosen.json)


if __name__ == "__main__":
    main()
