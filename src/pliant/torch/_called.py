"""Calls a module on copies of its tensors, and restores everything afterwards."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError

_OUTPUTS = ("logits", "last_hidden_state", "out", "output")
"""Entries of dictionaries and attributes that are the output, in this order."""


class Unwrapped(NamedTuple):
    """A module without wrappers that compile it or spread it over devices."""

    module: nn.Module
    prefix: str
    """What names of its modules begin with in the wrapped one."""


def unwrapped(module: nn.Module) -> Unwrapped:
    """The module itself.

    Example:
      >>> unwrapped(nn.DataParallel(nn.Linear(2, 3))).prefix
      'module.'
    """
    prefix = ""
    while True:
        is_parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        name = "module" if is_parallel else "_orig_mod"
        inner = getattr(module, name, None) if is_parallel or type(module).__name__ == "OptimizedModule" else None
        if inner is None:
            return Unwrapped(module, prefix)
        module, prefix = inner, f"{prefix}{name}."


class Called:
    """Calls a module on copies of its parameters and buffers, so that in-place changes do not last."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.params = {name: each.detach().clone() for name, each in module.named_parameters()}
        self.is_compiled = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
        if self.is_compiled:  # takes no other tensors than its own
            self.params = dict(module.named_parameters())

    def leaves(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Copies of parameters that derivatives can be taken with respect to."""
        if self.is_compiled:
            return {name: self.params[name].requires_grad_() for name in names}
        return {name: self.params[name].detach().requires_grad_() for name in names}

    def __call__(self, params: Mapping[str, Tensor], x: Any) -> Any:
        """The module's result."""
        args, kwargs = ((), dict(x)) if isinstance(x, Mapping) else ((x,), {})
        buffers = {name: each.detach().clone() for name, each in self.module.named_buffers()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how it is called here, such as without gradients
            if self.is_compiled:
                return self.module(*args, **kwargs)
            return functional_call(self.module, {**buffers, **params}, args, kwargs)


def output_of(result: Any) -> Tensor:
    """Finds the output, (batch, …), in what a module returned.

    Raises:
      UserError: if that is not clear.

    Example:
      >>> output_of({"logits": torch.zeros(5, 2), "loss": torch.zeros(())}).shape
      torch.Size([5, 2])
    """
    found = result
    named = next((getattr(result, name) for name in _OUTPUTS if isinstance(getattr(result, name, None), Tensor)), None)
    if isinstance(result, tuple | list):
        found = named if named is not None else result[0] if result else None
    elif isinstance(result, Mapping) or dataclasses.is_dataclass(result):
        entries = dict(result) if isinstance(result, Mapping) else vars(result)
        known = [entries[name] for name in _OUTPUTS if isinstance(entries.get(name), Tensor)]
        found = [*known, *entries.values()][0] if known or len(entries) == 1 else None
    elif not isinstance(result, Tensor):
        found = named
    if not isinstance(found, Tensor):
        keys = f" with {', '.join(map(str, result))}" if isinstance(result, Mapping) else ""
        raise UserError(
            got=f"a module that returns {type(result).__name__}{keys}",
            wanted=f"a tensor (batch, out), alone, first of a tuple, or as one of {', '.join(_OUTPUTS)}",
            do="Wrap the module in one that returns the output.",
        )
    return found


def with_columns(output: Tensor) -> Tensor:
    """(batch,) as (batch, 1).

    Example:
      >>> with_columns(torch.zeros(5)).shape
      torch.Size([5, 1])
    """
    return output[:, None] if output.ndim == 1 else output


def inputs_for(module: nn.Module, x: Any) -> Any:
    """The examples as tensors; NumPy arrays and lists get the device and precision of the module's parameters.

    Raises:
      UserError: for what are no numbers, and for no examples.

    Example:
      >>> inputs_for(nn.Linear(2, 3), np.ones((5, 2))).dtype
      torch.float32
    """
    if isinstance(x, Mapping):
        found: Any = {name: inputs_for(module, each) for name, each in x.items() if each is not None}
        if len({len(each) for each in found.values()}) != 1:
            sizes = {name: tuple(each.shape) for name, each in found.items()}
            raise UserError(got=f"x with {sizes}", wanted="as many examples in each", do="Give the batch axis to all.")
        return found
    if isinstance(x, Tensor):
        found = recordable(x)
    else:
        try:
            found = torch.as_tensor(np.asarray(x))
        except (TypeError, ValueError) as error:
            raise UserError(
                got=f"x of type {type(x).__name__}", wanted="a tensor or an array (batch, …)", do="Stack the examples."
            ) from error
        like = next((each for each in module.parameters() if each.is_floating_point()), None)
        if like is not None:
            found = found.to(like.device, like.dtype if found.is_floating_point() else None)
    if found.ndim == 0 or len(found) == 0:
        raise UserError(
            got=f"x of shape {tuple(found.shape)}", wanted="at least one example", do="Pass examples to measure on."
        )
    return found


def recordable(tensor: Tensor) -> Tensor:
    """The tensor without its history, and copied if it was made in inference mode.

    Example:
      >>> with torch.inference_mode():
      ...     x = torch.ones(2)
      >>> recordable(x).is_inference()
      False
    """
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def some(x: Any, chosen: Any) -> Any:
    """Some of the examples.

    Example:
      >>> some({"tokens": torch.arange(3)}, slice(1, 2))
      {'tokens': tensor([1])}
    """
    return {name: each[chosen] for name, each in x.items()} if isinstance(x, Mapping) else x[chosen]


def number_of(x: Any) -> int:
    """How many examples there are.

    Example:
      >>> number_of(torch.zeros(5, 2))
      5
    """
    return len(tree_leaves(x)[0])


def require_real(module: nn.Module) -> None:
    """Raises unless all parameters have values.

    Raises:
      UserError: for lazy modules that were not called yet, and for the device "meta".

    Example:
      >>> require_real(nn.Linear(2, 3))
    """
    for name, parameter in module.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise UserError(
                got=f"{name!r}, which is not initialised",
                wanted="parameters with values",
                do="Call the module once on a batch: lazy modules take their sizes from it.",
            )
        if parameter.is_meta:
            raise UserError(
                got=f"{name!r} on the device 'meta'", wanted="parameters with values", do="Load the module's weights."
            )


@contextlib.contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, uncompiled; on exit restores everything, including random states.

    Example:
      >>> net = nn.Dropout()
      >>> with as_it_was(net):
      ...     is_training = net.training
      >>> is_training, net.training
      (False, True)
    """
    parts = list(module.modules())
    modes = [(part, part.training) for part in parts]
    plain = [part for part in parts if not isinstance(part, torch.jit.ScriptModule)]
    fields = [(part, dict(part.__dict__)) for part in plain]
    own = [each for _, found in fields for each in found.values() if isinstance(each, Tensor)]
    if len(plain) < len(parts):
        own += [*module.parameters(), *module.buffers()]
    values = [(each, each._version, each.detach().clone()) for each in own if not each.is_inference()]
    trained = [(each, each.requires_grad) for each in module.parameters()]
    devices = sorted({each.device.index or 0 for each in module.parameters() if each.is_cuda})
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(without_fused_layers())
        stack.enter_context(buffers_kept(module))
        try:
            for part in parts:  # not by eval(), which may do more, such as merge weights
                part.training = False
            yield
        finally:
            for tensor, version, value in values:
                if tensor._version != version:
                    tensor.copy_(value)
            for parameter, is_trained in trained:
                if parameter.requires_grad != is_trained:
                    parameter.requires_grad_(is_trained)
            for part, found in fields:
                part.__dict__.clear()
                part.__dict__.update(found)
            for part, mode in modes:
                part.training = mode


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Restores buffers on exit, whether they were written to or replaced.

    Example:
      >>> net = nn.BatchNorm1d(2)
      >>> with buffers_kept(net):
      ...     _ = net(torch.ones(3, 2))
      >>> int(net.num_batches_tracked)
      0
    """
    held = [(part._buffers, dict(part._buffers.items())) for part in module.modules()]
    values = [(each.detach(), each.clone()) for _, own in held for each in own.values() if each is not None]
    try:
        yield
    finally:
        for buffer, value in values:
            buffer.copy_(value)
        for buffers, own in held:
            for name, each in own.items():
                if buffers[name] is not each:
                    buffers[name] = each


@contextlib.contextmanager
def without_fused_layers() -> Iterator[None]:
    """One operation for a whole layer would hide its activation; compiled code hides all."""
    mha: Any = torch.backends.mha
    before = mha.get_fastpath_enabled()
    stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo" in sys.modules else None
    mha.set_fastpath_enabled(False)
    try:
        with stance("force_eager") if stance else contextlib.nullcontext():
            yield
    finally:
        mha.set_fastpath_enabled(before)


def random_states(module: nn.Module) -> Sequence[Tensor]:
    """The states of all random generators; they change when numbers are drawn.

    Example:
      >>> len(random_states(nn.Linear(2, 3)))
      1
    """
    devices = sorted({each.device.index or 0 for each in module.parameters() if each.is_cuda})
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in devices)]
