"""Honest timing: compile first, alternate the candidates, medians; results as JSON."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def options(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=9, help="rounds; the median is reported")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    return parser


def arguments(description: str) -> argparse.Namespace:
    """What was chosen, for a benchmark without options of its own."""
    return options(description).parse_args()


def alternate(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate. All run once a round, so a slow minute of the machine slows all of them."""
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def report(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Prints rows as a table and writes them as JSON."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    if path is not None:
        path.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=2))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
