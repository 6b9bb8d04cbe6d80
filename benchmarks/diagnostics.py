"""What every diagnostic costs, on an MLP, a CNN and ResNet-18.

    python benchmarks/diagnostics.py
    python benchmarks/diagnostics.py --networks cnn --diagnostics ntk jacobian

Milliseconds of one measurement (device and host part, after compilation) and the peak of the memory that its program
needs beside the parameters, as XLA states it, for 784-512×4-10, for 3×32 convolutions + 2×256 on 32×32×3, and for
ResNet-18 on 32×32×3. 512 probe examples, of which some diagnostics take fewer; ResNet-18 has 64, and 16 for its NTK,
whose time grows with their square.

On the CNN and ResNet-18 the three that repeat themselves ten times (targets, tasks or random starts) are measured as
one repetition, those that train in it with 20 and with 40 updates for 2000, from which the time of the whole follows.
Diagnostics of updates look at 16 in every task, here with batches of 64: their time is that of all 16.
"""

import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _timing import options, report
from pliant.diagnostics import DIAGNOSTICS, _excess_loss, _hessian_density, _probe_plasticity, one_blas_thread
from pliant.errors import UserError
from pliant.networks import cnn, mlp, resnet18
from pliant.training import sampled_weights
from pliant.types import Batch, Network, Rule, Subject, Update
from pliant.xla import guard

_LONG = 5.0  # seconds: measured once


class Case(NamedTuple):
    """A network, and on how many examples diagnostics look at it."""

    make: Callable[[], Network]
    shape: tuple[int, ...]
    examples: int
    fewer: Mapping[str, int] = {}
    """Examples for some diagnostics."""
    in_parts: bool = False
    """Whether those that take hours are measured in part."""


CASES = {
    "mlp": Case(lambda: mlp((28, 28, 1), 10, widths=(512,) * 4), (28, 28, 1), 512),
    "cnn": Case(lambda: cnn((32, 32, 3), 10), (32, 32, 3), 512, in_parts=True),
    "resnet18": Case(lambda: resnet18((32, 32, 3), 10), (32, 32, 3), 64, fewer={"ntk": 16}, in_parts=True),
}


class Part(NamedTuple):
    """A measurement with fewer repetitions or updates, of the same memory."""

    module: ModuleType
    repetitions: str
    """Name of the number of repetitions in `module`; the part has one."""
    updates: tuple[Any, Any] | None = None
    """Values of `_NUM_STEPS` for 20 and for 40 updates, with losses taken as often as in the whole."""


PARTS = {
    "probe-plasticity": Part(_probe_plasticity, "_NUM_TARGETS", (20, 40)),
    "excess-loss-plasticity": Part(_excess_loss, "_NUM_TASKS", ((5, 10, 20), (10, 20, 40))),
    "hessian-density": Part(_hessian_density, "_NUM_STARTS"),
}
_UPDATES = 2000  # of the whole
_BATCH = 64  # examples in an update that is looked at


def make_subject(case: Case, number: int) -> Subject:
    network = case.make()
    params, state = network.init(jax.random.key(0))
    before, _ = network.init(jax.random.key(1))
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.standard_normal((number, *case.shape)), jnp.float32)
    batch = Batch(inputs, jnp.asarray(generator.integers(0, 10, number), jnp.int32))
    losses = optax.softmax_cross_entropy_with_integer_labels
    rule = Rule(optax.with_extra_args_support(optax.adam(1e-3)), 32)
    subject = Subject(network, params, state, batch, losses, jax.random.key(2))
    followed = {"brownian-twin": before}
    return subject._replace(initial=(before, state), previous=(before, state), rule=rule, followed=followed)


def measure_one(name: str, subject: Subject, repeats: int) -> dict[str, Any]:
    diagnostic = DIAGNOSTICS[name]
    assert diagnostic.measure is not None
    assert diagnostic.summarize is not None
    # As arguments: what is known while compiling would be computed there, and cost nothing here.
    names = ("params", "state", "probe", "key", "initial", "previous", "followed")
    known = {each: getattr(subject, each) for each in names}

    def device(known: Any) -> Any:
        return diagnostic.measure(subject._replace(**known))

    program = jax.jit(device).lower(known).compile()
    seconds = timed(lambda: diagnostic.summarize(jax.tree.map(np.asarray, program(known))), repeats)
    return {"ms": 1e3 * seconds, "MiB": peak(program)}


def timed(call: Callable[[], object], repeats: int) -> float:
    """The median of some calls; long ones are made once."""
    seconds: list[float] = []
    while len(seconds) < repeats and not (seconds and seconds[-1] > _LONG):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def peak(program: Any) -> float:
    """MiB that the program needs beside its arguments."""
    memory = program.memory_analysis()
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20


def measure_updates(name: str, subject: Subject, repeats: int) -> dict[str, Any]:
    """All updates of a task that such a diagnostic looks at."""
    follow, losses = DIAGNOSTICS[name].follow, subject.losses
    assert follow is not None
    number = np.count_nonzero(sampled_weights(_UPDATES))

    def device(params: Any, change: Any, state: Any, batch: Batch, key: Any) -> Any:
        def loss(params: Any) -> Any:
            output, _, _ = subject.network.apply(params, state, batch.inputs, train=True, key=key)
            return losses(output, batch.targets).mean()

        after = jax.tree.map(jnp.add, params, change)
        return follow((), Update(subject.key, params, change, change, jnp.float32(0), lambda: loss(after)))[1]

    change = jax.tree.map(lambda leaf: 1e-3 * leaf, subject.params)
    batch = jax.tree.map(lambda leaf: leaf[:_BATCH], subject.probe)
    known = (subject.params, change, subject.state, batch, subject.key)
    program = jax.jit(device).lower(*known).compile()
    seconds = timed(lambda: jax.block_until_ready(program(*known)), number * repeats)
    return {"ms": 1e3 * number * seconds, "MiB": peak(program)}


def measure_part(name: str, subject: Subject) -> dict[str, Any]:
    """What the whole would take: time is linear in repetitions and in updates."""
    part = PARTS[name]
    times = getattr(part.module, part.repetitions)
    with mock.patch.object(part.module, part.repetitions, 1):
        if part.updates is None:
            found = measure_one(name, subject, 1)
            return found | {"ms": times * found["ms"]}
        after = []
        for updates in part.updates:
            with mock.patch.object(part.module, "_NUM_STEPS", updates):
                after.append(measure_one(name, subject, 1))
    of_20 = after[1]["ms"] - after[0]["ms"]
    return after[0] | {"ms": times * (after[0]["ms"] + (_UPDATES / 20 - 1) * of_20)}


def measure_case(name: str, case: Case, repeats: int) -> dict[str, Any]:
    subject = make_subject(case, case.fewer.get(name, case.examples))
    try:
        if DIAGNOSTICS[name].measure is None:
            return measure_updates(name, subject, repeats)
        if case.in_parts and name in PARTS:
            return measure_part(name, subject)
        return measure_one(name, subject, repeats)
    except UserError:  # it does not fit this network
        return {"ms": "–", "MiB": "–"}
    finally:
        jax.clear_caches()


def measure(cases: list[str], names: list[str], repeats: int) -> list[dict[str, object]]:
    rows = []
    for name in names:
        row: dict[str, object] = {"diagnostic": name, "cost": DIAGNOSTICS[name].cost}
        for case in cases:
            row |= {f"{case} {unit}": value for unit, value in measure_case(name, CASES[case], repeats).items()}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    guard.guard_reductions()
    parser = options(__doc__ or "")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--diagnostics", nargs="+", choices=DIAGNOSTICS, default=list(DIAGNOSTICS))
    chosen = parser.parse_args()
    with one_blas_thread():  # as in `pliant run`
        rows = measure(chosen.networks, chosen.diagnostics, chosen.repeats)
    report(rows, chosen.json)
