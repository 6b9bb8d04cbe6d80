"""What every method costs a step, against Adam on the same network.

    python benchmarks/method_overhead.py
    python benchmarks/method_overhead.py --methods redo snr

The time of the whole training step relative to plain Adam's, on digits with random labels, for two jobs: a small one
(256 × 4 units, batches of 32), where a step is so short that whatever passes over the weights counts, and one as
published (512 × 4 units, batches of 256; Rosseau et al. 2026). Periodic work runs at its default period; what a method
does when the task changes is not in it. Goal: at most 1.25, but for methods that orthogonalise or estimate spectra at
every step.
"""

import functools
from typing import NamedTuple

import jax

from _learner import chunk
from _timing import alternate, options, report
from pliant import _xla
from pliant.diagnostics import one_blas_thread
from pliant.methods import METHODS
from pliant.networks import mlp
from pliant.streams import load_dataset, random_labels

SEEDS = 2
MEASURED = [name for name, method in METHODS.items() if not (method.targets or method.replaces)]


class Job(NamedTuple):
    """What is trained, and how many steps make a timed call."""

    width: int
    batch_size: int
    steps: int


JOBS = {"small": Job(256, 32, 500), "published": Job(512, 256, 50)}


def ratio(name: str, job: Job, repeats: int) -> float:
    """Seconds of a method over those of Adam."""
    jax.clear_caches()
    stream = random_labels(load_dataset("digits"))
    network = functools.partial(mlp, widths=(job.width,) * 4)
    common = {"network": network, "batch_size": job.batch_size, "num_seeds": SEEDS, "num_steps": job.steps}
    seconds = alternate({each: chunk(stream, each, **common) for each in ("adam", name)}, repeats)
    return seconds[name] / seconds["adam"]


def measure(names: list[str], repeats: int) -> list[dict[str, object]]:
    rows = [{"method": name} | {title: ratio(name, job, repeats) for title, job in JOBS.items()} for name in names]
    return sorted(rows, key=lambda row: float(row["small"]))


if __name__ == "__main__":
    _xla.use_every_core()
    parser = options(__doc__ or "")
    parser.add_argument("--methods", nargs="+", choices=MEASURED, default=MEASURED)
    chosen = parser.parse_args()
    with one_blas_thread():  # as `pliant run` does: a new draw of a network has QR decompositions in it
        rows = measure(chosen.methods, chosen.repeats)
    report(rows, chosen.json)
