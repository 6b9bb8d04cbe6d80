"""One call that measures a network, whoever wrote it, and prints what was found."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

from pliant.diagnostics import (
    DIAGNOSTICS,
    choose,
    examine,
    failure,
    jacobian_gaps,
    measure,
    one_blas_thread,
    summarize,
)
from pliant.errors import UserError
from pliant.results import diagnosis_table
from pliant.types import Diagnostic, Key, Measured, Params, Rule, Subject, Wiring

_BATCH_SIZE = 32
_NEEDS = {
    "initial": "the parameters that training began with: give initial=",
    "previous": "the parameters of an earlier moment: give previous=",
    "rule": "an optimizer: give optimizer=, and init= for new networks of the same kind",
    "followed": "to see every update of a run: `pliant run --diagnostics brownian-twin`",
}


def diagnose(
    apply: Callable[[Any, Any], Any],
    params: Params,
    x: Any,
    y: Any = None,
    wiring: Wiring | None = None,
    *,
    diagnostics: Sequence[str | Diagnostic] | None = None,
    initial: Params | None = None,
    previous: Params | None = None,
    optimizer: optax.GradientTransformation | None = None,
    init: Callable[[Key], Params] | None = None,
    title: str = "diagnosis",
    console: Console | None = None,
) -> Measured:
    """Measures a network's plasticity from all sides, prints a report, and returns the numbers.

    Each diagnostic is measured by itself: one that fails is reported as "not measured", with the reason, and takes no
    other with it. Without a wiring, layers and kernels are found in the traced program: hidden layers are the features
    that the output depends on, in the order of computation; their units and the outputs of kernels lie along the axes
    that products with weights say. What cannot be followed is not measured, and the report says so.

    All diagnostics of parameters look at the same leaves: floating-point arrays that the output does not read behind
    `stop_gradient` alone, and that no `wiring.frozen` names. Integers, keys, functions, Python's numbers and
    Flax's running statistics are handed to `apply` as they are. Sums are in float32 or wider, whatever the type of the
    parameters.

    Args:
      apply: `apply(params, x) -> output`, or `-> (output, features)` with the hidden layers' activations in
        dictionaries, lists, tuples or dataclasses, in any order. The output is (batch, out), or something with a field
        or key "logits" or "output". Examples must not depend on each other: give the network in eval mode. If it cannot
        be traced, layers are taken as they are returned, and what needs derivatives is left out.
      params: any pytree; close over what is not to be measured.
      x: examples, (batch, …); a few hundred that are kept for this, not the last training batch. Also a pytree of
        arrays with the examples as their first axis.
      y: their targets: classes (integers, also as one-hot rows; cross-entropy) or values (floating-point, mean squared
        error). Without, the loss is a regression to the network's own output plus noise of its standard deviation.
      wiring: which parameters feed and read each unit. Some diagnostics need it: units by their gradient, saturation.
      diagnostics: names or sets, see `pliant.diagnostics.SETS`, `path/to/file.py:name`, or diagnostics of your own; by
        default all but those of cost "rare".
      initial: parameters that training began with.
      previous: parameters of an earlier moment.
      optimizer: that the network is trained with; probes of plasticity train copies by it.
      init: `init(key) -> params`, for probes whose targets are new networks.
      title: of the report.
      console: to print on; by default the terminal. `Console(quiet=True)` prints nothing.

    Returns:
      `Measured`: numbers by metric, and arrays by DIAGNOSTIC/ARRAY. What could not be measured is not among them, or is
      NaN; the report says why.

    Raises:
      UserError: for an unknown diagnostic, no examples, targets that do not fit, an `apply` that fails or whose output
        is not clear, and if nothing could be measured.

    Example:
      >>> def apply(params, x):
      ...     hidden = jax.nn.relu(x @ params["in"])
      ...     return hidden @ params["out"], {"hidden": hidden}
      >>> params = {"in": jnp.diag(jnp.array([1.0, -1.0])), "out": jnp.ones((2, 1))}
      >>> found = diagnose(apply, params, jnp.ones((4, 2)), diagnostics=["dormant"], console=Console(quiet=True))
      >>> found.numbers["dormant_fraction"]
      0.5

    References:
      See each diagnostic.

    Differs from:
      Nothing known.
    """
    chosen = choose(diagnostics or [each for each in DIAGNOSTICS.values() if each.cost != "rare"])
    examined = examine(apply, params, x, y, wiring)
    trained = examined.trained
    subject = examined.subject._replace(
        initial=None if initial is None else (trained.part(initial, "initial"), {}),
        previous=None if previous is None else (trained.part(previous, "previous"), {}),
        rule=Rule(optax.with_extra_args_support(optimizer), _BATCH_SIZE) if optimizer else None,
    )
    if init is not None:
        network = subject.network._replace(init=lambda key: (trained.part(init(key), "init"), {}))
        subject = subject._replace(network=network)
    found, reasons = _measure(subject, chosen, is_traceable=examined.is_traceable)
    if not found:
        raise UserError(
            got=f"nothing that can be measured ({'; '.join(f'{name}: {why}' for name, why in reasons.items())})",
            wanted="at least one diagnostic that fits",
            do="Return features from `apply`, or give what the diagnostics need.",
        )
    notes = dict(examined.notes)
    if "jacobian" in found:
        notes |= {f"jacobian/{layer}": f"not measured: {why}" for layer, why in jacobian_gaps(subject).items()}
    summaries = {each.name: each.summary for each in chosen}
    (console or Console()).print(
        diagnosis_table(title, {name: each.numbers for name, each in found.items()}, summaries, reasons, notes)
    )
    numbers = {metric: value for each in found.values() for metric, value in each.numbers.items()}
    arrays = {f"{name}/{key}": array for name, each in found.items() for key, array in each.arrays.items()}
    return Measured(numbers, arrays)


def _measure(
    subject: Subject, chosen: Sequence[Diagnostic], *, is_traceable: bool
) -> tuple[dict[str, Measured], dict[str, str]]:
    """What each diagnostic found, and why others were not measured."""
    arrays: dict[str, Any] = {}
    found: dict[str, Measured] = {}
    reasons = {each.name: why for each in chosen if (why := _missing(each, subject)) is not None}

    def attempt(part: Callable[[Diagnostic], Any], diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
        """Those that succeed."""
        tried = [(each, failure(functools.partial(part, each))) for each in diagnostics]
        reasons.update({each.name: why for each, why in tried if why is not None})
        return [each for each, why in tried if why is None]

    def trace(diagnostic: Diagnostic) -> None:
        jax.eval_shape(_device(subject, [diagnostic]), subject.params)

    def observe(diagnostic: Diagnostic) -> None:
        arrays.update(measure(subject, [diagnostic]))

    def run(*diagnostics: Diagnostic) -> None:
        arrays.update(jax.device_get(jax.jit(_device(subject, diagnostics))(subject.params)))

    def read(diagnostic: Diagnostic) -> None:
        found.update(summarize([diagnostic], jax.tree.map(np.asarray, arrays), chosen))

    asked = [each for each in chosen if each.name not in reasons]
    traced = attempt(trace, asked)
    observed = [] if is_traceable else attempt(observe, [each for each in asked if each not in traced])
    together = failure(functools.partial(run, *traced)) is None
    measured = {each.name for each in (*observed, *(traced if together else attempt(run, traced)))}
    with one_blas_thread(), np.errstate(all="ignore"):
        attempt(read, [each for each in chosen if each.name in measured])
    return found, {each.name: reasons[each.name] for each in chosen if each.name in reasons and each.name not in found}


def _device(subject: Subject, diagnostics: Sequence[Diagnostic]) -> Callable[[Params], Any]:
    """The device part of diagnostics in one program: what they share, such as the forward pass, is computed once."""
    return lambda params: measure(subject._replace(params=params), diagnostics)


def _missing(diagnostic: Diagnostic, subject: Subject) -> str | None:
    if diagnostic.measure is None:
        return "follows training; measured by `pliant run`"
    missing = [_NEEDS[field] for field in diagnostic.needs if getattr(subject, field) is None]
    return f"needs {missing[0]}" if missing else None
