"""What every diagnostic costs, on an MLP, a CNN and ResNet-18.

    python benchmarks/diagnostics.py

Milliseconds of one measurement (device and host part, after compilation) and the peak of the memory that its program
needs beside the parameters, as XLA states it, for 784-512×4-10, for 3×32 convolutions + 2×256 on 32×32×3, and for
ResNet-18 on 32×32×3. 512 probe examples, of which some diagnostics take fewer; ResNet-18 has 64. `rare` ones are
measured on the MLP alone (a probe of plasticity is tens of thousands of training steps), `per-task` ones not on
ResNet-18 (its NTK is 640 gradients of 11 million parameters).
"""

import contextlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _timing import arguments, report
from pliant import _xla
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.networks import cnn, mlp, resnet18
from pliant.types import Batch, Rule, Subject

ALWAYS = ("cheap", "spectral")  # measured after every task
_LONG = 5.0  # seconds: measured once
CASES = {
    "mlp": (lambda: mlp((28, 28, 1), 10, widths=(512,) * 4), (28, 28, 1), 512, (*ALWAYS, "per-task", "rare")),
    "cnn": (lambda: cnn((32, 32, 3), 10), (32, 32, 3), 512, (*ALWAYS, "per-task")),
    "resnet18": (lambda: resnet18((32, 32, 3), 10), (32, 32, 3), 64, ALWAYS),
}


def make_subject(name: str) -> Subject:
    make, shape, number, _ = CASES[name]
    network = make()
    params, state = network.init(jax.random.key(0))
    before, _ = network.init(jax.random.key(1))
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.standard_normal((number, *shape)), jnp.float32)
    batch = Batch(inputs, jnp.asarray(generator.integers(0, 10, number), jnp.int32))
    losses = optax.softmax_cross_entropy_with_integer_labels
    rule = Rule(optax.with_extra_args_support(optax.adam(1e-3)), 32)
    subject = Subject(network, params, state, batch, losses, jax.random.key(2))
    return subject._replace(initial=(before, state), previous=(before, state), rule=rule, twin=before)


def measure_one(name: str, subject: Subject, repeats: int) -> dict[str, Any]:
    diagnostic = DIAGNOSTICS[name]
    assert diagnostic.measure is not None
    assert diagnostic.summarize is not None
    # As arguments: what is known while compiling would be computed there, and cost nothing here.
    known = (subject.params, subject.state, subject.probe, subject.key, subject.initial, subject.previous, subject.twin)

    def device(known: Any) -> Any:
        params, state, probe, key, initial, previous, twin = known
        return diagnostic.measure(
            subject._replace(
                params=params, state=state, probe=probe, key=key, initial=initial, previous=previous, twin=twin
            )
        )

    program = jax.jit(device).lower(known).compile()
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        diagnostic.summarize(jax.tree.map(np.asarray, program(known)))
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > _LONG:
            break
    memory = program.memory_analysis()
    peak = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
    return {"ms": 1e3 * float(np.median(seconds)), "MiB": peak}


def measure(repeats: int) -> list[dict[str, object]]:
    subjects = {case: make_subject(case) for case in CASES}
    rows = []
    for name, diagnostic in DIAGNOSTICS.items():
        if diagnostic.measure is None:
            continue
        row: dict[str, object] = {"diagnostic": name, "cost": diagnostic.cost}
        for case, subject in subjects.items():
            found: dict[str, Any] = {"ms": "–", "MiB": "–"}
            if diagnostic.cost in CASES[case][3]:
                with contextlib.suppress(UserError):  # it does not fit this network
                    found = measure_one(name, subject, repeats)
            row |= {f"{case} {unit}": value for unit, value in found.items()}
            jax.clear_caches()
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    _xla.guard_reductions()
    chosen = arguments(__doc__ or "")
    report(measure(chosen.repeats), chosen.json)
