"""Time, memory, disk and files of a run with many tasks: none of them may grow faster than its metrics.

    python benchmarks/long_run.py                                  # 2,000 tasks × 64 seeds
    python benchmarks/long_run.py --tasks 200 --figure curves

The smallest job with the default diagnostics: random labels of 64 digits, a layer of 16 units, four updates a task, so
that what surrounds training takes most of the time. A row is a stretch of tasks: the mean time of a task; at its end,
memory of the process, size and number of files of the run, and the part of that which is metrics.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from _timing import report
from pliant.supervised import RunConfig, run
from pliant.training import Progress
from pliant.xla import guard

JOB = {"methods": ("adam",), "train_size": 64, "batch_size": 16, "widths": (16,), "epochs": 1, "probe_size": 64}


def sizes(folder: Path, pattern: str) -> tuple[int, int]:
    """Bytes and number of the files of a folder."""
    found = []
    for file in folder.glob(pattern):
        try:
            found.append(file.stat().st_size if file.is_file() else None)
        except FileNotFoundError:  # merged or replaced meanwhile
            continue
    known = [size for size in found if size is not None]
    return sum(known), len(known)


def measure(out: Path, tasks: int, seeds: int, rows: int) -> list[dict[str, Any]]:
    """Trains, and looks at the process and the folder after every stretch of tasks."""
    process, ends = psutil.Process(), [round(tasks * (place + 1) / rows) for place in range(rows)]
    found: list[dict[str, Any]] = []
    last_task, last_time, last_cpu = 0, time.perf_counter(), time.process_time()

    def look(progress: Progress) -> None:
        nonlocal last_task, last_time, last_cpu
        if progress.task_done < 1.0 or progress.task not in ends:
            return
        now, cpu = time.perf_counter(), time.process_time()
        of_all, num_files = sizes(out, "**/*")
        found.append(
            {
                "tasks": progress.task,
                "ms a task": 1e3 * (now - last_time) / (progress.task - last_task),
                "CPU-ms a task": 1e3 * (cpu - last_cpu) / (progress.task - last_task),
                "memory MB": process.memory_info().rss / 2**20,
                "disk MB": of_all / 2**20,
                "metrics MB": sizes(out, "**/*.parquet")[0] / 2**20,
                "files": num_files,
            }
        )
        last_task, last_time, last_cpu = progress.task, time.perf_counter(), time.process_time()

    run(RunConfig(seeds=seeds, tasks=tasks, **JOB), out, report=look)
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the curves of time and memory beside those of disk and files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    tasks = [row["tasks"] for row in rows]
    for axes, names in zip(
        figure.subplots(1, 4), (("CPU-ms a task",), ("memory MB",), ("disk MB", "metrics MB"), ("files",)), strict=True
    ):
        for name in names:
            axes.plot(tasks, [row[name] for row in rows], marker="o", markersize=3, label=name)
        axes.set(xlabel="tasks", ylim=(0, None), title=names[0])
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    guard.use_every_core()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--rows", type=int, default=10, help="stretches of tasks that are reported")
    parser.add_argument("--figure", type=Path, help="draw the curves into this PNG file")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        found = measure(Path(out), chosen.tasks, chosen.seeds, chosen.rows)
    report(found, chosen.json)
    if chosen.figure:
        draw(found, chosen.figure)
