"""The empirical neural tangent kernel: how a gradient step on one example changes the outputs of the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from pliant.diagnostics._subject import widened
from pliant.errors import UserError, require_choice
from pliant.tracing import (
    Derivatives,
    ParameterUse,
    Program,
    at_consumers,
    at_leaf,
    at_product,
    derivatives_at,
    is_float,
    longest_array,
    map_examples,
    parameter_derivatives,
    program_of,
)
from pliant.types import Params, Scalar

_MOST_NUMBERS = 2**24
"""In one array of derivatives: 64 MB in float32."""
_MOST_ROWS = 1024
"""Examples times outputs that are differentiated together where only the trace over outputs is wanted."""


class NTK(NamedTuple):
    """What `ntk` returns."""

    matrix: Float[Array, "rows rows"]
    """Symmetric, without negative eigenvalues but for rounding."""
    traces: Mapping[str, Scalar]
    """What each parameter leaf contributes to the mean eigenvalue, by path; their sum is trace / rows."""


def ntk(
    function: Callable[[Any, Any], Array],
    params: Params,
    inputs: PyTree[Array],
    *,
    mode: Literal["full", "trace"] = "full",
) -> NTK:
    r"""Computes the empirical neural tangent kernel, exactly.

    Use it to see which examples a gradient step can tell apart; on small batches, because it is costly.

    .. math:: \Theta_{(a,c),(b,d)} = \sum_{w} \frac{\partial f_c(x_a)}{\partial w} \cdot
              \frac{\partial f_d(x_b)}{\partial w}, \qquad
              K_{ab} = \frac1C \sum_{c=1}^C \Theta_{(a,c),(b,c)}

    summed over all parameter leaves w, biases and norms among them. The N·C × P matrix of derivatives is never formed.
    A kernel that is multiplied by one vector of each example, and not read elsewhere, contributes

    .. math:: (A A^\top) \circ (D D^\top)

    with A the vectors as rows and D the derivatives of the outputs by the products. Which kernels those are is found in
    the function's program. Of the other leaves, derivatives are made and contracted leaf by leaf, of a few examples at
    a time where there are more than 2²⁴ of them.

    Args:
      function: `function(params, inputs) -> (batch, out)`, whose examples do not depend on each other: a network in
        eval mode, up to its logits. It is traced with a batch of one.
      params: any pytree; leaves that are not floating-point are left alone.
      inputs: arrays with the examples as the first axis, N ≥ 1. Equal examples make Θ singular; its scale grows with
        that of the inputs.
      mode: "full" for Θ; "trace" for K, which has one row for each example.

    Returns:
      `NTK`. Rows of Θ are ordered by example, then output: (N·C, N·C); K is (N, N). In the wider of float32 and the
      dtype of the derivatives; eigenvalues below about 10⁻⁶ of the largest are rounding in float32. NaN where a
      derivative is.

    Raises:
      UserError: for no examples, no outputs or no parameters, since nothing was measured, for outputs that are not
        (batch, out), and unknown modes.

    Example:
      >>> x = jnp.array([[3.0, 4.0], [0.0, 1.0]])
      >>> ntk(lambda params, x: x @ params["kernel"] + params["bias"],
      ...     {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros((1, 1))}, x).matrix.tolist()
      [[26.0, 5.0], [5.0, 2.0]]

    References:
      Jacot, Gabriel, Hongler, `Neural Tangent Kernel: Convergence and Generalization in Neural Networks
      <https://arxiv.org/abs/1806.07572>`_, 2018. Section 4.
      Rosseau et al. 2026 (arXiv 2606.09762). Sections 2.2 and 2.3; equations 7 and 8 are the form with A and D.

    Differs from:
      The kernel of the infinitely wide network, and of the sum of the logits, which has the terms c ≠ d in it.
      neural-tangents' empirical kernel is K unless `trace_axes=()`. Equations 7 and 8 leave biases out.
    """
    params, inputs = jax.tree.map(jnp.asarray, (params, inputs))
    _require_measurable(function, params, inputs, mode)
    with jax.default_matmul_precision("highest"):
        program = program_of(function, params, inputs)
        outputs = jnp.eye(*program.output.shape, dtype=program.output.dtype)
        total = _kernel(program, outputs, is_full=True) if mode == "full" else _mean_over_outputs(program, outputs)
    num_rows = len(total.matrix)
    return NTK((total.matrix + total.matrix.T) / 2, {path: trace / num_rows for path, trace in total.traces.items()})


def _require_measurable(
    function: Callable[[Any, Any], Array], params: Params, inputs: PyTree[Array], mode: str
) -> None:
    require_choice("mode", mode, "full", "trace")
    num = min((len(leaf) for leaf in jax.tree.leaves(inputs)), default=0)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params) if is_float(leaf))
    if num == 0 or num_parameters == 0:
        raise UserError(
            got=f"{num} examples and {num_parameters} parameters",
            wanted="at least one of each",
            do="Pass the network's parameters and a probe batch.",
        )
    shape = jax.eval_shape(function, params, inputs).shape
    if len(shape) != 2 or shape[0] != num or shape[1] == 0:
        raise UserError(
            got=f"outputs of shape {shape} for {num} examples",
            wanted="(batch, out)",
            do="Leave the kernel out for outputs that are sequences; give one number as (batch, 1).",
        )


def _mean_over_outputs(program: Program, outputs: Float[Array, "out out"]) -> NTK:
    """K: blocks of outputs are differentiated one after the other, and added up."""
    num = len(outputs)
    size = max(1, min(num, _MOST_ROWS // len(program.examples[0])))
    num_blocks = -(-num // size)
    padded = jnp.pad(outputs, ((0, num_blocks * size - num), (0, 0)))  # what is padded has derivative 0
    blocks = padded.reshape(num_blocks, size, num)
    total = _kernel(program, blocks[0], is_full=False)
    if num_blocks > 1:

        def add(total: NTK, block: Array) -> tuple[NTK, None]:
            return jax.tree.map(jnp.add, total, _kernel(program, block, is_full=False)), None

        total, _ = jax.lax.scan(add, total, blocks[1:])
    return jax.tree.map(lambda each: each / num, total)


def _kernel(program: Program, combinations: Float[Array, "combinations out"], *, is_full: bool) -> NTK:
    """The kernel of combinations of the outputs, summed over them if not `is_full`; the traces are sums too."""
    num_rows = len(program.examples[0]) * len(combinations)
    at_once = _at_once(len(combinations) * longest_array(program))
    floats = [index for index, leaf in enumerate(program.leaves) if is_float(leaf) and leaf.size]
    matrix, traces = jnp.zeros(()), {}
    for group in _groups([_parameter_use(program, index, num_rows) for index in floats], num_rows):
        for use, measured in zip(group, derivatives_at(program, group, combinations, at_once), strict=True):
            contract = _products if use.is_product else _contraction
            found = contract(program, use, measured, is_full=is_full)
            matrix = matrix + found
            traces[program.paths[use.leaf]] = jnp.trace(found)
    return NTK(matrix, traces)


def _parameter_use(program: Program, index: int, num_rows: int) -> ParameterUse:
    """Derivatives by a large leaf are made of a few examples at a time, from those by what its consumers compute."""
    is_small = num_rows * program.leaves[index].size <= _MOST_NUMBERS
    return at_product(program, index) or (None if is_small else at_consumers(program, index)) or at_leaf(program, index)


def _groups(uses: Sequence[ParameterUse], num_rows: int) -> list[list[ParameterUse]]:
    """Uses whose derivatives are held in memory together."""
    groups: list[list[ParameterUse]] = [[]]
    for use in uses:
        size = num_rows * (use.size + sum(each.size for each in groups[-1]))
        if groups[-1] and size > _MOST_NUMBERS:
            groups.append([])
        groups[-1].append(use)
    return groups


def _products(program: Program, use: ParameterUse, measured: Derivatives, *, is_full: bool) -> Array:
    """(A Aᵀ) ∘ (D Dᵀ)."""
    del program, use
    num = len(measured.operands[0])
    vectors = widened(measured.operands[0]).reshape(num, -1)
    derivatives = widened(measured.outputs[0]).reshape(num, measured.outputs[0].shape[1], -1)
    if not is_full:
        return (vectors @ vectors.T) * jnp.einsum("aco,bco->ab", derivatives, derivatives)
    products = jnp.einsum("aco,bdo->acbd", derivatives, derivatives)
    return _square(products * (vectors @ vectors.T)[:, None, :, None])


def _contraction(program: Program, use: ParameterUse, measured: Derivatives, *, is_full: bool) -> Array:
    """Products of the derivatives by a leaf, of a block of examples with another."""
    at_once = _at_once(measured.outputs[0].shape[1] * program.leaves[use.leaf].size)

    def derivatives(one: Derivatives) -> Array:
        return widened(parameter_derivatives(program, use, one))

    def row(one: Derivatives) -> Array:
        mine = derivatives(one)

        def product(other: Derivatives) -> Array:
            return mine @ derivatives(other).T if is_full else mine.ravel() @ derivatives(other).ravel()

        return map_examples(product, measured, at_once)

    found = map_examples(row, measured, at_once)
    return _square(found.transpose(0, 2, 1, 3)) if is_full else found


def _at_once(num_numbers: int) -> int:
    """How many examples, of so many numbers each."""
    return max(1, _MOST_NUMBERS // num_numbers)


def _square(blocks: Float[Array, "examples out examples out"]) -> Float[Array, "rows rows"]:
    num, num_outputs = blocks.shape[:2]
    return blocks.reshape(num * num_outputs, num * num_outputs)
