"""Prepares a user's own network for diagnostics: finds its layers, trained parameters and loss."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from pliant.diagnostics._infer import Form, as_returned, infer
from pliant.diagnostics._objective import find_objective
from pliant.diagnostics._returned import returned
from pliant.diagnostics._subject import widened
from pliant.diagnostics._trained import Trained, find_trained
from pliant.errors import UserError, in_one_line
from pliant.tracing import find_frozen, is_float
from pliant.types import Batch, Key, Network, Params, State, Subject, Wiring


class Examined(NamedTuple):
    """A user's own network, in the form that diagnostics take."""

    subject: Subject
    trained: Trained
    is_traceable: bool
    notes: Mapping[str, str]
    """What cannot be measured, and why."""


def examine(
    apply: Callable[[Any, Any], Any], params: Params, x: Any, y: Any = None, wiring: Wiring | None = None
) -> Examined:
    """Prepares a user's own network for diagnostics, as `pliant.diagnose` does.

    Args:
      apply: as for `pliant.diagnose`, as are the others.
      params: any pytree.
      x: examples.
      y: their targets.
      wiring: by default found in the traced program.

    Returns:
      `Examined`.

    Raises:
      UserError: for no examples, targets that do not fit, and an `apply` that fails or whose output is not clear.

    Example:
      >>> def apply(params, x):
      ...     hidden = jnp.tanh(x @ params["in"])
      ...     return hidden @ params["out"], {"hidden": hidden}
      >>> params = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 1))}
      >>> wiring = examine(apply, params, jnp.ones((5, 3))).subject.network.wiring
      >>> [layer.name for layer in wiring.layers], wiring.roles
      (['hidden'], {'in': 'matrix', 'out': 'head'})
    """
    x = _examples(x)
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
    else:
        notes["apply"] = (
            f"cannot be traced, so that layers are taken as they are returned, the head among kernels: {why}"
        )
    trained = trained.without(frozen)
    function, part = _function(apply, trained, notes), trained.part(params)
    forms: Mapping[str, Form] | None = None
    if wiring is None:
        found = infer(function, part, x) if why is None else as_returned(features, part, output)
        wiring, forms = found.wiring, found.forms
        notes |= found.notes
    if not wiring.layers:
        notes["features"] = "no hidden layer was returned, so that nothing is known of units"
    if frozen:
        notes["frozen"] = f"not measured, since not trained: {', '.join(sorted(frozen))}"
    if trained.others:
        notes["no parameters"] = f"integers, keys and running statistics: {', '.join(trained.others)}"

    def named(params: Params, state: State, inputs: Any, *, train: bool, key: Key | None = None) -> Any:
        del state, train, key
        output, features = function(params, inputs)
        if forms is not None:
            return output, {name: form.of(features) for name, form in forms.items()}, {}
        return output, {name: each for name, each in features.items() if is_float(each) and each.ndim}, {}

    if why is None and y is None:
        output = jax.jit(lambda part: widened(function(part, x)[0]))(part)
    losses, targets = find_objective(output, y)
    network = Network(_no_initializer, named, wiring)
    return Examined(
        Subject(network, part, {}, Batch(x, targets), losses, jax.random.key(0)), trained, why is None, notes
    )


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


def _no_initializer(key: Key) -> tuple[Params, State]:
    del key
    raise UserError(got="no initialiser", wanted="one", do="Give init=, which draws new parameters from a key.")
