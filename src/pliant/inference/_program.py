"""A network's traced program, written out: compiled functions inlined, short loops unrolled."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, PyTree

from pliant.diagnostics.tracing import OPEN, Graph, called, run_one

_LONGEST_LOOP = 64
"""Iterations of a loop over stacked layers that is unrolled."""
_COPIES = frozenset(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy copy_p stop_gradient "
    "optimization_barrier reduce_precision".split()
)


class Place(NamedTuple):
    """An intermediate value of a program, named so that the same program for another batch has it too."""

    number: int
    """Of the equation, counted without copies: whether an axis of length 1 is broadcast depends on the batch."""
    output: int
    """Which of its outputs."""


class Program:
    """The flattened program of `function(*arguments)`, and its graph.

    Example:
      >>> program = Program(lambda x: jax.jit(jnp.sin)(x) + 1, 1.0)
      >>> [equation.primitive.name for equation in program.closed.eqns]
      ['sin', 'add']
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        traced, self.returned = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.closed: ClosedJaxpr = jax.make_jaxpr(lambda *leaves: _written_out(traced.jaxpr, traced.consts, leaves))(
            *traced.in_avals
        )

    @property
    def significant(self) -> list[JaxprEqn]:
        """The equations that are no copies."""
        return [each for each in self.closed.eqns if each.primitive.name not in _COPIES]

    def variable(self, place: Place) -> Var:
        """The variable at a place."""
        return self.significant[place.number].outvars[place.output]

    def evaluate(self, variables: Sequence[Any], arguments: Sequence[Any]) -> list[Array]:
        """The values of some variables."""
        jaxpr = self.closed.jaxpr
        found = jaxpr.replace(outvars=list(variables), debug_info=jaxpr.debug_info.with_unknown_names())
        return jaxpr_as_fun(ClosedJaxpr(found, self.closed.consts))(*arguments)


class NumberedGraph(Graph):
    """The graph of a program that knows the variable and the place of each of its values."""

    def __init__(self, program: Program):
        self._found: list[list[int]] = []
        super().__init__(program.closed)
        jaxpr = program.closed.jaxpr
        self.variables: dict[int, Any] = dict(zip(self.inputs, jaxpr.invars, strict=True))
        self.places: dict[int, Place] = {}
        number = 0
        for equation, values in zip(jaxpr.eqns, self._found, strict=True):
            is_copy = equation.primitive.name in _COPIES
            for output, value in enumerate(values):
                self.variables.setdefault(value, equation.outvars[output])
                if not is_copy:
                    self.places.setdefault(value, Place(number, output))
            number += not is_copy

    def _equation(self, equation: JaxprEqn, inputs: list[int]) -> list[int]:
        is_outer = self._scope == 0
        found = super()._equation(equation, inputs)
        if is_outer:
            self._found.append(found)
        return found


def _written_out(jaxpr: Jaxpr, constants: Any, arguments: Any) -> list[Any]:
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        inner = called(equation) if equation.primitive.name in OPEN else None
        if inner is not None:
            results = _written_out(inner.jaxpr, inner.consts, inputs)
        elif equation.primitive.name == "scan" and equation.params["length"] <= _LONGEST_LOOP:
            results = _unrolled(equation.params, inputs)
        else:
            results = run_one(jaxpr, equation, inputs)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _unrolled(params: Any, inputs: list[Any]) -> list[Any]:
    body, num_consts, num_carry = params["jaxpr"], params["num_consts"], params["num_carry"]
    constants, carried = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
    arrays: list[Any] = inputs[num_consts + num_carry :]
    order = range(params["length"])
    stacked: dict[int, list[Any]] = {}
    for i in reversed(order) if params["reverse"] else order:
        of_step = [jax.lax.index_in_dim(array, i, keepdims=False) for array in arrays]
        found = _written_out(body.jaxpr, body.consts, [*constants, *carried, *of_step])
        carried, stacked[i] = found[:num_carry], found[num_carry:]
    num_stacked = len(body.jaxpr.outvars) - num_carry
    if not order:
        return [*carried, *(jnp.zeros((0, *v.aval.shape), v.aval.dtype) for v in body.jaxpr.outvars[num_carry:])]
    return [*carried, *(jnp.stack([stacked[i][k] for i in order]) for k in range(num_stacked))]


def leaves_of(tree: PyTree) -> list[Any]:
    """The leaves of a pytree."""
    return jax.tree.leaves(tree)
