"""AdamO's step towards isometry, and its weight decay: what is done before Adam's update.

This file imports torch.compile, which takes as long as PyTorch itself: import it where it is used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.torch._adamo_state import check_update, is_trained


def _step(groups: Sequence[dict[str, Any]]) -> None:
    """Counts an update of every group, decays its weights, and moves those whose period has come towards isometry.

    Raises:
      UserError: see `check_update`, before anything is changed.
    """
    check_update(groups)
    for group in groups:
        group["updates"] += 1
        rate, decay, strength, every = (
            group[name] for name in ("lr", "weight_decay", "isometry_strength", "isometry_every")
        )
        is_due = group["isometry"] and strength != 0 and int(group["updates"]) % every == 0
        if not is_due and decay == 0:
            continue
        for weight in group["params"]:
            if not is_trained(weight):
                continue
            step = None
            if is_due and weight.numel():
                step = _isometry_step(weight, every * rate * strength, group["gain"], group["rectangular"])
            if decay != 0 and weight.grad is not None:
                weight.mul_(1 - rate * decay)
            if step is not None:
                weight.copy_(weight - step)


before_adam: Callable[[Sequence[dict[str, Any]]], None] = torch.compiler.disable(_step)
"""Whether the period has come is a question to Python, which torch.compile would answer once and for all."""


def _isometry_step(weight: Tensor, size: float | Tensor, gain: float | Tensor, rectangular: str) -> Tensor:
    """The change of a weight that descends the gradient of its Gram deviation by `size`, or as far as is stable."""
    with torch.autocast(weight.device.type, enabled=False):
        # At least float32: bfloat16 would lose the signal, which is σ² − s².
        matrix = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
        num_out, num_in = matrix.shape
        target = gain**2 * (num_out / num_in if rectangular == "fan" and num_out > num_in else 1.0)
        gram = matrix @ matrix.T if num_in >= num_out else matrix.T @ matrix
        residual = gram - target * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        gradient = 4.0 * (residual @ matrix if num_in >= num_out else matrix @ residual)
        bound = target + residual.abs().sum(dim=1).amax()
        step = (1.0 / (8.0 * bound)).clamp(max=size.to(bound) if isinstance(size, Tensor) else size)
        return (step * gradient).reshape(weight.shape)
