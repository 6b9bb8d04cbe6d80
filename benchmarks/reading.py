"""Seconds and memory of reading a run with many metrics: `pliant show`, `pliant plot`, the summary, and all of it.

    python benchmarks/reading.py                # 10,240,000 rows: 5 methods × 64 seeds × 2,000 tasks × 16 metrics
    python benchmarks/reading.py --tasks 20

The run folder is made of random numbers. Every reader is a process of its own; its memory is the peak of that process,
of which importing takes a part: see the row "nothing".
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from _timing import report
from pliant.results import COLUMNS, RunFolder, RunRecord

METRICS = (
    *("train_accuracy", "online_accuracy", "loss", "diverged", "dormant_fraction", "dormant_exact_fraction"),
    *("effective_rank", "effective_rank/hidden_0", "isometry_deviation", "isometry_deviation/hidden_1", "weight_norm"),
    *("gradient_norm", "update_norm", "distance_from_init", "test_accuracy", "stable_rank"),
)
TEXTS = {"problem": "random-labels", "network": "mlp", "dataset": "digits"}
METHODS = ("adam", "l2-init", "redo", "adamo", "adamo-maxmin")
READERS = {
    "nothing": "pass",
    "pliant show": "from pliant.cli import main; main(['show', {path!r}])",
    "pliant show --baseline adam": "from pliant.cli import main; main(['show', {path!r}, '--baseline', 'adam'])",
    "pliant plot": "from pliant.cli import main; main(['plot', {path!r}])",
    "summary.csv": "from pliant.results import RunFolder; RunFolder({path!r}).write_summary()",
    "RunFolder.metrics": "from pliant.results import RunFolder; RunFolder({path!r}).metrics",
}


def make(path: Path, tasks: int, seeds: int) -> int:
    """Makes a run folder of random numbers, and returns its number of rows."""
    draw = np.random.default_rng(0)
    folder = RunFolder.begin(path, RunRecord("random-labels on digits, mlp", "train_accuracy", 0.1, {}))
    names = np.tile(np.sort(METRICS), seeds)
    for name in METHODS:
        with folder.open_method(name, {}) as method:
            (block,) = method.blocks(seeds)
            for task in range(1, tasks + 1):
                numbers = {"seed": np.repeat(np.arange(seeds), len(METRICS)), "task": task, "step": 1000 * task}
                table = {**TEXTS, "method": name, **numbers, "metric": names}
                table["value"] = np.where(names == "diverged", 0.0, draw.random(len(names)))
                block.record_task(task, pd.DataFrame(table)[list(COLUMNS)], seconds=1.0)
    return tasks * len(names) * len(METHODS)


def measure(code: str) -> tuple[float, float, float]:
    """Seconds and CPU-seconds of some code, after imports, and the peak memory of its process in MB."""
    timed = f"""
import time
import pliant.cli, pliant.results
start, cpu = time.perf_counter(), time.process_time()
{code}
print()
print(time.perf_counter() - start, time.process_time() - cpu)
"""
    process = subprocess.Popen([sys.executable, "-c", timed], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    *_, seconds, cpu_seconds = process.stdout.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"this failed: {code}")
    return float(seconds), float(cpu_seconds), usage.ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--run", type=Path, help="where the run folder is made and kept, or is already")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        path = chosen.run or Path(out) / "run"
        if not path.exists():
            print(f"{make(path, chosen.tasks, chosen.seeds):,} rows")
        rows = []
        for name, code in READERS.items():
            seconds, cpu_seconds, memory = measure(code.format(path=str(path)))
            rows.append({"reader": name, "seconds": seconds, "CPU-seconds": cpu_seconds, "MB": memory})
        report(rows, chosen.json)
