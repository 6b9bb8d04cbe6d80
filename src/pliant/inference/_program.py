"""A network's traced program, written out: compiled functions inlined, short loops unrolled."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array

from pliant.tracing import OPEN, REMAT, Graph, called, run_one, scanned

_LONGEST_LOOP = 64
"""Iterations of a loop over stacked layers that is unrolled."""
COPIES = frozenset(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy copy_p stop_gradient "
    "optimization_barrier reduce_precision".split()
)


class Program:
    """The flattened program of `function(*arguments)`.

    Its *results* are what its equations compute, copies left out: whether an axis of length 1 is broadcast depends on
    the batch. So the same program for another batch has the same results, in the same order.

    Example:
      >>> program = Program(lambda x: jax.jit(jnp.sin)(x) + 1, 1.0)
      >>> [equation.primitive.name for equation in program.closed.eqns], program.names
      (['sin', 'add'], ('sin', 'add'))
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        traced, self.returned = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.names = _names(traced.jaxpr)

        def written(*leaves: Any) -> tuple[list[Any], list[Any]]:
            tape = _Tape()
            return _written_out(traced.jaxpr, traced.consts, leaves, tape), list(tape.found.values())

        whole: ClosedJaxpr = jax.make_jaxpr(written)(*traced.in_avals)
        number, outvars = len(traced.jaxpr.outvars), whole.jaxpr.outvars
        debug_info = whole.jaxpr.debug_info.with_unknown_names()
        self.closed = ClosedJaxpr(whole.jaxpr.replace(outvars=outvars[:number], debug_info=debug_info), whole.consts)
        self.results: list[Any] = outvars[number:]


def run_with_results(
    function: Callable[..., Any], arguments: Any, names: tuple[str, ...], wanted: Collection[int]
) -> tuple[Any, dict[int, Array]] | int:
    """Calls a function, and returns some of its program's results with what it returns.

    Loops and compiled functions without these stay as they are, and `jax.checkpoint` always does.

    Args:
      function: traceable.
      arguments: of the function.
      names: of the program's results, as `Program` found them.
      wanted: which results.

    Returns:
      What the function returns and the results; the number of results if they are others than `names`.
    """
    traced, returned = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found = _names(traced.jaxpr)
    if found != names:
        return len(found)
    tape = _Tape(wanted)
    outputs = _written_out(traced.jaxpr, traced.consts, jax.tree.leaves(arguments), tape)
    return jax.tree.unflatten(jax.tree.structure(returned), outputs), tape.found


class NumberedGraph(Graph):
    """The graph of a program that knows the variable of each value, and which result it is."""

    def __init__(self, program: Program):
        self._found: list[list[int]] = []
        super().__init__(program.closed)
        jaxpr = program.closed.jaxpr
        self.variables: dict[int, Any] = dict(zip(self.inputs, jaxpr.invars, strict=True))
        self.results: dict[int, int] = {}
        numbers = {variable: i for i, variable in enumerate(program.results) if isinstance(variable, Var)}
        for equation, values in zip(jaxpr.eqns, self._found, strict=True):
            for value, variable in zip(values, equation.outvars, strict=True):
                self.variables.setdefault(value, variable)
                if variable in numbers:
                    self.results.setdefault(value, numbers[variable])

    def _equation(self, equation: JaxprEqn, inputs: list[int]) -> list[int]:
        is_outer = self._scope == 0
        found = super()._equation(equation, inputs)
        if is_outer:
            self._found.append(found)
        return found


class _Tape:
    """Counts the results of a program that runs, and keeps those that are wanted."""

    def __init__(self, wanted: Collection[int] | None = None, number: int = 0):
        self.wanted, self.number = wanted, number
        self.found: dict[int, Any] = {}

    def wants(self, number: int) -> bool:
        """Whether any of so many next results is wanted."""
        return self.wanted is None or any(self.number <= each < self.number + number for each in self.wanted)

    def add(self, results: list[Any]) -> None:
        for result in results:
            if self.wants(1):
                self.found[self.number] = result
            self.number += 1


def _names(jaxpr: Jaxpr) -> tuple[str, ...]:
    """Of the equations that compute a program's results."""
    return tuple(name for equation in jaxpr.eqns for name in _names_of(equation))


def _names_of(equation: JaxprEqn) -> tuple[str, ...]:
    if (inner := _inner(equation)) is not None:
        return _names(inner.jaxpr)
    if _is_unrolled(equation):
        return _names(equation.params["jaxpr"].jaxpr) * equation.params["length"]
    name = equation.primitive.name
    return () if name in COPIES else (name,) * len(equation.outvars)


def _inner(equation: JaxprEqn) -> ClosedJaxpr | None:
    return called(equation) if equation.primitive.name in OPEN else None


def _is_unrolled(equation: JaxprEqn) -> bool:
    return equation.primitive.name == "scan" and equation.params["length"] <= _LONGEST_LOOP


def _written_out(jaxpr: Jaxpr, constants: Any, arguments: Any, tape: _Tape) -> list[Any]:
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs, inner, number = [read(atom) for atom in equation.invars], _inner(equation), len(_names_of(equation))
        if not tape.wants(number):
            results = run_one(jaxpr, equation, inputs)
            tape.number += number
        elif inner is not None and equation.primitive.name in REMAT and tape.wanted is not None:
            results = _checkpointed(equation, inner, inputs, tape)
        elif inner is not None:
            results = _written_out(inner.jaxpr, inner.consts, inputs, tape)
        elif _is_unrolled(equation):
            results = _unrolled(equation.params, inputs, tape)
        else:
            results = run_one(jaxpr, equation, inputs)
            tape.add(results[:number])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _checkpointed(equation: JaxprEqn, inner: ClosedJaxpr, inputs: list[Any], tape: _Tape) -> list[Any]:
    """The same call of `jax.checkpoint`, which also returns what is wanted of it."""

    def body(*inputs: Any) -> tuple[list[Any], dict[int, Any]]:
        own = _Tape(tape.wanted, tape.number)
        return _written_out(inner.jaxpr, inner.consts, inputs, own), own.found

    options = {name: equation.params[name] for name in ("prevent_cse", "policy")}
    results, found = jax.checkpoint(body, **options)(*inputs)
    tape.found |= found
    tape.number += len(_names(inner.jaxpr))
    return list(results)


def _unrolled(params: Any, inputs: list[Any], tape: _Tape) -> list[Any]:
    body = params["jaxpr"]
    constants, carried, arrays = scanned(params, inputs)
    num_carry = len(carried)
    order = range(params["length"])
    stacked: dict[int, list[Any]] = {}
    for i in reversed(order) if params["reverse"] else order:
        of_step = [jax.lax.index_in_dim(array, i, keepdims=False) for array in arrays]
        found = _written_out(body.jaxpr, body.consts, [*constants, *carried, *of_step], tape)
        carried, stacked[i] = found[:num_carry], found[num_carry:]
    num_stacked = len(body.jaxpr.outvars) - num_carry
    if not order:
        return [*carried, *(jnp.zeros((0, *v.aval.shape), v.aval.dtype) for v in body.jaxpr.outvars[num_carry:])]
    return [*carried, *(jnp.stack([stacked[i][k] for i in order]) for k in range(num_stacked))]
