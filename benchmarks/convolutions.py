"""Speed of convolutions and of their gradients on the CPU, at the sizes of a CNN and of ResNet-18's four stages.

    python benchmarks/convolutions.py

GFLOP/s on one device, 3 × 3 kernels, batch 64, counted as the definition multiplies: forward, to the input, to the
kernel; each as it is and without Winograd's algorithm; and to the kernel, without, if all examples are taken at once.
"""

import unittest.mock
from collections.abc import Callable

import jax

from _timing import alternate, arguments, report
from pliant.xla import convolution as convolutions
from pliant.xla import guard, winograd
from pliant.xla.convolution import convolution

BATCH = 64
SIZES = ((32, 32), (32, 64), (16, 128), (8, 256), (4, 512))


def compiled(f: Callable[..., jax.Array], *arguments: jax.Array) -> Callable[[], jax.Array]:
    program = jax.jit(f).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments))


def three(x: jax.Array, kernel: jax.Array, g: jax.Array) -> dict[str, Callable[[], jax.Array]]:
    return {
        # a function of its own each time: JAX would take the former program of `convolution`
        "forward": compiled(lambda x, k: convolution(x, k), x, kernel),
        "to input": compiled(lambda k, g: jax.vjp(lambda x: convolution(x, k), x)[1](g)[0], kernel, g),
        "to kernel": compiled(lambda x, g: jax.vjp(lambda k: convolution(x, k), kernel)[1](g)[0], x, g),
    }


def measure(repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for side, channels in SIZES:
        x, g = jax.random.normal(jax.random.key(0), (2, BATCH, side, side, channels))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
        candidates = three(x, kernel, g)
        with unittest.mock.patch.object(winograd, "fits", return_value=False):
            candidates |= {f"{name}, direct": run for name, run in three(x, kernel, g).items()}
            with unittest.mock.patch.object(convolutions, "_POSITIONS", BATCH * side * side):
                candidates["at once"] = three(x, kernel, g)["to kernel"]
        work = 2 * BATCH * side**2 * 9 * channels**2 / 1e9
        seconds = alternate(candidates, repeats)
        rows.append({"images": f"{side}×{side}×{channels}"} | {name: work / of_one for name, of_one in seconds.items()})
    return rows


if __name__ == "__main__":
    guard.guard_reductions()
    chosen = arguments(__doc__ or "")
    report(measure(chosen.repeats), chosen.json)
