"""Counts the arithmetic of a traced program over many updates; branches count as often as they are taken."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_SCALARS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "min": np.minimum,
    "max": np.maximum,
    "sign": np.sign,
    "floor": np.floor,
    "rem": np.fmod,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": lambda x: ~x if x.dtype == bool else np.invert(x),
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
    "squeeze": lambda x: x,
    "reshape": lambda x: x,
    "broadcast_in_dim": lambda x: x,
}
"""What decides about branches, on one number for each update."""
_FREE = frozenset(
    "broadcast_in_dim concatenate convert_element_type copy dynamic_slice iota pad random_unwrap random_wrap reshape "
    "rev select_n slice squeeze stop_gradient transpose".split()
)
"""Fused into what uses it, or nothing at all."""
_FACTORIZATIONS = frozenset("cholesky eig eigh geqrf householder_product lu qr schur svd triangular_solve".split())
_RANDOM = 50  # integer operations of Threefry for a number


class Work(NamedTuple):
    """Arithmetic of a program."""

    products: float = 0.0
    """Floating-point operations of matrix products and convolutions."""
    elements: float = 0.0
    """Results of all else, one number each."""
    kernels: float = 0.0
    """Operations that an accelerator starts one by one."""

    def __add__(self, other: Any) -> "Work":
        """Both together."""
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> "Work":
        """The same several times."""
        return Work(*(each * factor for each in self))


class _Known(NamedTuple):
    """What a scalar is in each of the updates."""

    values: np.ndarray


def count_work(function: Callable[..., Any], steps: Sequence[int] | np.ndarray, *arguments: Any) -> Work:
    """The mean work of `function(step, *arguments)` over steps.

    Nothing is computed but what is known of scalars: a branch that depends on the step counts with the share of the
    steps that take it. Where that is not known, the branch with the most work counts.

    Args:
      function: may be traced.
      steps: whole numbers.
      *arguments: arrays, or their shapes and types. Scalars that are Python's or NumPy's numbers are known.

    Example:
      >>> def update(step, x):
      ...     return jax.lax.cond(step % 10 == 0, lambda: (x @ x).sum(), lambda: 0.0)
      >>> count_work(update, range(100), jax.ShapeDtypeStruct((10, 10), "float32")).products
      200.0
    """
    traced = jax.make_jaxpr(function)(np.int32(0), *arguments)
    num = len(steps)
    leaves = jax.tree.leaves(arguments)
    known = [_Known(np.asarray(steps, np.int32)), *(_known(leaf, num) for leaf in leaves)]
    work, _ = _of_jaxpr(traced.jaxpr, [_known(each, num) for each in traced.consts], known, num)
    return work


def _known(leaf: Any, num: int) -> _Known | None:
    if isinstance(leaf, bool | int | float | np.generic | np.ndarray) and np.ndim(leaf) == 0:
        return _Known(np.broadcast_to(np.asarray(leaf), (num,)))
    return None


def _of_jaxpr(
    jaxpr: Jaxpr, consts: Sequence[_Known | None], inputs: Sequence[_Known | None], num: int
) -> tuple[Work, list[_Known | None]]:
    """The mean work of a program, and what is known of its results."""
    known: dict[Any, _Known | None] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> _Known | None:
        return _known(atom.val, num) if isinstance(atom, Literal) else known.get(atom)

    total = Work()
    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        work, results = _of_equation(equation, values, num)
        total += work
        known |= dict(zip(equation.outvars, results, strict=False))
    return total, [read(atom) for atom in jaxpr.outvars]


def _of_equation(equation: Any, values: list[_Known | None], num: int) -> tuple[Work, list[_Known | None]]:
    name, parameters = equation.primitive.name, equation.params
    nothing: list[_Known | None] = [None] * len(equation.outvars)
    if name == "cond":
        return _of_branches(parameters["branches"], values, num), nothing
    if name == "scan":
        body = parameters["jaxpr"]
        num_kept = parameters["num_consts"]
        inner = [*values[:num_kept], *([None] * (len(body.jaxpr.invars) - num_kept))]
        work, _ = _of_closed(body, inner, num)
        return work.times(parameters["length"]), nothing
    if name == "while":  # of a chunk: its one update
        num_of_condition, num_of_body = parameters["cond_nconsts"], parameters["body_nconsts"]
        kept, carried = values[num_of_condition:][:num_of_body], values[num_of_condition + num_of_body :]
        work, _ = _of_closed(parameters["body_jaxpr"], [*kept, *carried], num)
        return work, nothing
    called = next((each for each in parameters.values() if isinstance(each, Jaxpr | ClosedJaxpr)), None)
    if called is not None:
        num_inputs = len((called.jaxpr if isinstance(called, ClosedJaxpr) else called).invars)
        return _of_closed(called, values[-num_inputs:] if num_inputs else [], num)
    shapes = [atom.aval for atom in equation.invars], [atom.aval for atom in equation.outvars]
    return _of_primitive(name, parameters, *shapes), _computed(equation, values) or nothing


def _of_closed(
    program: ClosedJaxpr | Jaxpr, values: Sequence[_Known | None], num: int
) -> tuple[Work, list[_Known | None]]:
    if isinstance(program, ClosedJaxpr):
        return _of_jaxpr(program.jaxpr, [_known(each, num) for each in program.consts], values, num)
    return _of_jaxpr(program, [None] * len(program.constvars), values, num)


def _of_branches(branches: Sequence[ClosedJaxpr], values: list[_Known | None], num: int) -> Work:
    index, *inputs = values
    if index is None:
        return max(_of_closed(branch, inputs, num)[0] for branch in branches)
    total, chosen = Work(), np.clip(index.values.astype(int), 0, len(branches) - 1)
    for place, branch in enumerate(branches):
        taken = chosen == place
        if taken.any():
            own = [None if each is None else _Known(each.values[taken]) for each in inputs]
            total += _of_closed(branch, own, int(taken.sum()))[0].times(float(taken.mean()))
    return total


def _computed(equation: Any, values: Sequence[_Known | None]) -> list[_Known | None] | None:
    """The result of an operation on known scalars; None if it is another."""
    if len(equation.outvars) != 1 or equation.outvars[0].aval.shape != () or any(each is None for each in values):
        return None
    name, dtype = equation.primitive.name, equation.outvars[0].aval.dtype
    arguments = [each.values for each in values if each is not None]
    if name == "convert_element_type":
        return [_Known(arguments[0].astype(dtype))]
    if name == "select_n":
        return [_Known(np.choose(arguments[0].astype(int), arguments[1:]).astype(dtype))]
    if name == "div":
        with np.errstate(all="ignore"):
            whole = np.issubdtype(dtype, np.integer)
            quotient = arguments[0] / np.where(arguments[1] == 0, 1, arguments[1]) if whole else np.divide(*arguments)
            return [_Known((np.trunc(quotient) if whole else quotient).astype(dtype))]
    if name not in _SCALARS:
        return None
    with np.errstate(all="ignore"):
        return [_Known(np.asarray(_SCALARS[name](*arguments)).astype(dtype))]


def _of_primitive(name: str, parameters: Mapping[str, Any], inputs: list[Any], outputs: list[Any]) -> Work:
    """The work of an operation, by the shapes of what it reads and writes."""
    sizes = [math.prod(getattr(each, "shape", ())) for each in outputs]
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        depth = math.prod(inputs[0].shape[axis] for axis in contracted)
        return Work(2.0 * sizes[0] * depth, kernels=1)
    if name == "conv_general_dilated":
        out_axis = parameters["dimension_numbers"].rhs_spec[0]
        return Work(2.0 * sizes[0] * math.prod(inputs[1].shape) / inputs[1].shape[out_axis], kernels=1)
    if name == "pliant_convolution":
        return Work(2.0 * sizes[0] * math.prod(inputs[1].shape[-4:-1]), kernels=1)
    if name in ("pliant_convolution_to_input", "pliant_convolution_to_kernel"):
        g, kernel = (inputs[0], inputs[1]) if name.endswith("input") else (inputs[1], outputs[0])
        return Work(2.0 * math.prod(g.shape) * math.prod(kernel.shape[-4:-1]), kernels=1)
    if name in _FACTORIZATIONS:
        *batch, rows, columns = inputs[0].shape
        return Work(20.0 * math.prod(batch) * rows * columns * min(rows, columns), kernels=10)
    read = [math.prod(getattr(each, "shape", ())) for each in inputs]
    if name in ("sort", "top_k"):
        return Work(elements=read[0] * max(1.0, math.log2(max(inputs[0].shape[-1], 2))), kernels=1)
    if name in ("random_bits", "threefry2x32"):
        return Work(elements=float(_RANDOM * sum(sizes)), kernels=1)
    if name.startswith(("reduce_", "arg", "cum")) or name in ("pliant_total", "gather", "scatter", "scatter-add"):
        is_scatter = name.startswith("scatter")
        touched = read[2] if is_scatter else sizes[0] if name == "gather" else max(read)
        return Work(elements=float(touched), kernels=1)
    return Work(elements=0.0 if name in _FREE else float(max(sizes, default=0)))
