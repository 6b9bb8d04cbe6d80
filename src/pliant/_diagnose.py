"""One call that measures a network, whoever wrote it, and prints what was found."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree
from rich.console import Console

from pliant.diagnostics import DIAGNOSTICS, choose, failure, in_one_line, measure, one_blas_thread, summarize
from pliant.diagnostics._infer import Form, as_returned, find_frozen, infer
from pliant.diagnostics._jacobian_spectrum import jacobian_gaps
from pliant.diagnostics._objective import find_objective
from pliant.diagnostics._readers import is_float
from pliant.diagnostics._returned import returned
from pliant.diagnostics._subject import widened
from pliant.diagnostics._trained import Trained, find_trained
from pliant.errors import UserError
from pliant.results import diagnosis_table
from pliant.types import Batch, Key, Measured, Network, Params, Rule, State, Subject, Wiring

_BATCH_SIZE = 32
_NEEDS = {
    "initial": "the parameters that training began with: give initial=",
    "previous": "the parameters of an earlier moment: give previous=",
    "rule": "an optimizer: give optimizer=, and init= for new networks of the same kind",
    "twin": "a run that takes random steps beside the optimizer's: `pliant run --diagnostics brownian-twin`",
}


def diagnose(
    apply: Callable[[Any, Any], Any],
    params: Params,
    x: Any,
    y: Any = None,
    wiring: Wiring | None = None,
    *,
    diagnostics: Sequence[str] | None = None,
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
    `stop_gradient` alone, and that no `wiring.frozen` names. Integers, keys, functions and Python's numbers are handed
    to `apply` as they are. Sums are in float32 or wider, whatever the type of the parameters.

    Args:
      apply: `apply(params, x) -> output`, or `-> (output, features)` with the hidden layers' activations in
        dictionaries, lists, tuples or dataclasses, in any order. The output is (batch, out), or something with a field
        or key "logits" or "output". Examples must not depend on each other: give the network in eval mode. If it cannot
        be traced, layers are taken as they are returned, and what needs derivatives is left out.
      params: any pytree; close over what is not to be measured.
      x: examples, (batch, …); a few hundred that are kept for this, not the last training batch. Also a pytree of
        arrays with the examples as their first axis.
      y: their targets: classes (integers or one-hot rows, cross-entropy) or values (floating-point, mean squared
        error). Without, the loss is a regression to the network's own output plus noise of its standard deviation.
      wiring: which parameters feed and read each unit. Some diagnostics need it: units by their gradient, saturation.
      diagnostics: names or sets, see `pliant.diagnostics.SETS`; by default all but those of cost "rare".
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
    names = choose(diagnostics) if diagnostics else tuple(d.name for d in DIAGNOSTICS.values() if d.cost != "rare")
    stranger = _look(apply, params, _examples(x), y, wiring)
    trained = stranger.trained
    subject = stranger.subject._replace(
        initial=None if initial is None else (trained.part(initial, "initial"), {}),
        previous=None if previous is None else (trained.part(previous, "previous"), {}),
        rule=Rule(optax.with_extra_args_support(optimizer), _BATCH_SIZE) if optimizer else None,
        network=stranger.subject.network._replace(init=_initializer(init, trained)),
    )
    found, reasons = _measure(subject, names, is_traceable=stranger.is_traceable)
    if not found:
        raise UserError(
            got=f"nothing that can be measured ({'; '.join(f'{name}: {why}' for name, why in reasons.items())})",
            wanted="at least one diagnostic that fits",
            do="Return features from `apply`, or give what the diagnostics need.",
        )
    notes = dict(stranger.notes)
    if "jacobian" in found:
        notes |= {f"jacobian/{layer}": f"not measured: {why}" for layer, why in jacobian_gaps(subject).items()}
    summaries = {name: DIAGNOSTICS[name].summary for name in names}
    (console or Console()).print(
        diagnosis_table(title, {name: each.numbers for name, each in found.items()}, summaries, reasons, notes)
    )
    numbers = {metric: value for each in found.values() for metric, value in each.numbers.items()}
    arrays = {f"{name}/{key}": array for name, each in found.items() for key, array in each.arrays.items()}
    return Measured(numbers, arrays)


class _Stranger(NamedTuple):
    """Somebody else's network, as diagnostics take it."""

    subject: Subject
    trained: Trained
    is_traceable: bool
    notes: Mapping[str, str]
    """What is not seen of it, and why."""


def _examples(x: Any) -> PyTree:
    """Arrays of examples: one, or a pytree of several."""
    try:
        inputs = jax.tree.map(jnp.asarray, x, is_leaf=lambda each: isinstance(each, list))
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    except (TypeError, ValueError) as error:
        raise UserError(
            got=f"x that is no array: {in_one_line(error)}",
            wanted="(batch, …)",
            do="Pass one array, or a pytree of arrays.",
        ) from error
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        shapes = " and ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(inputs)) or "()"
        raise UserError(got=f"x of shape {shapes}", wanted="at least one example", do="Pass examples to measure on.")
    return inputs


def _look(apply: Callable[[Any, Any], Any], params: Params, x: PyTree, y: Any, wiring: Wiring | None) -> _Stranger:
    trained, number = find_trained(params), len(jax.tree.leaves(x)[0])
    notes: dict[str, str] = {}
    function = _function(apply, trained, notes)
    part = trained.part(params)
    output, features, why = _forward(function, part, x)
    if len(output.shape) < 2 or output.shape[0] != number:
        raise UserError(
            got=f"an output of shape {output.shape} for {number} examples",
            wanted="(batch, out)",
            do="Let `apply` keep the batch axis, also of x; a single value is (batch, 1).",
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise UserError(
            got=f"an output of {output.dtype}",
            wanted="floating-point numbers",
            do="Let `apply` return logits or values, not what is chosen by them.",
        )
    frozen = set(wiring.frozen if wiring else ())
    if why is None:
        frozen |= find_frozen(lambda params, x: function(params, x)[0], part, x)
        trained = trained.without(frozen)
        function, part = _function(apply, trained, notes), trained.part(params)
    else:
        notes["apply"] = f"cannot be traced, so that layers are taken as they are returned: {why}"
    forms: Mapping[str, Form] = {}
    if wiring is None:
        found = infer(function, part, x) if why is None else as_returned(features, part, output)
        wiring, forms = found.wiring, found.forms
        notes |= found.notes
    if not wiring.layers:
        notes["features"] = "no hidden layer was returned, so that nothing is known of units"
    if frozen:
        notes["frozen"] = f"not measured, since not trained: {', '.join(sorted(frozen))}"
    if trained.others:
        notes["no parameters"] = f"arrays without floating-point numbers: {', '.join(trained.others)}"

    def named(params: Params, state: State, inputs: Any, *, train: bool, key: Key | None = None) -> Any:
        del state, train, key
        output, features = function(params, inputs)
        if forms:
            return output, {name: form.of(features) for name, form in forms.items()}, {}
        return output, {name: each for name, each in features.items() if is_float(each) and each.ndim}, {}

    if why is None and y is None:
        output = jax.jit(lambda part: widened(function(part, x)[0]))(part)
    losses, targets = find_objective(output, y)
    network = Network(_initializer(None, trained), named, wiring)
    return _Stranger(
        Subject(network, part, {}, Batch(x, targets), losses, jax.random.key(0)), trained, why is None, notes
    )


def _function(
    apply: Callable[[Any, Any], Any], trained: Trained, notes: dict[str, str]
) -> Callable[[Params, PyTree], tuple[Any, Mapping[str, Any]]]:
    """`apply` of the parameters alone, which returns (batch, out) and the features that are numbers."""

    def function(params: Params, inputs: PyTree) -> tuple[Any, Mapping[str, Any]]:
        output, features, others = returned(apply(trained.whole(params), inputs))
        if others:
            notes["output"] = f"not looked at beside it: {', '.join(others)}"
        if output.ndim == 1 and jax.tree.leaves(inputs)[0].ndim > 1:
            output = output[:, None]
        return output, features

    return function


def _forward(
    function: Callable[[Params, PyTree], tuple[Any, Mapping[str, Any]]], params: Params, x: PyTree
) -> tuple[Any, Mapping[str, Any], str | None]:
    """Shapes of output and features; if it cannot be traced, the arrays themselves, and why."""
    try:
        return *jax.eval_shape(function, params, x), None
    except UserError:
        raise
    except Exception as error:
        why = in_one_line(error)
    try:
        return *function(params, x), why
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            got=f"an `apply` that fails: {in_one_line(error)}",
            wanted="one that takes these parameters and examples",
            do="Call apply(params, x) with them: x is (batch, …).",
        ) from error


def _initializer(init: Callable[[Key], Params] | None, trained: Trained) -> Callable[[Key], tuple[Params, State]]:
    def drawn(key: Key) -> tuple[Params, State]:
        if init is None:
            raise UserError(got="no initialiser", wanted="one", do="Give init=, which draws new parameters from a key.")
        return trained.part(init(key), "init"), {}

    return drawn


def _measure(
    subject: Subject, names: Sequence[str], *, is_traceable: bool
) -> tuple[dict[str, Measured], dict[str, str]]:
    """What each diagnostic found, and why others were not measured."""
    arrays: dict[str, Any] = {}
    found: dict[str, Measured] = {}
    reasons = {name: why for name in names if (why := _missing(name, subject)) is not None}

    def attempt(part: Callable[[str], Any], names: Iterable[str]) -> list[str]:
        """Those that succeed."""
        failed = {name: why for name in names if (why := failure(functools.partial(part, name))) is not None}
        reasons.update(failed)
        return [name for name in names if name not in failed]

    def trace(name: str) -> None:
        jax.eval_shape(_device(subject, [name]), subject.params)

    def observe(name: str) -> None:
        arrays.update(measure(subject, [name]))

    def run(*names: str) -> None:
        arrays.update(jax.device_get(jax.jit(_device(subject, names))(subject.params)))

    def read(name: str) -> None:
        found.update(summarize([name], jax.tree.map(np.asarray, arrays)))

    asked = [name for name in names if name not in reasons]
    traced = attempt(trace, asked)
    observed = [] if is_traceable else attempt(observe, [name for name in asked if name not in traced])
    together = failure(functools.partial(run, *traced)) is None
    measured = {*observed, *(traced if together else attempt(run, traced))}
    with one_blas_thread(), np.errstate(all="ignore"):
        attempt(read, [name for name in names if name in measured])
    return found, {name: reasons[name] for name in names if name in reasons and name not in found}


def _device(subject: Subject, names: Sequence[str]) -> Callable[[Params], Any]:
    """The device part of diagnostics in one program: what they share, such as the forward pass, is computed once."""
    return lambda params: measure(subject._replace(params=params), names)


def _missing(name: str, subject: Subject) -> str | None:
    diagnostic = DIAGNOSTICS[name]
    if diagnostic.measure is None:
        return "follows training; measured by `pliant run`"
    missing = [_NEEDS[field] for field in diagnostic.needs if getattr(subject, field) is None]
    return f"needs {missing[0]}" if missing else None
