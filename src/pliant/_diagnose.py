"""One call that measures a network, whoever wrote it, and prints what was found."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from rich.console import Console

from pliant.diagnostics import DIAGNOSTICS, choose, measure, one_blas_thread, summarize
from pliant.errors import UserError
from pliant.results import diagnosis_table
from pliant.types import (
    Batch,
    HiddenLayer,
    Key,
    Measured,
    Network,
    Params,
    Rule,
    State,
    Subject,
    Wiring,
    leaf_path,
)

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

    Args:
      apply: `apply(params, x) -> output`, or `-> (output, features)` with a dictionary of the hidden layers'
        activations in the order in which they are computed, the last of which the output layer reads. Examples must not
        depend on each other: give the network in eval mode. Output (batch, out).
      params: any pytree of arrays.
      x: examples, (batch, …); a few hundred that are kept for this, not the last training batch.
      y: their targets: classes (integers, cross-entropy) or values (floating-point, mean squared error). Without, the
        loss is a regression to the network's own output plus noise of its standard deviation.
      wiring: which parameters feed and read each unit. Without, all arrays with two or more axes count as hidden
        kernels, all features as layers in which a unit owns its output, and what needs more is left out.
      diagnostics: names or sets, see `pliant.diagnostics.SETS`; by default all but those of cost "rare".
      initial: parameters that training began with.
      previous: parameters of an earlier moment.
      optimizer: that the network is trained with; probes of plasticity train copies by it.
      init: `init(key) -> params`, for probes whose targets are new networks.
      title: of the report.
      console: to print on; by default the terminal. `Console(quiet=True)` prints nothing.

    Returns:
      `Measured`: numbers by metric, and arrays by DIAGNOSTIC/ARRAY. What could not be measured is not among them; the
      report says why.

    Raises:
      UserError: for an unknown diagnostic, no examples, or if nothing could be measured.

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
    subject = _subject(apply, params, jnp.asarray(x), y, wiring)
    subject = subject._replace(
        initial=_same(params, initial, "initial"),
        previous=_same(params, previous, "previous"),
        rule=Rule(optax.with_extra_args_support(optimizer), _BATCH_SIZE) if optimizer else None,
        network=subject.network._replace(init=_initializer(init)),
    )
    names = choose(diagnostics) if diagnostics else tuple(d.name for d in DIAGNOSTICS.values() if d.cost != "rare")
    reasons = {name: reason for name in names if (reason := _reason(name, subject)) is not None}
    measured = [name for name in names if name not in reasons]
    if not measured:
        raise UserError(
            got=f"nothing that can be measured ({'; '.join(f'{name}: {why}' for name, why in reasons.items())})",
            wanted="at least one diagnostic that fits",
            do="Return features from `apply`, or give what the diagnostics need.",
        )
    found = _measure(subject, measured)
    summaries = {name: DIAGNOSTICS[name].summary for name in names}
    (console or Console()).print(
        diagnosis_table(title, {name: each.numbers for name, each in found.items()}, summaries, reasons)
    )
    numbers = {metric: value for each in found.values() for metric, value in each.numbers.items()}
    arrays = {f"{name}/{key}": array for name, each in found.items() for key, array in each.arrays.items()}
    return Measured(numbers, arrays)


def _subject(apply: Callable[[Any, Any], Any], params: Params, x: Array, y: Any, wiring: Wiring | None) -> Subject:
    if x.ndim == 0 or len(x) == 0:
        raise UserError(got=f"x of shape {x.shape}", wanted="at least one example", do="Pass examples to measure on.")

    def named(params: Params, state: State, inputs: Any, *, train: bool, key: Key | None = None) -> Any:
        del train, key
        result = apply(params, inputs)
        output, features = result if isinstance(result, tuple) else (result, {})
        return output, features, state

    order: list[str] = []

    def shapes(params: Params, x: Array) -> Any:
        output, features, _ = named(params, {}, x, train=False)
        order.extend(features)  # as they were returned: JAX sorts dictionaries
        return output, features

    output, features = jax.eval_shape(shapes, params, x)
    if len(output.shape) < 2 or output.shape[0] != len(x):
        raise UserError(
            got=f"an output of shape {output.shape} for {len(x)} examples",
            wanted="(batch, out)",
            do="Let `apply` keep the batch axis; a single value is (batch, 1).",
        )
    network = Network(_initializer(None), named, wiring or _plain_wiring(params, features, order))
    losses, targets = _objective(lambda: named(params, {}, x, train=False)[0], y, output.shape)
    return Subject(network, params, {}, Batch(x, targets), losses, jax.random.key(0))


def _objective(
    output: Callable[[], Array], y: Any, shape: tuple[int, ...]
) -> tuple[Callable[[Array, Any], Array], Array]:
    """Cross-entropy for classes, squared error for values, or for no targets that to the output with noise."""

    def squared(output: Array, targets: Array) -> Array:
        return jnp.square(output - targets.reshape(output.shape)).reshape(len(output), -1).mean(axis=1)

    if y is None:
        now = output()
        return squared, now + now.std() * jax.random.normal(jax.random.key(1), now.shape, now.dtype)
    targets = jnp.asarray(y)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        _require(targets.shape in (shape, shape[:1] if shape[1:] == (1,) else shape), targets, f"values {shape}")
        return squared, targets
    _require(targets.shape == shape[:1], targets, f"one class for each example, {shape[:1]}")
    _require(
        int(targets.min()) >= 0 and int(targets.max()) < shape[1],
        f"classes {targets.min()} to {targets.max()}",
        f"0 to {shape[1] - 1}, for {shape[1]} outputs",
    )
    return optax.softmax_cross_entropy_with_integer_labels, targets


def _require(is_so: bool, got: Array | str, wanted: str) -> None:
    if not is_so:
        text = got if isinstance(got, str) else f"y of shape {got.shape}"
        raise UserError(got=text, wanted=wanted, do="Integers are classes, floating-point numbers are values.")


def _plain_wiring(params: Params, features: Any, order: Sequence[str]) -> Wiring:
    """What can be said without a wiring: kernels have two axes or more, and every feature is a layer."""
    layers = tuple(
        HiddenLayer(name, features[name].shape[-1], (), (), activation="unknown", elementwise=True) for name in order
    )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    roles: Any = {leaf_path(path): "matrix" if leaf.ndim >= 2 else "other" for path, leaf in leaves}
    return Wiring(layers, roles, head_input=layers[-1].name if layers else "features")


def _same(params: Params, other: Params | None, name: str) -> tuple[Params, State] | None:
    """Parameters of another moment, with no running statistics."""
    if other is None:
        return None
    shapes = [jax.tree.map(jnp.shape, each) for each in (params, other)]
    if shapes[0] != shapes[1]:
        raise UserError(
            got=f"{name}= of another structure or other shapes than params",
            wanted="parameters of the same network",
            do="Give what `apply` was called with at that moment.",
        )
    return other, {}


def _initializer(init: Callable[[Key], Params] | None) -> Callable[[Key], tuple[Params, State]]:
    def drawn(key: Key) -> tuple[Params, State]:
        if init is None:
            raise UserError(got="no initialiser", wanted="one", do="Give init=, which draws new parameters from a key.")
        return init(key), {}

    return drawn


def _reason(name: str, subject: Subject) -> str | None:
    """Why a diagnostic cannot be measured; None if it can."""
    diagnostic = DIAGNOSTICS[name]
    if diagnostic.measure is None:
        return "follows training; measured by `pliant run`"
    missing = [_NEEDS[field] for field in diagnostic.needs if getattr(subject, field) is None]
    if missing:
        return f"needs {missing[0]}"
    try:
        jax.eval_shape(lambda params: measure(subject._replace(params=params), [name]), subject.params)
    except UserError as error:
        return str(error)
    return None


def _measure(subject: Subject, names: Sequence[str]) -> dict[str, Measured]:
    """All in one program: what they share, such as the forward pass, is computed once."""
    device = jax.jit(lambda params: measure(subject._replace(params=params), names))
    arrays = jax.tree.map(np.asarray, device(subject.params))
    with one_blas_thread():
        return summarize(names, arrays)
