"""Runs a module on examples: what it computes, which of its parameters count, and notes for the report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pliant.errors import UserError, in_one_line
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._called import Called, number_of, output_of, random_states, some, with_columns
from pliant.torch._trace import Trace, trace

_MOST_NAMES = 12
_ALONE = "one example alone cannot be measured"


class NotMeasuredError(Exception):
    """Raised for a part that cannot be measured, with the reason."""


class Seen(NamedTuple):
    """A network on examples."""

    module: nn.Module
    call: Called
    x: Any
    output: Tensor
    trace: Trace
    is_head_declared: bool
    counted: Mapping[str, Tensor]
    """The parameters that are measured: those that are trained, or all."""
    num_frozen: int
    """How many are left out."""
    is_frozen: bool
    """Whether none is trained."""
    is_random: bool
    together: str
    """Why examples cannot be looked at one by one; empty if they can."""

    def outputs(self, params: Mapping[str, Tensor], x: Any) -> Tensor:
        """The output (batch, …), with some parameters replaced."""
        return with_columns(output_of(self.call({**self.call.params, **params}, x)))


def known(module: nn.Module, name: str, prefix: str) -> str:
    """The name of a module without what its wrappers put before it."""
    known = dict(module.named_modules(remove_duplicate=False))
    short = name.removeprefix(prefix)
    if short not in known:
        names = ", ".join(each or "''" for each in known)  # the module itself goes by the empty name
        raise UserError(got=f"the module {name!r}", wanted=f"some of {names}", do="See named_modules().")
    return next(first for first, part in module.named_modules() if part is known[short])


def see(module: nn.Module, x: Any, head: str | None, layers: Sequence[str] | None) -> Seen:
    """Runs the module, and records what it computes."""
    call = Called(module)
    before = random_states(module)
    try:
        found = trace(lambda: call(call.params, x), module, call.params, tree_leaves(x), head, layers)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            got=f"a module that cannot be called with x: {reason(error)}",
            wanted="one that takes a batch of examples, (batch, …), on the device and of the type of its weights",
            do="Pass x as for training, or wrap the module in one that takes it alone.",
        ) from error
    is_random = any(not one.equal(other) for one, other in zip(before, random_states(module), strict=True))
    raw, num = output_of(found.output), number_of(x)
    if raw.ndim == 0 or len(raw) != num:
        raise UserError(
            got=f"an output of shape {tuple(raw.shape)} for {num} examples",
            wanted="(batch, out), or (batch,)",
            do="Let the module keep the batch axis; a single value is (batch, 1). One example alone is x[None].",
        )
    output = with_columns(raw)
    missing = [name for name in layers or () if name not in found.called]
    if missing:
        raise UserError(
            got=f"layers {', '.join(layers or ())}, of which {', '.join(missing)} are not called",
            wanted="modules that the forward pass calls",
            do="See named_modules() for others.",
        )
    params = {name: each for name, each in module.named_parameters() if each.is_floating_point() or each.is_complex()}
    trained = [name for name, each in params.items() if each.requires_grad]
    counted = {name: call.params[name] for name in trained or params}
    together = "the network draws random numbers in evaluation mode" if is_random else _why_together(call, x, output)
    if together.startswith(_ALONE) and _is_one_example(call, x, raw):
        raise UserError(
            got=f"x of shape {tuple(tree_leaves(x)[0].shape)} which is one example: {together}",
            wanted="a batch, (batch, …)",
            do="One example alone is x[None].",
        )
    return Seen(
        module,
        call,
        x,
        output,
        found,
        head is not None,
        counted,
        len(params) - len(counted),
        bool(params) and not trained,
        is_random,
        together,
    )


def _is_one_example(call: Called, x: Any, raw: Tensor) -> bool:
    """Whether what was taken for a batch is an example: then it can be called with a batch of it."""
    try:
        return output_of(call(call.params, tree_map(lambda each: each[None], x))).shape == (1, *raw.shape)
    except Exception:
        return False


def _why_together(call: Called, x: Any, output: Tensor) -> str:
    """Runs the first example alone: its output has to be the same."""
    try:
        alone = with_columns(output_of(call(call.params, some(x, slice(0, 1)))))
    except Exception as error:
        return f"{_ALONE}: {reason(error)}"
    if alone.shape != output[:1].shape:
        return f"one example alone has an output of shape {tuple(alone.shape)}"
    if output.is_floating_point() and not is_close(alone, output[:1]):
        return "the output of an example depends on the others of its batch"
    return ""


def is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    if one.shape != other.shape:
        return False
    tolerance = torch.finfo(other.dtype).eps ** 0.5 * float(other.abs().nan_to_num().amax() if other.numel() else 0)
    return torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


def reason(error: Exception) -> str:
    """Why something was not measured, in one line."""
    return str(error) if isinstance(error, NotMeasuredError) else in_one_line(error)


def notes(seen: Seen) -> dict[str, str]:
    """Notes for the report, by their titles."""
    found = seen.trace
    heads = ", ".join(name or "the module itself" for name in seen.trace.heads)
    if not seen.is_head_declared:
        heads = f"{heads} (found; name another with head=)" if heads else "none found: name it with head="
    said = {"head": heads, "hidden layers": _listed([layer.name for layer in found.layers]) or "none"}
    if found.behind:
        said["output, not hidden"] = _listed(found.behind)
    if found.unseen:
        said["layers not seen"] = f"{len(found.unseen)}: " + _listed(
            [f"{name} ({why})" for name, why in found.unseen.items()]
        )
    if seen.num_frozen:
        said["frozen parameters"] = f"{seen.num_frozen} of {seen.num_frozen + len(seen.counted)} are left out"
    elif seen.is_frozen:
        said["frozen parameters"] = "all are frozen: they count as if they were trained"
    left_out = _other_kernels(seen)
    if left_out:
        said["kernels not seen"] = f"{len(left_out)}: {_listed(left_out)} (not of a linear layer or a convolution)"
    if seen.is_random:
        said["random numbers"] = "are drawn in evaluation mode: this is one draw"
    return said


def _listed(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def kernels(seen: Seen) -> dict[str, Tensor]:
    """Kernels as their layers apply them, also where they are computed from other parameters."""
    counted = {id(each) for name, each in seen.module.named_parameters() if name in seen.counted}
    found: dict[str, Tensor] = {}
    for name, part in seen.module.named_modules():
        if not is_kernel_layer(part):
            continue
        own = [id(each) for each_name, each in part.named_parameters() if "weight" in each_name]
        weight: Any = part.weight
        is_new = not any(weight is each for each in found.values())
        if is_new and weight.numel() and (not own or counted.intersection(own)):
            found[f"{name}.weight" if name else "weight"] = weight
    return found


def is_kernel_layer(part: nn.Module) -> bool:
    """Whether its weight is one matrix (out, in, …)."""
    names = {kind.__name__ for kind in KERNEL_LAYERS}
    is_one = isinstance(part, KERNEL_LAYERS) or getattr(part, "original_name", "") in names
    return is_one and getattr(part, "groups", 1) == 1


def _other_kernels(seen: Seen) -> list[str]:
    """Weights of products that are no kernels of a plain layer."""
    layers = {name.rpartition(".")[0] for name in kernels(seen)}
    owners = {name: name.partition(".parametrizations.")[0] for name in seen.trace.weights if name in seen.counted}
    return sorted(
        name
        for name, owner in owners.items()
        if seen.counted[name].ndim > 1 and seen.counted[name].numel() and not {owner, owner.rpartition(".")[0]} & layers
    )
