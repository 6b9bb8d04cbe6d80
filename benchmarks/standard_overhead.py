"""What `--diagnostics standard` adds to whole runs, against `basic`, which runs have by default.

    python benchmarks/standard_overhead.py
    PLIANT_DATA=~/data python benchmarks/standard_overhead.py

Seconds of `pliant run` as a user starts it, with programs compiled before: on digits, and on MNIST where PLIANT_DATA
names a folder that has it. Goal: at most a tenth.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from _timing import alternate, arguments, report

RUNS = {
    "digits": "random-labels --methods adam adamo redo",
    "mnist": "permuted-pixels --dataset mnist --methods adam adamo --epochs 1 --tasks 3",
}
SETS = ("basic", "standard")


def command(run: str, diagnostics: str) -> Callable[[], None]:
    def start() -> None:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                sys.executable,
                "-m",
                "pliant",
                "run",
                *run.split(),
                "--diagnostics",
                diagnostics,
                "--out",
                str(Path(folder) / "run"),
            ]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return start


def measure(repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, run in RUNS.items():
        if name == "mnist" and "PLIANT_DATA" not in os.environ:
            continue
        seconds = alternate({diagnostics: command(run, diagnostics) for diagnostics in SETS}, repeats)
        rows.append({"run": name, **seconds, "ratio": seconds["standard"] / seconds["basic"]})
    return rows


if __name__ == "__main__":
    chosen = arguments(__doc__ or "")
    report(measure(chosen.repeats), chosen.json)
