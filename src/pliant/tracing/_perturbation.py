"""Perturbs a function's intermediate arrays without changes to its code."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.tracing._graph import OPEN, called, is_copy
from pliant.types import Features


def perturbable(
    function: Callable[[PyTree], tuple[Array, Features]],
) -> Callable[[PyTree, Features], tuple[Array, Features]]:
    r"""Makes a function whose features can be perturbed through an argument.

    .. math:: h_l = g_l(h_1, \dots, h_{l-1}, x) + \delta_l

    where :math:`\delta` are the perturbations: everything that reads a feature reads the perturbed one. So the
    derivative of the output, or of a later feature, with respect to :math:`\delta_l` is the Jacobian between the two,
    whatever lies between them. Works by tracing: the features that the function returns are found among the
    intermediate values of its program. Where nothing reads a feature because it is a copy (reshaped, transposed, cast,
    behind `stop_gradient`), what it is a copy of is perturbed.

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
      >>> output, found = perturbable(function)(jnp.zeros(2), {"hidden": jnp.array([0.0, 1.0])})
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
        output, returned = jax.tree.unflatten(structure, closed.jaxpr.outvars)
        variables = {name: _origin(closed.jaxpr, variable, output) for name, variable in returned.items()}
        computed = {variable for equation in closed.jaxpr.eqns for variable in equation.outvars}
        added = {
            variables[name][0]: _undone(closed.jaxpr, *variables[name], perturbation)
            for name, perturbation in perturbations.items()
            if name in variables and isinstance(variables[name][0], Var) and variables[name][0] in computed
        }
        if len(added) < len(perturbations):
            raise UserError(
                got=f"perturbations of {', '.join(sorted(perturbations))}",
                wanted=f"features that are computed, each by itself: {', '.join(sorted(shapes[1]))}",
                do="Leave out what is an input, a constant, or the same array as another feature.",
            )
        origins = jax.tree.leaves((output, {name: origin for name, (origin, _) in variables.items()}))
        jaxpr = closed.jaxpr.replace(outvars=origins, debug_info=closed.jaxpr.debug_info.with_unknown_names())
        found = evaluate(jaxpr, closed.consts, jax.tree.leaves(inputs), added)
        result, features = jax.tree.unflatten(structure, found)
        return result, {name: _copied(jaxpr, variables[name][1], each) for name, each in features.items()}

    return run


def flattened(function: Callable[..., Any], *arguments: Any) -> ClosedJaxpr:
    """The program of a function with all compiled functions that it calls inlined, so that each value has one name.

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


def evaluate(jaxpr: Jaxpr, constants: Any, arguments: Any, added: Mapping[Var, Array]) -> list[Any]:
    """Runs a program equation by equation, and adds perturbations to variables as soon as they are computed.

    Requires a `flattened` program, because the variables of compiled functions that it calls cannot be perturbed.
    """
    values: dict[Var, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values |= dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        inner = called(equation) if equation.primitive.name in OPEN else None
        if inner is not None:
            results = evaluate(inner.jaxpr, inner.consts, inputs, {})
        else:
            results = [
                result + added[variable] if variable in added else result
                for variable, result in zip(equation.outvars, run_one(jaxpr, equation, inputs), strict=True)
            ]
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _origin(jaxpr: Jaxpr, variable: Any, output: Any) -> tuple[Any, list[JaxprEqn]]:
    """What a variable that nothing reads is a copy of, and the equations that make the copy."""
    made = {equation.outvars[0]: equation for equation in jaxpr.eqns if len(equation.outvars) == 1}
    equations: list[JaxprEqn] = []
    while isinstance(variable, Var) and variable is not output and (equation := made.get(variable)):
        avals = [[atom.aval for atom in atoms] for atoms in (equation.invars, equation.outvars)]
        readers = [each for each in jaxpr.eqns if any(atom is variable for atom in each.invars)]
        is_read = any(all(each is not own for own in equations) for each in readers)
        if is_read or len(equation.invars) != 1 or not is_copy(equation.primitive.name, *avals):
            break
        (variable,) = equation.invars
        equations.insert(0, equation)
    return variable, equations


def _copied(jaxpr: Jaxpr, equations: list[JaxprEqn], value: Array) -> Array:
    """Makes the copy again, with the derivative of a copy."""
    for equation in equations:
        if equation.primitive.name != "stop_gradient":
            (value,) = run_one(jaxpr, equation, [value])
    return value


def _undone(jaxpr: Jaxpr, origin: Var, equations: list[JaxprEqn], perturbation: Array) -> Array:
    """A change of a copy as one of what it is a copy of: these are permutations, whose transpose is the inverse."""
    if not equations:
        return perturbation
    at = jnp.zeros(origin.aval.shape, origin.aval.dtype)  # type: ignore[attr-defined]
    copied, pull = jax.vjp(lambda value: _copied(jaxpr, equations, value), at)
    return pull(perturbation.astype(copied.dtype))[0]


def run_one(whole: Jaxpr, equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
    """Runs one equation as a program of its own, so that JAX binds functions that have custom rules."""
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
