"""A traced program as a graph of operations, including those of all programs that it calls."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

REMAT = ("remat2", "remat", "checkpoint")
"""`jax.checkpoint`, by the versions of JAX."""
OPEN = ("jit", "pjit", "closed_call", "core_call", *REMAT)
"""Calls that can be written out without changing a derivative."""
_BODY = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_COPIES = ("reshape", "transpose", "squeeze", "expand_dims", "copy", "copy_p", "optimization_barrier", "stop_gradient")


class Node(NamedTuple):
    """One equation. Values are numbered; constants are values that no node computes."""

    name: str
    """Of the primitive; "loop" is what an iteration starts from, "loop_end" what a loop leaves, "slice_of" what an
    iteration reads of an array, "stack_of" what it adds to one, "merge" what one of several branches computes."""
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: int
    """0, or the number of the outermost loop, branch or function with derivatives of its own that it is part of."""


def scanned(params: Mapping[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """What a scan gets: constants, what it carries, and arrays of which each iteration reads a slice.

    Args:
      params: of the equation; JAX 0.11 names them differently.
      inputs: of the equation or of its body.
    """
    if "ft_in" in params:
        sizes = [len(tree) for tree in params["ft_in"].unpack()]
    else:
        sizes = [params["num_consts"], params["num_carry"]]
    end = sizes[0] + sizes[1]
    return list(inputs[: sizes[0]]), list(inputs[sizes[0] : end]), list(inputs[end:])


class Graph:
    """The values and nodes of a program, in the order of computation.

    Example:
      >>> graph = graph_of(lambda x: jax.jit(jax.numpy.sin)(x) + 1, 1.0)
      >>> [node.name for node in graph.nodes]
      ['sin', 'add']
    """

    def __init__(self, closed: ClosedJaxpr):
        self.nodes: list[Node] = []
        self.avals: list[Any] = []
        self._literals: dict[int, str] = {}
        self._scope = self._num_scopes = 0
        self.inputs = [self._value(variable.aval) for variable in closed.jaxpr.invars]
        self.outputs = self._run(closed.jaxpr, self.inputs)
        self.producer = {value: node for node in self.nodes for value in node.outputs}
        self.readers: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                self.readers[value].append(node)
        self.position = {value: i for i, node in enumerate(self.nodes) for value in node.outputs}

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a value."""
        return tuple(getattr(self.avals[value], "shape", ()))

    def above(self, values: Iterable[int], stop: Iterable[int] = (), without: Sequence[str] = ()) -> set[int]:
        """What values are computed from, they themselves among it.

        Nothing beyond those in `stop`, and not through nodes named `without`.
        """
        ends = set(stop)

        def inputs(value: int) -> tuple[int, ...]:
            node = self.producer.get(value)
            return () if node is None or value in ends or node.name in without else node.inputs

        return _reach(values, inputs)

    def below(self, values: Iterable[int], without: Sequence[str] = ()) -> set[int]:
        """What is computed from values, they themselves among it; not through nodes named `without`."""

        def outputs(value: int) -> list[int]:
            return [out for node in self.readers[value] if node.name not in without for out in node.outputs]

        return _reach(values, outputs)

    def original(self, value: int) -> int:
        """What a value that nothing reads is a copy of: reshaped, transposed, cast, or put together by a loop."""
        seen: list[Node] = []
        while (node := self.producer.get(value)) and self._is_copy(node):
            if any(all(each is not own for own in seen) for each in self.readers[value]):
                break
            value = node.inputs[node.outputs.index(value)]
            seen.append(node)
        return value

    def numbers(self) -> dict[int, Any]:
        """By value, a number that it shares with all that are computed from the same values in the same way."""
        known: dict[Any, int] = {}
        numbers: dict[int, Any] = {value: known.setdefault(text, value) for value, text in self._literals.items()}
        for node in self.nodes:
            inputs = tuple(numbers.get(value, value) for value in node.inputs)
            for i, value in enumerate(node.outputs):
                numbers[value] = known.setdefault((node.name, inputs, str(node.params), i), value)
        return numbers

    def is_read(self, value: int) -> bool:
        """Whether something is computed from a value, copies that nothing reads apart."""
        return any(not self._is_copy(node) or any(map(self.is_read, node.outputs)) for node in self.readers[value])

    def can_be_perturbed(self, value: int) -> bool:
        """Whether all that reads a value can be made to read another, and it is neither an input nor a constant."""
        node = self.producer.get(value)
        return node is not None and (node.scope == 0 or all(each.scope != node.scope for each in self.readers[value]))

    def _is_copy(self, node: Node) -> bool:
        return node.name == "stack_of" or is_copy(
            node.name, [self.avals[value] for value in node.inputs], [self.avals[node.outputs[0]]]
        )

    def _value(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def _literal(self, atom: Any) -> int:
        value = self._value(atom.aval)
        self._literals[value] = f"{atom.aval} {atom.val}"
        return value

    def _node(self, name: str, inputs: Sequence[int], avals: Sequence[Any], params: Mapping[str, Any]) -> list[int]:
        outputs = [self._value(aval) for aval in avals]
        self.nodes.append(Node(name, params, tuple(inputs), tuple(outputs), self._scope))
        return outputs

    def _run(self, jaxpr: Jaxpr, arguments: Sequence[int]) -> list[int]:
        known: dict[Var, int] = {variable: self._value(variable.aval) for variable in jaxpr.constvars}
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> int:
            return self._literal(atom) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: JaxprEqn, inputs: list[int]) -> list[int]:
        name, avals = equation.primitive.name, [variable.aval for variable in equation.outvars]
        body = called(equation)
        if body is not None and name in OPEN:
            return self._run(body.jaxpr, inputs)
        outer = self._scope
        if outer == 0:
            self._num_scopes += 1
            self._scope = self._num_scopes
        try:
            if body is not None:
                return self._run(body.jaxpr, inputs)
            if name == "scan":
                return self._scan(equation.params, inputs, avals)
            if name == "while":
                return self._while(equation.params, inputs, avals)
            if name == "cond":
                branches = [self._run(each.jaxpr, inputs[1:]) for each in equation.params["branches"]]
                each_out = zip(*branches, strict=True)
                return [
                    self._node("merge", [inputs[0], *found], [aval], {})[0]
                    for found, aval in zip(each_out, avals, strict=True)
                ]
        finally:
            self._scope = outer
        return self._node(name, inputs, avals, equation.params)

    def _loop(
        self, first: Sequence[int], body: Callable[[list[int]], list[int]], *, may_skip: bool
    ) -> tuple[list[int], list[int]]:
        """What an iteration computes, and what the last one leaves; or what was there before, if there may be none."""
        carried = [self._value(self.avals[value]) for value in first]
        place = len(self.nodes)
        found = body(carried)
        triples = list(zip(carried, first, found, strict=False))
        self.nodes[place:place] = [Node("loop", {}, (init, end), (start,), self._scope) for start, init, end in triples]
        ends = [
            self._node("loop_end", (end, init) if may_skip else (end,), [self.avals[init]], {})[0]
            for _, init, end in triples
        ]
        return found, ends

    def _scan(self, params: Mapping[str, Any], inputs: list[int], avals: Sequence[Any]) -> list[int]:
        closed = params["jaxpr"]
        constants, first, arrays = scanned(params, inputs)
        of_arrays = scanned(params, closed.jaxpr.invars)[2]

        def body(carried: list[int]) -> list[int]:
            read = [self._node("slice_of", [array], [v.aval], {}) for array, v in zip(arrays, of_arrays, strict=True)]
            return self._run(closed.jaxpr, [*constants, *carried, *(each[0] for each in read)])

        found, ends = self._loop(first, body, may_skip=params["length"] == 0)
        stacked = [
            self._node("stack_of", [value, *arrays], [aval], {})[0]
            for value, aval in zip(found[len(first) :], avals[len(first) :], strict=True)
        ]
        return [*ends, *stacked]

    def _while(self, params: Mapping[str, Any], inputs: list[int], avals: Sequence[Any]) -> list[int]:
        del avals
        condition, body = params["cond_jaxpr"], params["body_jaxpr"]
        of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
        constants = inputs[of_condition : of_condition + of_body]

        def run(carried: list[int]) -> list[int]:
            self._run(condition.jaxpr, [*inputs[:of_condition], *carried])
            return self._run(body.jaxpr, [*constants, *carried])

        return self._loop(inputs[of_condition + of_body :], run, may_skip=True)[1]


def graph_of(function: Callable[..., Any], *arguments: Any) -> Graph:
    """The graph of a function; its inputs and outputs are the leaves of the arguments and of what is returned.

    Args:
      function: traceable.
      arguments: pytrees of arrays or their shapes.

    Example:
      >>> graph = graph_of(lambda x, y: (x * y, x), 1.0, 2.0)
      >>> graph.outputs[1] == graph.inputs[0], len(graph.nodes)
      (True, 1)
    """
    return Graph(jax.make_jaxpr(function)(*arguments))


def called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an equation runs once on its inputs; None if it does something else."""
    body = next((equation.params[name] for name in _BODY if name in equation.params), None)
    if isinstance(body, Jaxpr) and not isinstance(body, ClosedJaxpr):  # one class since JAX 0.11
        body = ClosedJaxpr(body, ()) if not body.constvars else None
    if not isinstance(body, ClosedJaxpr) or equation.primitive.name in ("scan", "while", "cond"):
        return None
    own = [[atom.aval for atom in atoms] for atoms in (equation.invars, equation.outvars)]
    return body if _types(body.in_avals, body.out_avals) == _types(*own) else None


def is_copy(name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Whether an operation returns the numbers of its input, perhaps in another shape or precision."""
    if name == "convert_element_type":
        return all(jax.numpy.issubdtype(aval.dtype, jax.numpy.floating) for aval in (inputs[0], outputs[0]))
    if name == "broadcast_in_dim":
        return bool(inputs[0].size == outputs[0].size)
    return name in _COPIES


def _types(*avals: Sequence[Any]) -> list[list[tuple[Any, Any]]]:
    return [[(getattr(aval, "shape", None), getattr(aval, "dtype", None)) for aval in each] for each in avals]


def _reach(values: Iterable[int], step: Callable[[int], Iterable[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in found:
            found.add(value)
            waiting += step(value)
    return found
