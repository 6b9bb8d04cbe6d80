"""Surgery on units: their entries in parameters, and how these and the optimizers' statistics are reset."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pliant.errors import UserError
from pliant.torch._forgetting import forget, require_statistics
from pliant.torch._learner import Learner
from pliant.torch._slots import Slot
from pliant.torch._wiring import WiredLayer, Wiring


def reset_units(learner: Learner, units: Mapping[str, Tensor], *, start: Mapping[str, Tensor] | None = None) -> int:
    """Resets units: fresh incoming weights, outgoing weights of 0, and no statistics of an optimizer at these entries.

    Args:
      learner: the network.
      units: True at the units to reset, by layer; layers may be missing. Layers with frozen parameters are left alone.
      start: values to restore in place of fresh draws.

    Returns:
      How many units were reset.

    Raises:
      UserError: if the optimizer cannot forget; nothing is changed then.
    """
    chosen = [(layer, units[layer.name]) for layer in learner.layers() if layer.name in units]
    chosen = [(layer, flags) for layer, flags in chosen if bool(flags.any())]
    for layer, _ in chosen:
        _require_own(learner, layer)
    require_statistics(learner.optimizers, [learner.params[name] for layer, _ in chosen for name in layer.parameters])
    fed: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    for layer, flags in chosen:
        for slot in layer.feeds:
            if slot.role != "statistic":
                _mark(fed, learner, slot, flags)
        for slot in layer.readers:
            _mark(read, learner, slot, flags)
    fresh = learner.fresh(list(fed)) if start is None else start
    with torch.no_grad():
        for name, mask in fed.items():
            parameter = learner.params[name]
            parameter.copy_(torch.where(mask, fresh[name].to(parameter), parameter))
        for name, mask in read.items():
            learner.params[name].masked_fill_(mask, 0.0)
        for name, mask in (*fed.items(), *read.items()):
            forget(learner.optimizers, learner.params[name], mask)
    return sum(int(flags.sum()) for _, flags in chosen)


def require_found(wiring: Wiring, method: str) -> None:
    """Raises unless there is a layer whose units can be reset."""
    if not wiring.layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in wiring.others.items()) or "no activation was found"
        raise UserError(
            got=f"{method} on a network without a hidden layer whose units can be reset ({reasons})",
            wanted="a layer whose units are read by weights alone",
            do="See print(pliant.torch.infer_wiring(module, x)), declare one with layers=[HiddenLayer(...)], or use a "
            "method without unit resets, as 'l2-init'.",
        )


def require_layers(learner: Learner, method: str) -> None:
    """Raises unless there is a layer whose units can be reset now, by these optimizers."""
    require_found(learner.wiring, method)
    if not learner.layers():
        raise UserError(
            got=f"{method} on hidden layers that all have frozen parameters",
            wanted="a layer of which nothing that feeds or reads its units is frozen",
            do="Freeze less, or use another method.",
        )
    require_trained(learner)


def require_seen(learner: Learner, method: str) -> None:
    """Raises unless Python calls the activations of all layers, so that their outputs can be looked at."""
    unseen = [layer for layer in learner.layers() if any(use.call is None for use in layer.uses)]
    if unseen:
        name, activation = unseen[0].name, unseen[0].activation
        raise UserError(
            got=f"{method} on the layer {name!r}, whose activation {activation!r} runs out of sight of Python, as in "
            "TorchScript",
            wanted="activations that Python calls: their outputs are looked at in every forward pass",
            do="Use the function without torch.jit.script while the method is attached.",
        )


def require_trained(learner: Learner) -> None:
    """Raises unless the optimizers have all parameters that a reset would rewrite, with statistics that can be reset.

    Raises:
      UserError: for parameters that they do not have, and statistics that weights share.
    """
    names = [name for layer in learner.layers() for name in layer.parameters]
    trained = {
        id(each) for optimizer in learner.optimizers for group in optimizer.param_groups for each in group["params"]
    }
    for name in names:
        if id(learner.params[name]) not in trained:
            raise UserError(
                got=f"{name!r}, a parameter of a hidden layer that the optimizer does not have",
                wanted="the optimizers that train the hidden layers",
                do="Pass all of them as a list, or freeze what none of them trains: requires_grad_(False).",
            )
    require_statistics(learner.optimizers, [learner.params[name] for name in names])


def _require_own(learner: Learner, layer: WiredLayer) -> None:
    """Raises if a parameter was replaced, or is computed from others now, since the layer was found."""
    for name in layer.parameters:
        owner, _, kind = name.rpartition(".")
        if learner.module.get_submodule(owner)._parameters.get(kind) is not learner.params[name]:
            raise UserError(
                got=f"{name!r}, which was replaced or is computed from other parameters by now",
                wanted="the parameters that the layer was found with: a reset would write to another tensor",
                do="Undo it, as torch.nn.utils.prune.remove and parametrize.remove_parametrizations do, or begin anew.",
            )


def mean_by_unit(values: Mapping[str, Tensor], slots: Sequence[Slot], width: int) -> Tensor:
    """The mean of each unit's entries over all of its slots together, in float32 or wider."""
    total, count = torch.zeros(width + 1, dtype=torch.float64), torch.zeros(width + 1, dtype=torch.float64)
    dtype = torch.float32
    for slot in slots:
        value = values[slot.parameter].detach()
        dtype = torch.promote_types(value.dtype, dtype)
        places = slot.units.expand(value.shape).flatten() % (width + 1)  # −1 is the last
        total.index_add_(0, places, value.cpu().double().flatten())
        count.index_add_(0, places, torch.ones(len(places), dtype=torch.float64))
    return (total / count.clamp(min=1))[:width].to(dtype)


def lowest(scores: Tensor, number: int) -> Tensor:
    """True at the `number` lowest scores, NaN last; equal ones in their order."""
    order = scores.nan_to_num(nan=float("inf"), posinf=float("inf")).argsort(stable=True)
    flags = torch.zeros(len(scores), dtype=torch.bool)
    flags[order[: max(0, number)].cpu()] = True
    return flags


def _mark(masks: dict[str, Tensor], learner: Learner, slot: Slot, flags: Tensor) -> None:
    mask = slot.chosen(flags, learner.params[slot.parameter])
    masks[slot.parameter] = masks[slot.parameter] | mask if slot.parameter in masks else mask
