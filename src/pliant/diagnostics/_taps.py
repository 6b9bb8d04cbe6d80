"""Perturbing a function's intermediate arrays where they are, without asking anything of whoever wrote it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.types import Features

_INLINED = ("jit", "pjit", "closed_call")


def tapped(
    function: Callable[[PyTree], tuple[Array, Features]],
) -> Callable[[PyTree, Features], tuple[Array, Features]]:
    r"""Makes a function whose features can be perturbed from outside.

    .. math:: h_l = g_l(h_1, \dots, h_{l-1}, x) + \delta_l

    where :math:`\delta` are the perturbations: everything that reads a feature reads the perturbed one. So the
    derivative of the output, or of a later feature, with respect to :math:`\delta_l` is the Jacobian between the two,
    whatever lies between them. Works by tracing: the features that the function returns are found among the
    intermediate values of its program. A network must return what it goes on with, not a copy that was reshaped or
    cast: nothing reads a copy, and derivatives with respect to it are 0.

    Args:
      function: `function(inputs) -> (output, features)`, traceable.

    Returns:
      `(inputs, perturbations) -> (output, features)`; perturbations are arrays of the shapes of the features that they
      are added to, and those of some features are enough.

    Raises:
      UserError: when called, for the perturbation of something that is no feature, or is an input or a constant.

    Example:
      >>> import jax.numpy as jnp
      >>> def function(x):
      ...     hidden = jnp.tanh(x)
      ...     return 3 * hidden, {"hidden": hidden}
      >>> output, found = tapped(function)(jnp.zeros(2), {"hidden": jnp.array([0.0, 1.0])})
      >>> output.tolist(), found["hidden"].tolist()
      ([0.0, 3.0], [0.0, 1.0])

    References:
      JAX, `Writing custom Jaxpr interpreters
      <https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html>`_.

    Differs from:
      Flax's `perturb`, which must be written into the module.
    """

    def run(inputs: PyTree, perturbations: Features) -> tuple[Array, Features]:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(inputs)
        closed = _inlined(traced)
        structure = jax.tree.structure(shapes)
        _, variables = jax.tree.unflatten(structure, closed.jaxpr.outvars)
        computed = {variable for equation in closed.jaxpr.eqns for variable in equation.outvars}
        taps = {
            variables[name]: perturbation
            for name, perturbation in perturbations.items()
            if isinstance(variables.get(name), Var) and variables[name] in computed
        }
        if len(taps) < len(perturbations):
            raise UserError(
                got=f"perturbations of {', '.join(sorted(perturbations))}",
                wanted=f"features that are computed, each by itself: {', '.join(sorted(shapes[1]))}",
                do="Leave out what is an input, a constant, or the same array as another feature.",
            )
        found = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(inputs), taps)
        output, features = jax.tree.unflatten(structure, found)
        return output, features

    return run


def flattened(function: Callable[..., Any], *arguments: Any) -> ClosedJaxpr:
    """The program of a function with all compiled functions that it calls written out, so that each value has one name.

    Args:
      function: traceable.
      arguments: pytrees of arrays or their shapes; the program takes their leaves.

    Example:
      >>> program = flattened(lambda x: jax.jit(jax.numpy.sin)(x), 1.0)
      >>> [equation.primitive.name for equation in program.eqns]
      ['sin']
    """
    return _inlined(jax.make_jaxpr(function)(*arguments))


def _inlined(closed: ClosedJaxpr) -> ClosedJaxpr:
    avals = closed.in_avals
    return jax.make_jaxpr(lambda *leaves: evaluate(closed.jaxpr, closed.consts, leaves, {}))(*avals)


def evaluate(jaxpr: Jaxpr, constants: Any, arguments: Any, taps: Mapping[Var, Array]) -> list[Any]:
    """Runs a program equation by equation and adds to the tapped variables as soon as they are there.

    Variables of compiled functions that it calls cannot be tapped: it wants a `flattened` program.
    """
    values: dict[Var, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values |= dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _INLINED:
            inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            results = evaluate(inner.jaxpr, inner.consts, inputs, {})
        else:
            results = [
                result + taps[variable] if variable in taps else result
                for variable, result in zip(equation.outvars, run_one(jaxpr, equation, inputs), strict=True)
            ]
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def run_one(whole: Jaxpr, equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
    """Runs one equation as a program of its own: how functions with rules of their own are bound is JAX's affair."""
    known = {atom: value for atom, value in zip(equation.invars, inputs, strict=True) if isinstance(atom, Var)}
    program = whole.replace(
        constvars=[],
        invars=list(known),
        outvars=equation.outvars,
        eqns=[equation],
        effects=equation.effects,
        debug_info=whole.debug_info.with_unknown_names(),
    )
    return jaxpr_as_fun(ClosedJaxpr(program, []))(*known.values())
