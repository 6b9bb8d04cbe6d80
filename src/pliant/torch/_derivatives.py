"""Jacobians and tangent kernels of modules by autograd alone, so that every trainable module is supported."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pliant.errors import UserError
from pliant.torch._calls import Call, Calls

_AT_ONCE = 2**24  # numbers that a backward pass of several rows may take for one feature


class Captured(Calls):
    """Records what chosen calls return in a forward pass, with their place in autograd's graph.

    Example:
      >>> x = torch.ones(2, 3, requires_grad=True)
      >>> with Captured({"hidden": Call("", torch.Tensor.relu, 0)}, lambda: "") as found:
      ...     y = x.relu().mul_(2.0)
      >>> found.value("hidden").tolist(), jacobians(y, found.edge("hidden")).shape
      ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], torch.Size([2, 3, 3]))
    """

    def __init__(self, calls: Mapping[str, Call], scope: Callable[[], str]):
        super().__init__(self.capture, scope)
        self.names = {call: name for name, call in calls.items()}
        self.found: dict[str, tuple[Tensor, GradientEdge]] = {}
        self.pending: dict[str, tuple[Tensor, int]] = {}

    def capture(self, call: Call, result: Tensor) -> None:
        """Keeps what a chosen call returned."""
        name = self.names.get(call)
        if name is not None and result.requires_grad:
            self.found[name] = result.clone(), get_gradient_edge(result)
        elif name is not None:  # inside an autograd.Function, whose outputs enter the graph when it ends
            self.pending[name] = result, result._version

    def is_first(self, name: str) -> bool:
        """Whether the call was made, and of one example returned one."""
        return (name in self.found or name in self.pending) and len(self.value(name)) == 1

    def value(self, name: str) -> Tensor:
        """What the call returned."""
        return self.found[name][0] if name in self.found else self.pending[name][0]

    def edge(self, name: str) -> GradientEdge:
        """Where derivatives with respect to it are taken."""
        if name in self.found:
            return self.found[name][1]
        tensor, version = self.pending[name]
        if tensor._version != version:
            raise UserError(got=f"{name!r} written over", wanted="a layer as it was", do="Leave this diagnostic out.")
        return get_gradient_edge(tensor)


def jacobians(output: Tensor, at: Tensor | GradientEdge) -> Tensor:
    """The Jacobian of an output with respect to its input, for each example; examples must be independent.

    Returns:
      (examples, outputs, inputs), each flattened.

    Example:
      >>> x = torch.tensor([[1.0, 3.0]], requires_grad=True)
      >>> jacobians(x**2, x).tolist()
      [[[2.0, 0.0], [0.0, 6.0]]]
    """
    flat = output.flatten(1)
    num, rows = flat.shape
    found = []
    for start in range(0, rows, size := max(1, _AT_ONCE // max(1, flat.numel()))):
        picked = torch.eye(rows, dtype=flat.dtype, device=flat.device)[start : start + size]
        (block,) = _gradients(flat, [at], picked[:, None].expand(-1, num, -1))
        if block is None:
            raise UserError(
                got="a layer on which a later one does not depend", wanted="a way between them", do="Name other layers."
            )
        found.append(block.flatten(2).transpose(0, 1))
    return torch.cat(found, dim=1)


def tangent_kernel(
    call: Callable[[Mapping[str, Tensor], int], Tensor],
    leaves: Mapping[str, Tensor],
    num_examples: int,
    *,
    is_full: bool,
    largest: int,
) -> tuple[Tensor, dict[str, float]]:
    """The empirical neural tangent kernel, and what each parameter contributes to its mean eigenvalue.

    Args:
      call: the output (1, out) of one example, by its number, at given parameters.
      leaves: the parameters that derivatives are taken by.
      num_examples: how many there are.
      is_full: whether outputs are rows of their own; otherwise the kernel is their mean.
      largest: how many derivatives may be kept at once.

    Example:
      >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
      >>> params = {"weight": torch.zeros(1, 2, requires_grad=True), "bias": torch.zeros(1, requires_grad=True)}
      >>> call = lambda params, i: torch.nn.functional.linear(x[i : i + 1], params["weight"], params["bias"])
      >>> tangent_kernel(call, params, 2, is_full=True, largest=100)[0].tolist()
      [[26.0, 5.0], [5.0, 2.0]]
    """
    total: Any = 0.0
    traces = dict.fromkeys(leaves, 0.0)
    num_outputs = call(leaves, 0).shape[1]
    for group in _groups(leaves, max(1, largest // (num_examples * num_outputs))):
        names = list(dict.fromkeys(name for name, _, _ in group))
        blocks: list[list[Tensor]] = [[] for _ in group]
        for example in range(num_examples):
            output = call(leaves, example)
            picked = torch.eye(num_outputs, dtype=output.dtype, device=output.device)[:, None]
            found = dict(zip(names, _gradients(output, [leaves[name] for name in names], picked), strict=True))
            for block, (name, start, stop) in zip(blocks, group, strict=True):
                own = found[name]
                own = leaves[name].new_zeros(num_outputs, *leaves[name].shape) if own is None else own
                block.append(own.flatten(1)[:, start:stop].to(torch.promote_types(own.dtype, torch.float32)))
        for block, (name, _, _) in zip(blocks, group, strict=True):
            stacked = torch.stack(block)  # examples, outputs, columns
            rows = stacked.flatten(0, 1)[None] if is_full else stacked.transpose(0, 1)
            own = (rows @ rows.mT).mean(dim=0)
            total = total + own
            traces[name] += float(own.trace() / len(own))
    return total, traces


def _groups(leaves: Mapping[str, Tensor], most: int) -> Iterator[list[tuple[str, int, int]]]:
    """Ranges of the leaves' entries, so many together."""
    group: list[tuple[str, int, int]] = []
    room = most
    for name, leaf in leaves.items():
        start = 0
        while start < leaf.numel():
            stop = min(leaf.numel(), start + room)
            group.append((name, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield group
                group, room = [], most
    if group:
        yield group


def _gradients(output: Tensor, inputs: Sequence[Any], weights: Tensor) -> Sequence[Tensor | None]:
    """Gradients of several weighted sums of an output, in one batch where all operations support it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations for which vmap is a loop
        try:
            return torch.autograd.grad(
                output, inputs, weights, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
        except (RuntimeError, NotImplementedError):  # such as a torch.autograd.Function that is not for vmap
            each = [torch.autograd.grad(output, inputs, row, retain_graph=True, allow_unused=True) for row in weights]
    return [None if found[0] is None else torch.stack(found) for found in zip(*each, strict=True)]
