"""The loss of examples: cross-entropy of classes, squared error of values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pliant.errors import UserError


def loss_of(y: Any, output: Tensor) -> Callable[..., Tensor]:
    """The loss that targets ask for, as a function `(output, chosen examples) -> loss of each`.

    Args:
      y: integers are classes, one for each example or for each of its positions, also as one-hot rows; floating-point
        numbers are values.
      output: (batch, …); of positions (batch, …, classes) or (batch, classes, …), whichever the targets fit.

    Raises:
      UserError: if the targets do not fit the output, or fit it in two ways.

    Example:
      >>> loss_of([1.0, 2.0], torch.zeros(2, 1))(torch.zeros(2, 1)).tolist()
      [1.0, 4.0]
    """
    if y is None:
        raise UserError(got="no targets", wanted="one for each example", do="Give y.")
    try:
        targets = y.detach() if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError):
        raise UserError(
            got=f"y of type {type(y).__name__}", wanted="numbers, one for each example", do="Give a tensor."
        ) from None
    targets = targets.to(output.device)
    if targets.is_floating_point() or targets.is_complex():
        values = _values(targets, output)
        return lambda output, chosen=slice(None): (
            (output - values[chosen]).square().reshape(len(output), -1).mean(dim=1)
        )
    classes, axis = _classes(targets, output)

    def cross_entropy(output: Tensor, chosen: Any = slice(None)) -> Tensor:
        logits = output.movedim(axis, -1).flatten(0, -2)
        found = functional.cross_entropy(logits, classes[chosen].flatten(), reduction="none")
        return found.reshape(len(output), -1).mean(dim=1)

    return cross_entropy


def _values(targets: Tensor, output: Tensor) -> Tensor:
    shape = tuple(output.shape)
    if tuple(targets.shape) not in (shape, shape[:-1] if shape[-1] == 1 else shape) or targets.is_complex():
        raise _misfit(targets, output.shape[-1])
    return targets.reshape(shape).to(output.dtype)


def _classes(targets: Tensor, output: Tensor) -> tuple[Tensor, int]:
    """The classes, and the axis of the output that they index."""
    shape = tuple(output.shape)
    if tuple(targets.shape) == shape and shape[-1] > 1 and _are_below(targets, 2) and (targets.sum(-1) == 1).all():
        targets = targets.to(torch.int64).argmax(dim=-1)  # one-hot rows
    if targets.ndim == output.ndim and targets.shape[-1] == 1:
        targets = targets[..., 0]
    fitting = [axis for axis in {output.ndim - 1, 1} if tuple(targets.shape) == shape[:axis] + shape[axis + 1 :]]
    if len(fitting) > 1:
        raise UserError(
            got=f"y of shape {tuple(targets.shape)} for an output of shape {shape}",
            wanted="classes along one axis of the output, the last or the second",
            do="Give a batch whose sizes differ, so that it is clear which axis has the classes.",
        )
    if not fitting or not _are_below(targets, shape[fitting[0]]):
        raise _misfit(targets, shape[fitting[0] if fitting else -1])
    return targets.to(torch.int64), fitting[0]


def _are_below(targets: Tensor, num: int) -> bool:
    return targets.numel() > 0 and int(targets.min()) >= 0 and int(targets.max()) < num


def _misfit(targets: Tensor, num: int) -> UserError:
    is_real = targets.numel() > 0 and not targets.is_complex()
    bounds = f" from {targets.min().item()} to {targets.max().item()}" if is_real else ""
    return UserError(
        got=f"y of shape {tuple(targets.shape)}{bounds}",
        wanted=f"a class below {num}, or {num} value(s), for every example",
        do="Integers are classes, floating-point numbers are values.",
    )
