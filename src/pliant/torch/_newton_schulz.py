"""Layers whose map is orthogonal whatever their weights are, as a parametrisation of PyTorch modules."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from pliant.errors import UserError, require_range
from pliant.torch._numbers import Number, number, whole_number

_BJORCK: tuple[tuple[float, ...], ...] = (
    (3 / 2, -1 / 2),
    (15 / 8, -5 / 4, 3 / 8),
    (35 / 16, -35 / 16, 21 / 16, -5 / 16),
    (315 / 128, -105 / 32, 189 / 64, -45 / 32, 35 / 128),
)
"""Coefficients of σ, σ³, σ⁵, … by order, as in `pliant.networks.newton_schulz`."""

_MARGIN = 1.05
"""The guard divides by this much more than the norm that it estimates, since estimates are from below."""

_FIRST_ITERATIONS = 30
"""Power iterations on weights that are new to the guard: one alone may be low by a factor of 2 and more."""

_TINY = 1e-30

Layer = TypeVar("Layer", bound=nn.Module)


class NewtonSchulz(nn.Module):
    """The parametrisation that `newton_schulz` registers: from the weights to their orthogonalised value."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, *, iterations: int, order: int, gain: float):
        super().__init__()
        self.iterations = iterations
        self.order = order
        self.gain = gain
        matrix = _matrix(weight.detach())
        self.register_buffer("u", torch.zeros_like(matrix[0]))
        self.register_buffer("v", torch.zeros_like(matrix[:, 0]))
        self._meet(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer applies, in the shape and type of its own."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = _matrix(weight)
            result = self.gain * _iterate(matrix / self._scale(matrix), self.iterations, self.order)
        return result.reshape(weight.shape).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is assigned to the layer's weight becomes the weight that is orthogonalised; the guard looks at it."""
        self._meet(_matrix(weight.detach()))
        return weight

    def _meet(self, matrix: Tensor) -> None:
        """Finds the leading singular vectors, from a start that no pattern of weights is orthogonal to."""
        u = torch.sin(1 + torch.arange(matrix.shape[1], dtype=matrix.dtype, device=matrix.device))
        v = torch.zeros_like(matrix[:, 0])
        for _ in range(_FIRST_ITERATIONS):
            u, v = _power_iteration(matrix, u, v)
        with torch.no_grad():
            self.u.copy_(u)
            self.v.copy_(v)

    def _scale(self, matrix: Tensor) -> Tensor:
        """max(1, 1.05 vᵀAu), differentiated with u and v as constants."""
        u, v = self.u.to(matrix.dtype), self.v.to(matrix.dtype)
        if self.training:
            u, v = _power_iteration(matrix.detach(), u, v)
            with torch.no_grad():  # copies, so that a second call before backward leaves this call's graph alone
                self.u.copy_(u)
                self.v.copy_(v)
        else:
            u, v = u.clone(), v.clone()
        return (_MARGIN * torch.dot(v, matrix @ u)).clamp(min=1.0)


def newton_schulz(
    module: Layer, name: str = "weight", *, iterations: Number = 7, order: Number = 1, gain: Number = 1.0
) -> Layer:
    r"""Makes a layer apply the orthogonalised value of its weight, by Newton–Schulz iterations on every call.

    Use it when a layer must stay an isometry whatever the optimizer does; `AdamO` only keeps weights near one.

    .. math:: Q(W) = g\, \mathrm{NS}(A / s), \qquad s = \max(1, 1.05\,\hat\sigma), \qquad
              \mathrm{NS}: Y \leftarrow \tfrac32 Y - \tfrac12 Y Y^\top Y \quad \text{(order 1)}

    A is W as a matrix (out, everything else). The guard's estimate :math:`\hat\sigma = v^\top A u` comes from two
    buffers that get thirty power iterations when a weight is assigned, and one a call in training mode; in evaluation
    mode they are used as they are. The estimate is from below, which is forgiven up to a factor of 1.81, 1.6, 1.66 and
    1.56 for orders 1 to 4. Just beyond, orders 1 and 3 flip a singular direction, and 2 and 4 diverge: after changing
    the weights in place make some calls in training mode first. Gradients go through all iterations. Everything is
    computed in float32 or wider, under autocast too.

    The weights themselves are left as they are. Seven iterations of order 1 take singular values from 0.13 on (from
    0.13 of the largest on, if that is above 1) to above 0.99, so start from `torch.nn.init.orthogonal_` or call
    `reproject_` first, and again every 10,000 updates.

    Args:
      module: a layer such as `torch.nn.Linear` or `torch.nn.Conv2d`, changed in place.
      name: its weight.
      iterations: ≥ 1; 7 as published.
      order: 1–4, the degree of the polynomial in the Gram matrix.
      gain: g > 0, the singular value of the map.

    Returns:
      The module. Its weights are now `module.parametrizations.weight.original`; assigning to `module.weight` sets them.

    Raises:
      UserError: for numbers out of range, vectors, empty weights, lazy modules that have not been called, weights that
        hooks compute, and convolutions that are transposed or in groups.

    Example:
      >>> layer = newton_schulz(torch.nn.Linear(3, 2, bias=False))
      >>> layer.weight = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.8, 0.0]])
      >>> [round(value, 3) for value in layer(torch.tensor([1.0, 2.0, 3.0])).tolist()]
      [1.0, 2.0]

    References:
      Anil, Lucas, Grosse, `Sorting out Lipschitz function approximation <https://arxiv.org/abs/1811.05381>`_, 2019,
      after Björck and Bowie, 1971. Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical
      Isometry <https://arxiv.org/abs/2606.09762>`_, 2026. Appendix B.

    Differs from:
      `torch.nn.utils.parametrizations.orthogonal`, whose map is orthogonal exactly and costs a matrix exponential or
      Householder product. LNets, which runs 20 iterations from a scale that needs them. The layers of
      `pliant.networks`, which have the same numbers, draw orthogonal weights themselves. A weight that is read several
      times a step gets several power iterations.
    """
    iterations = whole_number("iterations", iterations, 1, do="Use 7, as published.")
    order = whole_number("order", order, 1, do="Use 1, as published; 2–4 converge faster from close by.")
    require_range("order", order, 1, len(_BJORCK), do="Use 1, as published; 2–4 converge faster from close by.")
    gain = number("gain", gain, 1e-12, do="Use 1 for an isometry.")
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor) or not (name in module._parameters or parametrize.is_parametrized(module, name)):
        raise UserError(
            got=f"{name!r} of {module}, which is not a parameter of its own",
            wanted="a layer with a weight",
            do="Remove hooks such as pruning, weight norm and spectral norm from the layer first.",
        )
    if is_lazy(weight):
        raise UserError(
            got=f"{module}, which is not initialized",
            wanted="a weight that has a shape",
            do="Call the lazy module on a batch first.",
        )
    is_matrix = weight.ndim >= 2 and getattr(module, "groups", 1) == 1 and not getattr(module, "transposed", False)
    if not is_matrix or not weight.numel() or weight.is_complex():
        raise UserError(
            got=f"{name} of shape {tuple(weight.shape)} in {module}",
            wanted="the real weight of a linear layer, or of a convolution without groups",
            do="Leave out biases, norms, empty layers, grouped and transposed convolutions: they are no single matrix.",
        )
    parametrization = NewtonSchulz(weight, iterations=iterations, order=order, gain=gain).train(module.training)
    parametrize.register_parametrization(module, name, parametrization)
    return module


def reproject_(module: nn.Module, iterations: Number = 20) -> int:
    r"""Replaces the weights behind all Newton–Schulz layers by their orthogonalised values, in place.

    Use it after initialisation, and every 10,000 updates or so, to keep the iterations accurate.

    .. math:: Y_0 = A / \lVert A^\top A \rVert_F^{1/2}, \qquad Y \leftarrow \tfrac32 Y - \tfrac12 Y Y^\top Y

    The layers' maps stay what they are (up to 1e-3 for condition numbers up to 5), but the weights are well conditioned
    again, and so are their gradients. The optimizer's statistics and frozen weights are left alone.

    Args:
      module: a module with `newton_schulz` layers in it, or one itself.
      iterations: ≥ 0.

    Returns:
      How many weights were replaced.

    Raises:
      UserError: if there is no such layer, or for a negative number of iterations.

    Example:
      >>> layer = newton_schulz(torch.nn.Linear(2, 2))
      >>> layer.weight = torch.tensor([[8.0, 0.0], [0.0, -0.5]])
      >>> reproject_(layer), layer.parametrizations.weight.original.detach().round(decimals=4).tolist()
      (1, [[1.0, 0.0], [0.0, -1.0]])

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Appendix B: every 10,000 training steps.

    Differs from:
      LNets, which scales by the root of the number of entries and runs 50 iterations.
    """
    iterations = whole_number("iterations", iterations, 0, do="Use 20.")
    found = [
        chain.original
        for chain in module.modules()
        if isinstance(chain, parametrize.ParametrizationList) and isinstance(chain[0], NewtonSchulz)
    ]
    if not found:
        raise UserError(
            got=f"{type(module).__name__} without Newton–Schulz layers",
            wanted="at least one",
            do="Make them with pliant.torch.newton_schulz(layer).",
        )
    trained = [weight for weight in found if weight.requires_grad]
    with torch.no_grad():
        for weight in trained:
            matrix = _matrix(weight)
            scale = _gram(matrix).square().sum().clamp(min=_TINY) ** 0.25
            weight.copy_(_iterate(matrix / scale, iterations, order=1).reshape(weight.shape))
    return len(trained)


def _matrix(weight: Tensor) -> Tensor:
    """(out, everything else), float32 or wider."""
    return weight.reshape(weight.shape[0], -1).to(torch.promote_types(weight.dtype, torch.float32))


def _gram(matrix: Tensor) -> Tensor:
    """AᵀA or AAᵀ, whichever is smaller."""
    return matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T


def _iterate(matrix: Tensor, iterations: int, order: int) -> Tensor:
    """Applies Y ← Y Σ_j c_j (YᵀY)^j, from the left where the matrix is wide."""
    is_tall = matrix.shape[0] >= matrix.shape[1]
    eye = torch.eye(min(matrix.shape), dtype=matrix.dtype, device=matrix.device)
    *lower, second, first = _BJORCK[order - 1]
    for _ in range(iterations):
        gram = _gram(matrix)
        factor = second * eye + first * gram
        for coefficient in reversed(lower):
            factor = coefficient * eye + gram @ factor
        matrix = matrix @ factor if is_tall else factor @ matrix
    return matrix


def _power_iteration(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = _direction(matrix @ u, v)
    return _direction(matrix.T @ v, u), v


def _direction(vector: Tensor, former: Tensor) -> Tensor:
    """The unit vector, or the former one where there is none."""
    norm = torch.linalg.vector_norm(vector)
    return torch.where(norm > 0, vector / torch.where(norm > 0, norm, 1.0), former)
