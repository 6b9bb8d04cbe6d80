"""What AdamO costs against Adam, and that lazy isometry costs no accuracy.

    python benchmarks/adamo_overhead.py

Part 1: milliseconds a step and seed of the whole training step, width 256, batch 32, and the ratio to Adam's. Goals: at
most 1.25 with isometry_every=16 and 1.10 with 64. Part 2: accuracy of the main job with 8 seeds for
isometry_every 1, 16 and 64.
"""

import functools
import tempfile

from _learner import chunk
from _timing import alternate, arguments, report
from pliant.networks import mlp
from pliant.results import summarize_run
from pliant.streams import load_dataset, random_labels
from pliant.supervised import RunConfig, run
from pliant.xla import guard

STEPS, SEEDS = 1000, 2


def cost(repeats: int) -> list[dict[str, object]]:
    stream = random_labels(load_dataset("digits"))
    network = functools.partial(mlp, widths=(256,) * 4)
    common = {"network": network, "batch_size": 32, "num_seeds": SEEDS, "num_steps": STEPS}
    candidates = {"adam": chunk(stream, "adam", **common)}
    for every in (1, 16, 64):
        settings = {"isometry_every": every}
        candidates[f"adamo, every {every}"] = chunk(stream, "adamo", settings=settings, **common)
    seconds = alternate(candidates, repeats)
    return [
        {
            "optimizer": name,
            "ms a step and seed": 1e3 * value / (STEPS * SEEDS),
            "ratio to adam": value / seconds["adam"],
        }
        for name, value in seconds.items()
    ]


def accuracy() -> list[dict[str, object]]:
    rows = []
    for every in (1, 16, 64):
        config = RunConfig(methods=("adamo",), seeds=8, settings=(f"adamo.isometry_every={every}",))
        with tempfile.TemporaryDirectory() as out:
            folder = run(config, out)
            row = summarize_run(folder.metrics, folder.headline).iloc[0]
        rows.append(
            {
                "isometry_every": every,
                "last 5 tasks": float(row["last_mean"]),
                "standard error": float(row["last_standard_error"]),
                "lowest seed": float(row["last_minimum"]),
                "highest seed": float(row["last_maximum"]),
            }
        )
    return rows


if __name__ == "__main__":
    guard.use_every_core()
    chosen = arguments(__doc__ or "")
    report(cost(chosen.repeats), chosen.json)
    print()
    report(accuracy(), chosen.json and chosen.json.with_suffix(".accuracy.json"))
