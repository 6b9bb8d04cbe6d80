"""MaxMin: sorting pairs of units."""

import torch
from torch import Tensor, nn

from pliant.errors import UserError


class MaxMin(nn.Module):
    r"""Sorts adjacent pairs of units, ascending: an isometry almost everywhere.

    Use it in place of ReLU with `AdamO` or `newton_schulz`, so that the whole network stays near isometry.

    .. math:: y_{2i} = \min(x_{2i}, x_{2i+1}), \qquad y_{2i+1} = \max(x_{2i}, x_{2i+1})

    The Jacobian is a permutation matrix, so norms and gradients pass unchanged and no unit can die. Where a pair is
    equal its two entries share the gradient.

    Args:
      dim: the axis of the units: −1 behind linear layers, 1 (channels) behind convolutions. Its length must be even.
        Where a convolution may get single examples without a batch axis, count from the end: −3 behind `Conv2d`.

    Raises:
      UserError: for an odd number of units, and if there is no such axis, when called.

    Example:
      >>> MaxMin()(torch.tensor([3.0, 1.0, -2.0, 5.0])).tolist()
      [1.0, 3.0, -2.0, 5.0]
      >>> MaxMin(dim=1)(torch.zeros(8, 6, 4, 4)).shape
      torch.Size([8, 6, 4, 4])

    References:
      Anil, Lucas, Grosse, `Sorting out Lipschitz function approximation <https://arxiv.org/abs/1811.05381>`_, 2019.

    Differs from:
      LNets' `MaxMin`, which emits all maxima and then all minima, and code that sorts descending: the same values in
      another order, so the same functions, but checkpoints are not portable.
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The same values, every pair in order."""
        if not -x.ndim <= self.dim < x.ndim:
            raise UserError(
                got=f"an input of shape {tuple(x.shape)} for dim={self.dim}",
                wanted="an axis of units",
                do="Use dim=-1 behind linear layers; behind convolutions 1, or -3 without a batch.",
            )
        width = x.shape[self.dim]
        if width % 2:
            raise UserError(
                got=f"width {width} along axis {self.dim}",
                wanted="an even width",
                do=f"Choose a width such as {width + 1}, or another dim: 1 for channels.",
            )
        dim = self.dim % x.ndim
        first, second = x.unflatten(dim, (width // 2, 2)).unbind(dim + 1)
        pairs = torch.stack([torch.minimum(first, second), torch.maximum(first, second)], dim=dim + 1)
        return pairs.flatten(dim, dim + 1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"dim={self.dim}"
