"""How training scales over devices: processes that are pinned to one and to two cores, and more devices than cores.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --cores 1 2 4 8 --devices 16     # on a larger machine

Every device trains four seeds. A row is a process with as many devices as cores, or with more: these are simulated, so
they share the cores, and what is lost is what spreading costs. Efficiency is seed-steps a second and core, relative to
the first row; 1 is linear scaling. The processes take turns. The best of several rounds counts, since other programs
can only slow a round down.
"""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from _timing import options, report

SEEDS = 4
"""On each device."""
CASES = ("MLP 64-64×3-10, batch 32", "MLP 784-256×3-10, batch 16", "PPO, CartPole, 64×4")


class Place(NamedTuple):
    """Where a process runs."""

    cores: int
    devices: int


def work(case: str, devices: int) -> tuple[Callable[[], Any], int]:
    """What is timed, and its number of seed-steps: updates, of PPO steps of environments."""
    import rl
    from _learner import chunk
    from pliant.networks import mlp
    from pliant.streams import random_labels
    from steps_per_second import CASES as NETWORKS
    from steps_per_second import synthetic

    seeds = SEEDS * devices
    if case.startswith("PPO"):
        return rl.engine("cartpole", 2, seeds, diagnostics=()), 2 * rl.SIZE * seeds
    size, widths, batch, _ = NETWORKS[case.removeprefix("MLP ")]
    network = functools.partial(mlp, widths=widths)
    stream = random_labels(synthetic(size))
    return chunk(stream, "adam", network=network, batch_size=batch, num_seeds=seeds, num_steps=128), 128 * seeds


def serve(case: str, devices: int) -> None:
    """The program of a process: whenever it reads a line, it works and answers with its seed-steps a second."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    run, num_steps = work(case, devices)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(num_steps / (time.perf_counter() - start), flush=True)


class Worker:
    """A process that is pinned to cores."""

    def __init__(self, case: str, place: Place):
        cores = sorted(os.sched_getaffinity(0))[: place.cores]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", case, str(place.devices)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, cores),
        )
        if self._answer() != "ready":
            raise SystemExit(f"{case} does not run with {place}")

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def rate(self) -> float:
        """Seed-steps a second of one round."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """Waits for the process to end, which has nothing more to read."""
        self._process.communicate()


def measure(case: str, places: Sequence[Place], repeats: int) -> list[dict[str, Any]]:
    workers = [Worker(case, place) for place in places]
    rounds = [[worker.rate() for worker in workers] for _ in range(repeats)]
    for worker in workers:
        worker.end()
    best = [max(rates) for rates in zip(*rounds, strict=True)]
    return [
        {
            "case": case,
            "cores": place.cores,
            "devices": f"{place.devices}{' (simulated)' if place.devices > place.cores else ''}",
            "seeds": SEEDS * place.devices,
            "seed-steps/s": rate,
            "efficiency": rate / place.cores / best[0] * places[0].cores,
        }
        for place, rate in zip(places, best, strict=True)
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
        raise SystemExit
    parser = options(__doc__ or "")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="numbers of cores, with a device each")
    parser.add_argument("--devices", type=int, default=8, help="simulated devices at most, doubled from the cores on")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    chosen = parser.parse_args()
    most, places = max(chosen.cores), [Place(cores, cores) for cores in chosen.cores]
    simulated = (most * 2**power for power in range(1, 32))
    places += [Place(most, devices) for devices in simulated if devices <= chosen.devices]
    rows = []
    for case in chosen.cases:
        rows += measure(case, places, chosen.repeats)
        report(rows[-len(places) :], None)
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": rows}, indent=2))
