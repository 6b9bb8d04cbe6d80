"""Training steps a second against the same network, optimizer and batch in eager PyTorch.

    pip install -e '.[parity]'
    python benchmarks/steps_per_second.py

8 seeds over all cores here; PyTorch trains one network with all cores, as its users do. Compared are seed-steps a
second.
Both gather their batch from data in memory, and report loss and accuracy of every step.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np

from _learner import chunk
from _timing import alternate, arguments, report
from pliant.networks import mlp
from pliant.streams import Dataset, Images, random_labels
from pliant.xla import guard

CASES = {  # name: input size, hidden widths, batch, goal
    "784-512×4-10, batch 64": (784, (512,) * 4, 64, 2.0),
    "784-256×3-10, batch 16": (784, (256,) * 3, 16, 3.5),
    "64-64×3-10, batch 32": (64, (64,) * 3, 32, 15.0),
}
STEPS, SEEDS = 128, 8


def synthetic(input_size: int) -> Dataset:
    side = int(input_size**0.5)
    draw = np.random.default_rng(0)
    images = Images(draw.integers(0, 256, (2000, side, side, 1), dtype=np.uint8), np.arange(2000, dtype=np.int32) % 10)
    one = np.ones((1, 1, 1), np.float32)
    return Dataset("synthetic", 10, images, images, 127.5 * one, 74.0 * one)


def torch_steps(input_size: int, widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    import torch

    sizes = (input_size, *widths)
    layers: list[torch.nn.Module] = []
    for num_in, num_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(num_in, num_out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = torch.from_numpy(synthetic(input_size).train.images.reshape(2000, -1))
    labels = torch.from_numpy(synthetic(input_size).train.labels.astype(np.int64))
    indices = torch.from_numpy(np.random.default_rng(0).integers(0, 2000, (STEPS, batch)))

    def run() -> None:
        correct = torch.zeros(())
        for chosen in indices:
            x, y = (images[chosen].float() - 127.5) / 74.0, labels[chosen]
            output = network(x)
            loss = torch.nn.functional.cross_entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += (output.argmax(1) == y).float().mean()

    return run


if __name__ == "__main__":
    guard.use_every_core()
    chosen = arguments(__doc__ or "")
    rows = []
    for case, (input_size, widths, batch, goal) in CASES.items():
        stream = random_labels(synthetic(input_size))
        ours = chunk(
            stream,
            "adam",
            network=functools.partial(mlp, widths=widths),
            batch_size=batch,
            num_seeds=SEEDS,
            num_steps=STEPS,
        )
        theirs = torch_steps(input_size, widths, batch)
        seconds = alternate({"pliant": ours, "torch": theirs}, chosen.repeats)
        speeds = {"pliant": STEPS * SEEDS / seconds["pliant"], "torch": STEPS / seconds["torch"]}
        ratio = speeds["pliant"] / speeds["torch"]
        rows.append({"network": case, **speeds, "ratio": ratio, "goal": goal})
    report(rows, chosen.json)
