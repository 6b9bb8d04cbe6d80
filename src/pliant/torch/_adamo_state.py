"""Checks of AdamO's parameter groups and loaded states."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pliant.errors import UserError, require_choice, unknown_name
from pliant.torch._numbers import number, whole_number

OPTIONS = (
    *("lr", "betas", "eps", "weight_decay", "maximize", "capturable"),
    *("isometry", "isometry_strength", "isometry_every", "gain", "rectangular"),
)
"""The options of a group that AdamO reads."""
_ADAM_ONLY = {
    "amsgrad": "AdamO keeps no maximum of the second moments",
    "fused": "AdamO has no fused kernel",
    "differentiable": "AdamO does not differentiate through its updates",
}
"""Options of Adam that AdamO does not have, and why they are refused unless they are off."""
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Options of Adam that choose an implementation: a checkpoint's are dropped, since other machines may need others."""
_BESIDE_OPTIONS = ("params", "param_names", "updates", "foreach", "decoupled_weight_decay", *_ADAM_ONLY)
_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS = "(0.9, 0.999) is usual."
_DAMAGED = "The checkpoint is damaged: use an earlier one."


def is_trained(weight: Tensor) -> bool:
    """Whether an optimizer may move a tensor: not a frozen parameter, which may still have an old gradient.

    A plain tensor with a gradient is trained: mixed-precision programs keep such copies of parameters.

    Example:
      >>> is_trained(nn.Parameter(torch.ones(2), requires_grad=False))
      False
    """
    return weight.requires_grad or (weight.grad is not None and not isinstance(weight, nn.Parameter))


def check_options(group: dict[str, Any]) -> None:
    """Raises unless a group's options are valid for AdamO. Keys that belong to other programs are ignored.

    NumPy's and JAX's numbers become Python's. Tensors stay, because programs change them in place.

    Raises:
      UserError: for numbers out of range, options of Adam that AdamO does not have, misspelt options, and tensors that
        AdamO cannot train.
    """
    for name, value in group.items():
        if name not in (*OPTIONS, *_BESIDE_OPTIONS) and value is not None and _is_misspelt(str(name).lower()):
            raise unknown_name("option", str(name), OPTIONS, do="Leave it out: AdamO does not read it.")
    for name, reason in _ADAM_ONLY.items():
        if group.get(name):
            raise UserError(got=f"{name}={group[name]!r}", wanted=f"{name}=False", do=f"Leave it out: {reason}.")
    betas = group["betas"]
    if isinstance(betas, str) or not hasattr(betas, "__len__") or len(betas) != 2:
        raise UserError(got=f"betas={betas!r}", wanted="two numbers", do=_BETAS)
    group["betas"] = tuple(_checked("betas", beta, 0, 0.999999, do=_BETAS) for beta in betas)
    for name, low, do in (
        ("lr", 0, "Use a step size such as 1e-3."),
        ("eps", 0, "1e-8 is usual."),
        ("weight_decay", 0, "Use 0 for none; 0.01 is usual."),
        ("isometry_strength", 0, "Use 0 for plain Adam."),
        ("gain", 1e-12, "Use 1 for isometry, √2 for the gain of ReLU networks."),
    ):
        group[name] = _checked(name, group[name], low, do=do)
    every = group["isometry_every"]
    group["isometry_every"] = whole_number("isometry_every", every, 1, do="Use 1 for the paper's step at every update.")
    require_choice("rectangular", group["rectangular"], "none", "fan")
    for name in ("isometry", "maximize"):
        if group[name] not in (False, True):
            raise UserError(got=f"{name}={group[name]!r}", wanted="True or False", do="Leave it out for False.")
        group[name] = bool(group[name])
    if group["weight_decay"] != 0 and not group.get("decoupled_weight_decay", True):
        raise _coupled(group, do="Use decoupled_weight_decay=True, or weight_decay=0 and a penalty in the loss.")
    for parameter in group["params"]:
        _check_parameter(parameter, group["isometry"])


def check_update(groups: Sequence[dict[str, Any]]) -> None:
    """Raises unless an update can be made of the groups, which other programs may have replaced since they were added.

    Raises:
      UserError: for sparse gradients, groups without AdamO's options, and vectors in a group with isometry.
    """
    for group in groups:
        missing = [name for name in (*OPTIONS, "updates") if name not in group]
        if missing:
            raise UserError(
                got=f"a parameter group without {', '.join(missing)}",
                wanted="groups that AdamO made",
                do="Load states with AdamO.load_state_dict, and add groups with AdamO.add_param_group.",
            )
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                raise UserError(
                    got=f"a sparse gradient for a parameter of shape {tuple(parameter.shape)}",
                    wanted="dense gradients",
                    do="Make the embedding with sparse=False, or give it an optimizer of its own.",
                )
            if group["isometry"] and parameter.ndim < 2:
                raise _vector(parameter)


def adopt(groups: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]], state: Mapping[Any, Any]) -> None:
    """Converts the groups and the state of a checkpoint to AdamO's, in place.

    Options that the checkpoint does not have stay as they are in `own`, the groups before it.

    Raises:
      UserError: if the checkpoint is another optimizer's, or means what AdamO does not do.
    """
    for group, before in zip(groups, own, strict=True):
        is_adamo = "isometry_every" in group
        if not is_adamo:
            _require_adam(group)
        if bool(group.get("maximize", False)) != bool(before["maximize"]):
            raise UserError(
                got=f"a state with maximize={not before['maximize']} for a group with maximize={before['maximize']}",
                wanted="the same sign of the gradient",
                do=f"Make the optimizer with maximize={not before['maximize']} to continue that training.",
            )
        for name in _IMPLEMENTATION:
            group.pop(name, None)
        for name, value in before.items():
            group.setdefault(name, value)
        check_options(group)
        for parameter in group["params"]:
            if state.get(parameter):
                place = parameter.device if group["capturable"] else torch.device("cpu")
                _check_moments(parameter, state[parameter], is_adamo, place)
        updates = whole_number("updates", group["updates"], 0, do=_DAMAGED)
        group["updates"] = torch.tensor(updates, device="cpu")  # some programs move whole states to a device


def _require_adam(group: dict[str, Any]) -> None:
    """Raises unless a group of another optimizer's checkpoint is Adam's or AdamW's, and its decay decoupled."""
    missing = [name for name in ("lr", "betas", "eps", "amsgrad") if name not in group]
    if missing:
        raise UserError(
            got=f"the state of an optimizer whose groups have no {', '.join(missing)}",
            wanted="the state of AdamO, torch.optim.Adam or torch.optim.AdamW",
            do="Start AdamO without it: what other optimizers remember means something else.",
        )
    if group.get("weight_decay", 0) != 0 and not group.get("decoupled_weight_decay", False):
        raise _coupled(group, do="If AdamW made the state, set decoupled_weight_decay=True in its groups first.")
    group.pop("decoupled_weight_decay", None)


def _check_moments(parameter: Tensor, entry: dict[str, Any], is_adamo: bool, place: torch.device) -> None:
    """Raises unless a checkpoint's entries for one parameter can be Adam's moments; moves the step to its place."""
    shape = tuple(parameter.shape)
    names = {"step", *_MOMENTS}
    if not names & set(entry) and is_adamo:
        return  # only other programs' entries
    if names - set(entry) or "max_exp_avg_sq" in entry:
        raise UserError(
            got=f"a state with {', '.join(map(str, entry)) or 'nothing'} for a parameter of shape {shape}",
            wanted=f"step, {', '.join(_MOMENTS)}",
            do="Load a state of AdamO, or of torch.optim.Adam or AdamW without amsgrad.",
        )
    for name in _MOMENTS:
        found = getattr(entry[name], "shape", None)
        if found != parameter.shape:
            raise UserError(
                got=f"{name} of shape {found and tuple(found)} for a parameter of shape {shape}",
                wanted="one entry a weight",
                do="Load the state into an optimizer with the same parameters in the same order.",
            )
    step = whole_number("step", entry["step"], 0, do=_DAMAGED)
    entry["step"] = torch.tensor(step, dtype=torch.float32, device=place)


def _is_misspelt(name: str) -> bool:
    """Whether an unknown key is probably a misspelt option; initial_lr, max_lr and lr_scale belong to schedules."""
    if any(name.startswith(f"{option}_") or name.endswith(f"_{option}") for option in OPTIONS):
        return "isometry" in name
    long = [option for option in OPTIONS if len(option) > 3]
    return "isometry" in name or name in OPTIONS or bool(difflib.get_close_matches(name, long, n=1, cutoff=0.75))


def _checked(name: str, value: Any, low: float, high: float = math.inf, *, do: str) -> float | Tensor:
    """The number, if it is in range. A tensor stays one, without axes."""
    plain = number(name, value, low, high, do=do)
    if not isinstance(value, Tensor):
        return plain
    return value.reshape(()) if value.ndim else value


def _check_parameter(parameter: Tensor, isometry: bool) -> None:
    if is_lazy(parameter):
        raise UserError(
            got="a parameter that is not initialized, of a lazy module",
            wanted="parameters that have a shape",
            do="Call the module on a batch before making the optimizer.",
        )
    if parameter.is_complex():
        raise UserError(
            got=f"a complex parameter of shape {tuple(parameter.shape)}",
            wanted="real numbers",
            do="Give complex parameters an optimizer of their own, such as torch.optim.Adam.",
        )
    if isometry and parameter.ndim < 2:
        raise _vector(parameter)


def _vector(parameter: Tensor) -> UserError:
    return UserError(
        got=f"a parameter of shape {tuple(parameter.shape)} with isometry=True",
        wanted="weights (out, in) or (out, in, …)",
        do="Put biases and scales into a group of their own: pliant.torch.param_groups(module, head=...).",
    )


def _coupled(group: dict[str, Any], do: str) -> UserError:
    return UserError(
        got=f"weight_decay={group['weight_decay']} that is added to the gradient, as in torch.optim.Adam",
        wanted="decoupled weight decay, as in torch.optim.AdamW",
        do=do,
    )
