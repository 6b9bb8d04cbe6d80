"""AdamO brings dead ReLU units back while training goes on; Adam does not.

    python docs/dead_relu_revival.py

A unit that is 0 on every example has no gradient: nothing that only follows the loss can move what feeds it. Here Adam
with a learning rate of 0.03 memorises random labels of digits until more than half of the units are dead. From these
weights training goes on with a learning rate of 0.001: with Adam, and with AdamO, whose isometry step turns the kernels
of dead units towards directions that the others do not have (Rosseau et al. 2026, section 4.2). Dead means exactly 0 on
all training examples.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from pliant.diagnostics import dormant
from pliant.networks import mlp
from pliant.optimizers import adamo
from pliant.streams import load_dataset, random_labels

KILLING_RATE, RATE, STRENGTH = 0.03, 1e-3, 0.1
BATCH, BLOCK = 32, 100


class Course(NamedTuple):
    """What was measured after every block of updates, beginning before the first."""

    dead_fraction: np.ndarray
    accuracy: np.ndarray


class Job(NamedTuple):
    """A network and the examples that it is to memorise."""

    network: Any
    inputs: jax.Array
    labels: jax.Array


def make_job(num_examples: int | None = None, widths: tuple[int, ...] = (64, 64, 64)) -> Job:
    """Digits with random labels."""
    stream = random_labels(load_dataset("digits", train_size=num_examples))
    batch = stream.train.batch(stream.data, stream.task(jax.random.key(0), 0), jnp.arange(stream.train.num(0)))
    return Job(mlp(stream.input_shape, stream.num_outputs, widths=widths), batch.inputs, batch.targets)


def measure(job: Job, params: Any) -> tuple[float, float]:
    """The fraction of dead units, and the accuracy, over all examples."""
    output, features, _ = job.network.apply(params, {}, job.inputs, train=False, key=None)
    return float(dormant(features, threshold=0.0).pooled), float((output.argmax(-1) == job.labels).mean())


def trainer(job: Job, optimizer: optax.GradientTransformationExtraArgs) -> Callable[..., Any]:
    """`(params, state, key) -> (params, state)` after a block of updates, compiled."""

    def loss(params: Any, chosen: jax.Array) -> jax.Array:
        output, _, _ = job.network.apply(params, {}, job.inputs[chosen], train=True, key=None)
        return optax.softmax_cross_entropy_with_integer_labels(output, job.labels[chosen]).mean()

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        chosen = jax.random.randint(key, (BATCH,), 0, len(job.labels))
        updates, state = optimizer.update(jax.grad(loss)(params, chosen), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda params, state, key: jax.lax.scan(step, (params, state), jax.random.split(key, BLOCK))[0])


def course(job: Job, params: Any, optimizer: Any, num_blocks: int, seed: int) -> tuple[Course, Any]:
    """Trains on, measuring after every block."""
    state, train, key = optimizer.init(params), trainer(job, optimizer), jax.random.key(seed)
    points = [measure(job, params)]
    for block in range(num_blocks):
        params, state = train(params, state, jax.random.fold_in(key, block))
        points.append(measure(job, params))
    return Course(*np.array(points).T), params


def killed(job: Job, seed: int = 0, most: int = 60) -> Any:
    """Parameters with which more than half of the units are dead, by training with too large a learning rate."""
    params, _ = job.network.init(jax.random.key(seed))
    optimizer = optax.adam(KILLING_RATE)
    state, train, key = optimizer.init(params), trainer(job, optimizer), jax.random.key(seed + 1)
    for block in range(most):
        params, state = train(params, state, jax.random.fold_in(key, block))
        if measure(job, params)[0] > 0.5:
            return params
    raise RuntimeError(f"after {most * BLOCK} updates less than half of the units are dead")


def courses(job: Job, num_blocks: int, seed: int = 0) -> dict[str, Course]:
    """Both ways on from the same weights, with the same batches."""
    start, wiring = killed(job, seed), job.network.wiring
    isometric = adamo(RATE, isometry_strength=STRENGTH, mask=lambda params: wiring.mask(params, "matrix"))
    ways = {"Adam": optax.with_extra_args_support(optax.adam(RATE)), "AdamO": isometric}
    return {name: course(job, start, optimizer, num_blocks, seed)[0] for name, optimizer in ways.items()}


def draw(found: dict[str, Course]) -> Figure:
    """Dead units and accuracy against updates."""
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, one in found.items():
        updates = np.arange(len(one.accuracy)) * BLOCK
        for panel, values in zip(axes, one, strict=True):
            panel.plot(updates, values, label=name)
    for panel, label in zip(axes, ("fraction of dead units", "accuracy on the training labels"), strict=True):
        panel.set(xlabel="updates", ylabel=label, ylim=(0.0, 1.03))
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    found = courses(make_job(), num_blocks=150)
    for name, one in found.items():
        print(f"{name}: dead {one.dead_fraction[0]:.3f} → {one.dead_fraction[-1]:.3f}, ", end="")
        print(f"accuracy {one.accuracy[0]:.3f} → {one.accuracy[-1]:.3f}")
    file = Path(__file__).with_name("dead-relu-revival.png")
    draw(found).savefig(file, dpi=160)
    print(f"figure: {file}")
