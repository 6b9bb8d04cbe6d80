"""A grid of learning rates × strengths × seeds of AdamO as one compiled program, against the loop over runs.

    python benchmarks/grid.py

3 × 3 points with four seeds each, random labels on digits, 64 units × 3, three tasks of five epochs. Both write run
folders and compile from nothing; the loop starts a run for every point, as `--set` would. Also printed: the largest
difference of any training accuracy between the two, which rounding makes nonzero.
"""

import itertools
import tempfile
import time
from pathlib import Path

import jax

from _timing import arguments, report
from pliant.supervised import RunConfig, run
from pliant.xla import guard

RATES, STRENGTHS = ("3e-4", "1e-3", "3e-3"), ("0.01", "0.1", "1.0")
COMMON = {"methods": ("adamo",), "tasks": 3, "epochs": 5, "seeds": 4, "widths": (64, 64, 64)}


def measure(folder: Path) -> list[dict[str, object]]:
    jax.clear_caches()
    start = time.perf_counter()
    axes = (f"adamo.learning_rate={','.join(RATES)}", f"adamo.isometry_strength={','.join(STRENGTHS)}")
    together = run(RunConfig(**COMMON, grid=axes), folder / "grid").metrics
    seconds = {"one program": time.perf_counter() - start}
    differences = []
    start = time.perf_counter()
    for rate, strength in itertools.product(RATES, STRENGTHS):
        jax.clear_caches()
        settings = (f"adamo.learning_rate={rate}", f"adamo.isometry_strength={strength}")
        alone = run(RunConfig(**COMMON, settings=settings), folder / f"{rate}-{strength}").metrics
        label = f"adamo[learning_rate={float(rate)},isometry_strength={float(strength)}]"
        ours = together[together["method"] == label].reset_index(drop=True)
        of_accuracy = alone["metric"] == "train_accuracy"
        differences.append((ours["value"] - alone["value"])[of_accuracy].abs().max())
    seconds["loop over runs"] = time.perf_counter() - start
    return [
        {
            "": name,
            "seconds": value,
            "speed-up": seconds["loop over runs"] / value,
            "largest difference": max(differences),
        }
        for name, value in seconds.items()
    ]


if __name__ == "__main__":
    guard.use_every_core()
    chosen = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as out:
        report(measure(Path(out)), chosen.json)
