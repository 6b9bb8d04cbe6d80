"""How fast a worker is: timed for cores, assumed for GPUs."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pliant.cluster._arithmetic import count_work
from pliant.cluster._local import usable_cores


class Device(NamedTuple):
    """How fast a worker is assumed to be."""

    name: str
    products: float
    """Floating-point operations a second in matrix products and convolutions: of a core, or of a GPU."""
    elements: float
    """Results a second of all else."""
    start: float
    """Seconds until an operation begins: what small networks wait for on a GPU."""
    cores: int | None = None
    """Of a worker, each with a seed of its own; None for a GPU, which trains all seeds in one program."""


def gpu_device(tflops: float = 15.0) -> Device:
    """A GPU, by assumption: nothing is measured.

    Args:
      tflops: 10¹² floating-point operations a second, sustained in matrix products and convolutions.
    """
    return Device(f"a GPU that sustains {tflops:g} TFLOP/s", tflops * 1e12, 2e11, 8e-6)


def cpu_device(num_cores: int, tflops: float | None = None) -> Device:
    """A worker with some cores of this machine. Products and Adam's update are timed for about a second.

    Args:
      num_cores: of the worker.
      tflops: of a core, in place of the timing of products.
    """
    x, kernel, total = jnp.ones((32, 512)), jnp.ones((512, 512)), len(usable_cores())
    adam = optax.adam(1e-3)
    state = adam.init(kernel)
    update = count_work(lambda _, g, s: adam.update(g, s), [0], *jax.eval_shape(lambda: (kernel, state)))
    products = tflops * 1e12 if tflops else 2 * x.size * 512 / _seconds(jnp.matmul, x, kernel) / total
    elements = update.elements / _seconds(adam.update, kernel, state) / total
    return Device(
        f"{num_cores} core{'' if num_cores == 1 else 's'} of this machine at {products / 1e9:.0f} GFLOP/s each",
        products,
        elements,
        0.0,
        num_cores,
    )


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """The median time of a compiled function."""
    program = jax.jit(function)
    jax.block_until_ready(program(*arguments))
    times = []
    for _ in range(50):
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - began)
    return statistics.median(times)
