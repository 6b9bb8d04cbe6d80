"""Finds the equations that consume each parameter, so that derivatives can be taken at their outputs."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, Float, PyTree

from pliant.tracing._perturbation import evaluate, flattened, run_one
from pliant.types import leaf_path

_SAME_NUMBERS = ("reshape", "squeeze", "transpose")


class Program(NamedTuple):
    """A function of parameters and one example."""

    closed: ClosedJaxpr
    """Its arguments are the leaves of the parameters, then those of the example."""
    paths: tuple[str, ...]
    """Of the parameters, as `leaf_path` names them."""
    leaves: tuple[Array, ...]
    """The parameters."""
    examples: tuple[Array, ...]
    """The leaves of all examples."""

    @property
    def output(self) -> Any:
        """The type of one example's output, (out)."""
        return self.closed.out_avals[0]


class ParameterUse(NamedTuple):
    """The equations that consume one parameter leaf, at whose outputs derivatives are taken."""

    leaf: int
    """Which of the program's parameters."""
    perturbed: tuple[Any, ...]
    """The variables that are perturbed: the leaf itself, or all that its consumers compute."""
    equations: tuple[JaxprEqn, ...] = ()
    """The consumers; none where the leaf itself is perturbed."""
    operands: tuple[Any, ...] = ()
    """What they read that may depend on the example."""
    is_product: bool = False
    """Whether there is one consumer, and it multiplies the leaf, as a matrix, by the operand, a vector."""

    @property
    def size(self) -> int:
        """How many numbers are perturbed."""
        return sum(variable.aval.size for variable in self.perturbed)


class Derivatives(NamedTuple):
    """What `derivatives_at` finds at a use; the first axis of all arrays is that of the examples."""

    outputs: tuple[Array, ...]
    """By each perturbed variable, (examples, combinations of outputs, …)."""
    operands: tuple[Array, ...]
    """The values of the use's operands."""


def program_of(function: Callable[[Any, Any], Array], params: PyTree, inputs: PyTree) -> Program:
    """Traces `function(params, inputs) -> (batch, out)` for one example, whose output is then (out)."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)

    def of_one(params: PyTree, example: PyTree) -> Array:
        return function(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    closed = flattened(of_one, params, one)
    paths = tuple(leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    return Program(closed, paths, tuple(jax.tree.leaves(params)), tuple(jax.tree.leaves(inputs)))


def longest_array(program: Program) -> int:
    """Numbers in the longest array that is computed from an example."""
    depending = set(program.closed.jaxpr.invars[len(program.leaves) :])
    longest = 1
    for equation in program.closed.eqns:
        if any(isinstance(atom, Var) and atom in depending for atom in equation.invars):
            depending |= set(equation.outvars)
            longest = max(longest, *(_size(atom) for atom in equation.outvars))
    return longest


def at_leaf(program: Program, index: int) -> ParameterUse:
    """The leaf itself: right for any program."""
    return ParameterUse(index, (program.closed.jaxpr.invars[index],))


def at_consumers(program: Program, index: int) -> ParameterUse | None:
    """All consumers of the leaf; None if nothing does, or if the program returns it."""
    leaf = program.closed.jaxpr.invars[index]
    equations = _consumers(program, leaf)
    if not equations or leaf in program.closed.jaxpr.outvars:
        return None
    outputs = tuple(atom for each in equations for atom in each.outvars if is_float(atom.aval))
    given = {leaf, *program.closed.jaxpr.invars[: len(program.leaves)], *program.closed.jaxpr.constvars}
    read = dict.fromkeys(atom for each in equations for atom in each.invars if isinstance(atom, Var))
    return ParameterUse(index, outputs, equations, tuple(atom for atom in read if atom not in given))


def at_product(program: Program, index: int) -> ParameterUse | None:
    """The product of the leaf, as a matrix, and one vector of each example; None if it is read in another way."""
    variable = program.closed.jaxpr.invars[index]
    while (equation := _only_consumer(program, variable)) and equation.primitive.name in _SAME_NUMBERS:
        (variable,) = equation.outvars
    if equation is None or equation.primitive.name != "dot_general":
        return None
    place = equation.invars.index(variable)
    other: Any = equation.invars[1 - place]
    contracted, batched = equation.params["dimension_numbers"]
    num_contracted = math.prod(other.aval.shape[axis] for axis in contracted[1 - place])
    if isinstance(other, Literal) or any(batched) or other.aval.size != num_contracted:
        return None
    return ParameterUse(index, tuple(equation.outvars), (equation,), (other,), is_product=True)


def derivatives_at(
    program: Program, uses: Sequence[ParameterUse], combinations: Float[Array, "combinations out"], at_once: int
) -> list[Derivatives]:
    """Derivatives of combinations of the outputs with respect to what is perturbed, by a backward pass for each.

    Args:
      program: of one example.
      uses: of the parameters in question.
      combinations: coefficients of the outputs.
      at_once: how many examples are differentiated together.
    """
    closed, num_leaves = program.closed, len(program.leaves)
    variables = [variable for use in uses for variable in use.perturbed]
    operands = [atom for use in uses for atom in use.operands]
    jaxpr = closed.jaxpr.replace(
        outvars=[*closed.jaxpr.outvars, *operands], debug_info=closed.jaxpr.debug_info.with_unknown_names()
    )

    def of_one(example: tuple[Array, ...]) -> tuple[list[Array], list[Array]]:
        def perturbed(perturbations: list[Array]) -> tuple[Array, list[Array]]:
            added = dict(zip(variables, perturbations, strict=True))
            leaves = zip(jaxpr.invars[:num_leaves], program.leaves, strict=True)
            arguments = [value + added[leaf] if leaf in added else value for leaf, value in leaves]
            output, *found = evaluate(jaxpr, closed.consts, [*arguments, *example], added)
            return output, found

        zeros = [jnp.zeros(variable.aval.shape, variable.aval.dtype) for variable in variables]
        _, pull, found = jax.vjp(perturbed, zeros, has_aux=True)
        return jax.vmap(pull)(combinations)[0], found

    outputs, operand_values = map(iter, map_examples(of_one, program.examples, at_once))
    return [
        Derivatives(tuple(next(outputs) for _ in use.perturbed), tuple(next(operand_values) for _ in use.operands))
        for use in uses
    ]


def parameter_derivatives(
    program: Program, use: ParameterUse, derivatives: Derivatives
) -> Float[Array, "combinations size"]:
    """The derivatives of one example by the leaf, from those at its consumers' outputs."""
    if not use.equations:
        return derivatives.outputs[0].reshape(len(derivatives.outputs[0]), -1)
    jaxpr = program.closed.jaxpr
    leaf = jaxpr.invars[use.leaf]
    values = dict(zip(jaxpr.constvars, program.closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, program.leaves, strict=False))
    values |= dict(zip(use.operands, derivatives.operands, strict=True))

    def read(parameters: Array) -> list[Array]:
        known = values | {leaf: parameters}
        results = []
        for equation in use.equations:
            inputs = [atom.val if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
            outputs = zip(equation.outvars, run_one(jaxpr, equation, inputs), strict=True)
            results += [output for atom, output in outputs if is_float(atom.aval)]
        return results

    _, pull = jax.vjp(read, program.leaves[use.leaf])
    found = jax.vmap(lambda outputs: pull(outputs)[0])(list(derivatives.outputs))
    return found.reshape(len(found), -1)


def map_examples(function: Callable[[Any], Any], examples: PyTree, at_once: int) -> Any:
    """Maps a function over examples, so many at a time."""
    if at_once >= len(jax.tree.leaves(examples)[0]):
        return jax.vmap(function)(examples)
    return jax.lax.map(function, examples, batch_size=at_once)


def is_float(array: Any) -> bool:
    """Whether an array, or the type of one, has derivatives."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _consumers(program: Program, variable: Any) -> tuple[JaxprEqn, ...]:
    return tuple(each for each in program.closed.eqns if any(atom is variable for atom in each.invars))


def _only_consumer(program: Program, variable: Any) -> JaxprEqn | None:
    """What reads the variable, if that is one equation, which reads it once, and it is not returned."""
    uses = [each for each in program.closed.eqns for atom in each.invars if atom is variable]
    return uses[0] if len(uses) == 1 and variable not in program.closed.jaxpr.outvars else None


def _size(atom: Any) -> int:
    return math.prod(getattr(atom.aval, "shape", ()))
