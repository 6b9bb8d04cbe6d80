"""What every method costs a step, against Adam on the same network.

    python benchmarks/method_overhead.py
    python benchmarks/method_overhead.py --job published
    python benchmarks/method_overhead.py --methods snr continual-backprop --steps 2000

Milliseconds a step and seed of the whole training step (digits with random labels), and the ratio to plain Adam's. The
job "small" has 256 × 4 units and batches of 32; "published" has 512 × 4, as the paper of AdamO, and batches of 256, as
our benchmarks of it: what is done to every weight is then spread over eight times as many examples. Timed are 500 and
128 steps from the start, or `--steps`: work with a longer period is not in it, nor what is done when the task changes.
Goal: at most 1.25, but for methods that orthogonalise or estimate spectra at every step.
"""

import functools
from typing import NamedTuple

import jax

from _learner import chunk
from _timing import alternate, options, report
from pliant.diagnostics import one_blas_thread
from pliant.methods import METHODS
from pliant.networks import mlp
from pliant.streams import load_dataset, random_labels
from pliant.xla import guard

SEEDS = 2


class Job(NamedTuple):
    """What is trained in one timed call."""

    width: int
    batch_size: int
    steps: int


JOBS = {"small": Job(256, 32, 500), "published": Job(512, 256, 128)}
MEASURED = [name for name, method in METHODS.items() if not (method.targets or method.replaces)]


def measure(names: list[str], job: Job, repeats: int) -> list[dict[str, object]]:
    stream = random_labels(load_dataset("digits"))
    network = functools.partial(mlp, widths=(job.width,) * 4)
    common = {"network": network, "batch_size": job.batch_size, "num_seeds": SEEDS, "num_steps": job.steps}
    rows = []
    for name in names:
        jax.clear_caches()
        candidates = {"adam": chunk(stream, "adam", **common), name: chunk(stream, name, **common)}
        seconds = alternate(candidates, repeats)
        rows.append(
            {
                "method": name,
                "ms a step and seed": 1e3 * seconds[name] / (job.steps * SEEDS),
                "ratio to adam": seconds[name] / seconds["adam"],
            }
        )
    return sorted(rows, key=lambda row: float(row["ratio to adam"]))


if __name__ == "__main__":
    guard.use_every_core()
    parser = options(__doc__ or "")
    parser.add_argument("--job", choices=JOBS, default="small")
    parser.add_argument("--steps", type=int, help="updates in a timed call; by default 500 and 128")
    parser.add_argument("--methods", nargs="+", choices=MEASURED, default=MEASURED)
    chosen = parser.parse_args()
    with one_blas_thread():  # as `pliant run` does: a new draw of a network has QR decompositions in it
        job = JOBS[chosen.job]
        rows = measure(chosen.methods, job._replace(steps=chosen.steps or job.steps), chosen.repeats)
    report([{"job": chosen.job, **row} for row in rows], chosen.json)
