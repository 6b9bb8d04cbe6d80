"""L2 Init and spectral regularisation for attached networks: penalties on parameters."""

import math
from typing import Literal

import torch
from torch import Tensor

from pliant.errors import UserError, require_choice
from pliant.torch._learner import Learner
from pliant.torch._mechanism import Mechanism, State
from pliant.torch._numbers import Number, number, whole_number

ALL_BUT_NORMS = ("matrix", "head", "bias", "embed", "other")


def l2_init(*, strength: Number = 1e-2, norm: Literal["l2", "l1"] = "l2") -> Mechanism:
    """Pulls parameters but norms towards their initial values, as `pliant.penalties.l2_init` does."""
    size = number("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_choice("norm", norm, "l2", "l1")

    def init(learner: Learner) -> State:
        names = learner.trained(*ALL_BUT_NORMS)
        if not names:
            raise UserError(
                got="L2 Init on a network whose parameters are all frozen or norms",
                wanted="parameters that are trained",
                do="Train some: requires_grad_().",
            )
        return {name: learner.params[name].detach().clone() for name in names}

    def penalty(learner: Learner, state: State) -> Tensor:
        terms = []
        for name, start in state.items():
            moved = _wide(learner.params[name]) - _wide(start)
            terms.append((moved**2).sum() if norm == "l2" else (moved.detach().sign() * moved).sum())
        return size * _total(terms)

    return Mechanism(init, penalty=penalty if size else None)


def spectral(
    *,
    strength: Number = 1e-3,
    exponent: Number = 2,
    gain: Number = 1.0,
    target: Literal["gain", "start"] = "gain",
    include_head: bool = True,
    include_bias: bool = True,
    pull_to_one: bool = False,
) -> Mechanism:
    """Penalises kernels whose spectral norm differs from the gain, as `pliant.penalties.spectral` does."""
    size = number("strength", strength, 0, do="Use 0 to switch the penalty off.")
    power = whole_number("exponent", exponent, 1, do="Use 2, as published.")
    aim = number("gain", gain, 1e-12, do="Use 1, as published, or √2 for the gain of ReLU networks.")
    require_choice("target", target, "gain", "start")

    def init(learner: Learner) -> State:
        names = learner.trained("matrix", *(("head",) if include_head else ()))
        if not names:
            raise UserError(
                got="spectral penalties on a network without a kernel that is trained",
                wanted="a linear layer or a convolution",
                do="Train one: requires_grad_().",
            )
        state: State = {}
        for name in names:
            matrix = _matrix(learner, name).detach()
            state[f"{name}/u"] = _first_vector(len(matrix)).to(matrix)
            if target == "start":
                start = torch.linalg.matrix_norm(matrix, 2)
                state[f"{name}/target"] = torch.where(start > 0, start, torch.full_like(start, aim))
        for name in learner.trained("norm") if pull_to_one else ():
            state[f"{name}/start"] = learner.params[name].detach().clone()
        return state

    def penalty(learner: Learner, state: State) -> Tensor:
        terms = []
        for key in [key for key in state if key.endswith("/u")]:
            name = key.removesuffix("/u")
            matrix, u = _matrix(learner, name), state[key]
            with torch.no_grad():
                v = _direction(u @ matrix)
                image = matrix @ v
                length = image.norm()
                if length > 0 and length.isfinite():
                    u = state[key] = _direction(image)
            goal = state.get(f"{name}/target", aim)
            terms.append(((u @ (matrix @ v)) ** power - goal**power) ** 2)
        if include_bias:
            terms += [(_wide(learner.params[name]) ** 2).sum() ** power for name in learner.trained("bias")]
        for key in [key for key in state if key.endswith("/start")]:
            now = learner.params[key.removesuffix("/start")]
            terms.append(((_wide(now) - _wide(state[key])) ** 2).sum())
        return size * _total(terms)

    return Mechanism(init, penalty=penalty if size else None)


def _matrix(learner: Learner, name: str) -> Tensor:
    """A kernel as a matrix (in, out), in float32 or wider."""
    kernel = _wide(learner.params[name])
    axis = learner.wiring.output_axes[name]
    return kernel.movedim((1 - axis, axis), (-2, -1)).reshape(-1, kernel.shape[axis])


def _wide(tensor: Tensor) -> Tensor:
    """In float32 or wider; a complex tensor as its real and imaginary parts."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _total(terms: list[Tensor]) -> Tensor:
    """Their sum, where the first of them is."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term.to(total.device)
    return total


def _first_vector(size: int) -> Tensor:
    """As in `pliant.penalties.spectral`: no entry is 0, and no pattern repeats."""
    return _direction(torch.tensor([math.sin(1.0 + i) for i in range(size)], dtype=torch.float32))


def _direction(vector: Tensor) -> Tensor:
    norm = vector.norm()
    return vector / torch.where(norm > 0, norm, torch.ones_like(norm))
