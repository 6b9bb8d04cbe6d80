"""Resets an optimizer's gradient statistics at chosen weights."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError

STATISTICS = (
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf"),  # Adam and relatives, Lion
    *("momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum", "prev", "variance"),  # the rest of torch.optim
    *("exp_avg_var", "max_exp_avg_var", "exp_avg_diff", "neg_pre_grad", "previous_grad"),  # AdaBelief, Adan
    *("exp_avg_fast", "exp_avg_slow", "hessian", "grad_ema"),  # AdEMAMix, Sophia, Grokfast
    *("momentum", "velocity", "m", "v"),  # optimizers that people write themselves
)
"""Names of entries of optimizer states that hold statistics of a parameter's gradients, one entry a weight."""
KEPT = (
    *("step", "steps", "step_size"),  # counts, and Rprop's learning rates
    *("z", "ax", "master_param", "slow_buffer", "slow_params"),  # copies: schedule-free, averages, mixed precision
    *("param_init", "p0", "old_p", "old", "e_w"),  # copies: L2 Init, Prodigy, SAM
)
"""Names of entries of optimizer states that are no statistics of gradients."""
_SHARING = ("LBFGS", "Adafactor")
"""Classes of optimizers whose statistics belong to rows, columns or the whole network, once there are any."""


def optimizers_in(optimizer: Any) -> list[Any]:
    """The optimizers in an object: itself, those of a sequence, and those that wrappers such as SAM keep in attributes.

    Raises:
      UserError: if there is none.

    Example:
      >>> import torch
      >>> adam = torch.optim.Adam([torch.ones(2)])
      >>> optimizers_in([adam]) == [adam]
      True
    """
    found: list[Any] = []
    waiting = [optimizer]
    while waiting:
        each = waiting.pop()
        if any(each is other for other in found):
            continue
        if hasattr(each, "param_groups"):
            found.append(each)
        for value in _children(each):
            inside = (value, *_children(value)) if isinstance(value, list | tuple | Mapping) else (value,)
            waiting.extend(inner for inner in inside if hasattr(inner, "param_groups"))
    if not found:
        raise UserError(
            got=f"{type(optimizer).__name__} in place of an optimizer",
            wanted="a torch.optim.Optimizer, or several",
            do="Pass the optimizer that trains the network.",
        )
    return found


def require_statistics(optimizers: Iterable[Any], parameters: Iterable[Tensor]) -> None:
    """Raises unless the optimizers' statistics of the parameters can be reset weight by weight.

    Raises:
      UserError: for statistics that weights share, and for entries of unknown names that may be statistics.
    """
    parameters = list(parameters)
    for optimizer in optimizers:
        for base in type(optimizer).__mro__:
            if base.__name__ in _SHARING:
                raise _unknown(f"{base.__name__}, whose statistics belong to more than one weight")
        for key, entries in optimizer.state.items():
            if any(key is parameter for parameter in parameters):
                for name, value in entries.items():
                    is_statistic(name, value, key)
            elif any(_size(leaf) > (key.numel() if isinstance(key, Tensor) else 1) for leaf in tree_leaves(entries)):
                raise _unknown(f"memory of {type(optimizer).__name__} that belongs to several parameters")


def forget(optimizers: Iterable[Any], parameter: Tensor, mask: Tensor) -> None:
    """Sets the statistics of a parameter to their initial values where the mask is True."""
    for optimizer in optimizers:
        for name, value in optimizer.state.get(parameter, {}).items():
            if is_statistic(name, value, parameter):
                value.masked_fill_(mask, _initial(optimizer, parameter) if name == "sum" else 0.0)


def is_statistic(name: Any, value: Any, parameter: Tensor) -> bool:
    """Whether an entry of an optimizer's state holds one statistic a weight, and not a count, a copy or an option.

    Raises:
      UserError: if it is neither, or cannot be told.

    Example:
      >>> is_statistic("exp_avg", Tensor([1.0, 2.0]), Tensor([0.0, 0.0])), is_statistic("step", 3, Tensor([0.0]))
      (True, False)
    """
    shape = tuple(parameter.shape)
    if name in KEPT:
        return False
    if name in STATISTICS and isinstance(value, Tensor):
        if value.shape != shape or not value.is_floating_point() or type(value) not in (Tensor, nn.Parameter):
            raise _unknown(f"an optimizer's {name!r} of shape {tuple(value.shape)} for weights of shape {shape}")
        return True
    for leaf in tree_leaves(value):
        is_small = leaf is None or isinstance(leaf, bool | int | float | str) or _size(leaf) <= 1
        if not is_small or (isinstance(leaf, Tensor) and leaf.ndim and leaf.shape == shape):
            raise _unknown(f"an optimizer's {name!r}, which may be statistics, for weights of shape {shape}")
    return False


def _initial(optimizer: Any, parameter: Tensor) -> float:
    """The initial value of Adagrad's sum of squares."""
    for group in optimizer.param_groups:
        if any(parameter is each for each in group["params"]):
            return float(group.get("initial_accumulator_value", 0.0))
    return 0.0


def _children(value: Any) -> list[Any]:
    """The entries of a container, the attributes of an object."""
    if isinstance(value, list | tuple):
        return list(value)
    return list((value if isinstance(value, Mapping) else getattr(value, "__dict__", {})).values())


def _size(value: Any) -> int:
    """How many numbers there are; 2 for objects that may hold any number."""
    if isinstance(value, Tensor):
        return value.numel()
    return 1 if value is None or isinstance(value, bool | int | float | str) else 2


def _unknown(got: str) -> UserError:
    return UserError(
        got=got,
        wanted="statistics with one entry a weight, under names such as exp_avg and momentum_buffer",
        do="Use Adam, AdamO, momentum or another optimizer whose statistics can be forgotten weight by weight.",
    )
