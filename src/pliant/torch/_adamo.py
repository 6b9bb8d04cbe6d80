"""AdamO: Adam with a decoupled step towards isometry."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from pliant.errors import UserError, require_choice, require_range, unknown_name

Rectangular: TypeAlias = Literal["none", "fan"]

KERNEL_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weight is (out, in, …): one row a unit."""

_FOREIGN = ("params", "param_names", "name", "initial_lr")
"""What PyTorch and its schedulers keep in a parameter group beside the optimizer's own options."""


class AdamO(torch.optim.Optimizer):
    r"""Adam that keeps weight matrices near isometry, and with it the network able to learn.

    .. math:: \theta_{t+1} = \theta_t - \eta \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}
              - \min\!\Big(k \eta \lambda,\; \frac{1}{8 B}\Big)\, 4 A (A^\top A - s^2 I)

    The first step is `torch.optim.Adam`'s, foreach implementation; its moments see the gradient of the task only. The
    second is taken at updates number k, 2k, 3k, … by the weights of groups with `isometry=True`: A is the weight before
    the update as a matrix (out, everything else), transposed to have at least as many rows as columns, and it descends
    :math:`\lVert A^\top A - s^2 I \rVert_F^2`. B = s² + ‖AᵀA − s²I‖_∞ bounds the largest σ² (Gershgorin), so the step
    is stable for every strength: see `pliant.optimizers.add_isometry_step` for this and for the period. Far from the
    target B may be much larger than that σ²; then the cap can bind although kηλ is stable, and the step is shorter than
    equation 20's. It revives dead ReLU units, whose task gradient is zero.

    **No gradient.** Adam skips a tensor whose `grad` is None, as in PyTorch; the isometry step does not, unless the
    tensor is frozen (`requires_grad` is False).

    **Schedules.** The isometry step follows the group's `lr`. Under `torch.compile` a learning rate that is a Python
    number and changes makes every update compile anew, as with PyTorch's optimizers: pass `lr=torch.tensor(1e-3)` then.

    Args:
      params: tensors, or groups as `param_groups` makes them. Every option below may be a group's own.
      lr: η ≥ 0, a number or a tensor of one entry.
      betas: decay rates of the two moments, in [0, 1).
      eps: ϵ ≥ 0, outside the root.
      isometry: whether the isometry step acts on a group that does not say.
      isometry_strength: λ ≥ 0. With 0 the updates are those of `torch.optim.Adam(foreach=True)` to the bit.
      isometry_every: k ≥ 1, a period in updates; 1 is the paper.
      gain: s > 0, the singular value aimed at.
      rectangular: "none" as published, or "fan": s² · out/in where a matrix has more outputs than inputs.

    Raises:
      UserError: for numbers out of range, unknown options, complex tensors, and vectors in a group with isometry; if no
        group has isometry; and from `step` for sparse gradients.

    Example:
      >>> hidden = torch.nn.Parameter(torch.diag(torch.tensor([2.0, 1.0])))
      >>> optimizer = AdamO([hidden], lr=1e-2, isometry=True, isometry_strength=1.0, isometry_every=1)
      >>> optimizer.step()
      >>> round(hidden[0, 0].item() - 2.0, 3)
      -0.24

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Equations 19 and 20.

    Differs from:
      The paper, as `pliant.optimizers.adamo` does: λ = 0.1, k = 16, and the cap. From that one, with which it agrees
      to 1e-6 over a hundred updates, in how the sum of the two steps is rounded, and in that Gram matrices have the
      precision of `torch.set_float32_matmul_precision`, by default the highest. The authors' nanochat code has half of
      the gradient: pass λ/2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        isometry: bool = False,
        isometry_strength: float = 0.1,
        isometry_every: int = 16,
        gain: float = 1.0,
        rectangular: Rectangular = "none",
    ):
        options: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "isometry": isometry,
            "isometry_strength": isometry_strength,
            "isometry_every": isometry_every,
            "gain": gain,
            "rectangular": rectangular,
            "capturable": False,  # torch.compile sets it, on a GPU: Adam's counts then live there
        }
        super().__init__(params, options)
        if not any(group["isometry"] for group in self.param_groups):
            raise UserError(
                got=f"{len(self.param_groups)} parameter group(s), none of which has isometry=True",
                wanted="at least one group of hidden kernels",
                do="Make the groups with pliant.torch.param_groups(module, head=...).",
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as in PyTorch.

        Raises:
          UserError: see `AdamO`; nothing is added then.
        """
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1], self.defaults)
        except UserError:
            self.param_groups.pop()
            raise
        # A tensor, since torch.compile takes numbers in groups for constants. It counts the group's updates.
        self.param_groups[-1]["updates"] = torch.tensor(0, device="cpu")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a state; one that `torch.optim.Adam` made with the same groups will do.

        What such a state does not say (which groups have isometry, how strong it is) stays as it is.
        """
        own = [{name: group[name] for name in group if name != "params"} for group in self.param_groups]
        super().load_state_dict(dict(state_dict))
        for group, options in zip(self.param_groups, own, strict=True):
            for name, value in options.items():
                group.setdefault(name, value)
            group["updates"] = group["updates"].cpu()  # some programs move whole states to a device

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one update.

        Args:
          closure: evaluates the network anew and returns the loss.

        Returns:
          What the closure returned.

        Raises:
          UserError: for sparse gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            _before_adam(self.param_groups)  # it reads the weights before the update, and Adam's step reads none
            for group in self.param_groups:
                self._adam_step(group)
        return loss

    def _adam_step(self, group: dict[str, Any]) -> None:
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        self._init_group(group, *lists)
        weights, gradients, exp_avgs, exp_avg_sqs, steps = lists
        beta1, beta2 = group["betas"]
        adam(
            weights,
            gradients,
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            foreach=group["capturable"] or not isinstance(group["lr"], Tensor),
            capturable=group["capturable"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _init_group(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        gradients: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        """Fills the lists with what has a gradient. torch.compile looks for this name, and runs it as it is."""
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                place = weight.device if group["capturable"] else torch.device("cpu")
                state["step"] = torch.zeros((), dtype=torch.float32, device=place)
                state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            weights.append(weight)
            gradients.append(weight.grad)
            exp_avgs.append(state["exp_avg"])
            exp_avg_sqs.append(state["exp_avg_sq"])
            steps.append(state["step"])


def param_groups(module: nn.Module, *, head: str | Sequence[str]) -> list[dict[str, Any]]:
    """Sorts a network's parameters into a group that `AdamO` keeps near isometry, and the rest.

    Near isometry are the weights of linear layers and convolutions, (out, in) and (out, in, …). To the rest belong the
    head, biases, norms, embeddings, convolutions in groups, the stacked projection of `torch.nn.MultiheadAttention`,
    parametrised weights, layers of any other kind, and whatever shares its weight with one of these. Frozen parameters
    are in no group.

    Args:
      module: the network.
      head: the output layer's name in it (`named_modules`), or several; () for a network without one.

    Returns:
      Two groups, `isometry=True` and `isometry=False`; the second is missing where nothing belongs to it.

    Raises:
      UserError: for a name that the network does not have, and if no weight is left.

    Example:
      >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
      >>> groups = param_groups(net, head="2")
      >>> [(group["isometry"], [tuple(p.shape) for p in group["params"]]) for group in groups]
      [(True, [(8, 4)]), (False, [(8,), (2, 8), (2,)])]

    References:
      Rosseau et al. 2026 (arXiv 2606.09762), section 4: every layer but the head.

    Differs from:
      The authors' RL code, which leaves convolutions out and finds the head by the largest number in a layer's name.
    """
    names = (head,) if isinstance(head, str) else tuple(head)
    known = dict(module.named_modules())
    for name in names:
        if name not in known:
            raise unknown_name("module", name, known, do="Use a name of module.named_modules().")
    heads = {part for name in names for part in known[name].modules()}
    kernels: set[Tensor] = set()
    rest: set[Tensor] = set()
    for part in module.modules():
        is_kernel_layer = isinstance(part, KERNEL_LAYERS) and getattr(part, "groups", 1) == 1 and part not in heads
        for name, parameter in part.named_parameters(recurse=False):
            (kernels if is_kernel_layer and name == "weight" else rest).add(parameter)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p in kernels - rest], "isometry": True},
        {"params": [p for p in trained if p not in kernels - rest], "isometry": False},
    ]
    if not groups[0]["params"]:
        raise UserError(
            got=f"a module without hidden kernels beside {', '.join(names) or 'no head'}",
            wanted="at least one linear layer or convolution that is trained",
            do="Check the head's name, or make the groups by hand: {'params': [...], 'isometry': True}.",
        )
    return [group for group in groups if group["params"]]


def _untraced(groups: Sequence[dict[str, Any]]) -> None:
    """Counts an update of every group, and moves the weights of those whose period has come.

    Raises:
      UserError: for sparse gradients, before anything is changed.
    """
    for weight in (weight for group in groups for weight in group["params"]):
        if weight.grad is not None and weight.grad.layout != torch.strided:
            raise UserError(
                got=f"a sparse gradient for a parameter of shape {tuple(weight.shape)}",
                wanted="dense gradients",
                do="Make the embedding with sparse=False, or give it an optimizer of its own.",
            )
    for group in groups:
        group["updates"] += 1
        strength, every = group["isometry_strength"], group["isometry_every"]
        if group["isometry"] and strength != 0 and int(group["updates"]) % every == 0:
            for weight in group["params"]:
                if weight.requires_grad:
                    _isometry_step_(weight, every * group["lr"] * strength, group["gain"], group["rectangular"])


_before_adam: Callable[[Sequence[dict[str, Any]]], None] = torch.compiler.disable(_untraced)
"""Whether the period has come is a question to Python, which torch.compile would answer once and for all."""


def _isometry_step_(weight: Tensor, size: float | Tensor, gain: float, rectangular: str) -> None:
    """Moves a weight down the gradient of its Gram deviation by `size`, or as far as is stable."""
    num_out = weight.shape[0]
    with torch.autocast(weight.device.type, enabled=False):
        # At least float32: bfloat16 would lose the signal, which is σ² − s².
        matrix = weight.reshape(num_out, -1).to(torch.promote_types(weight.dtype, torch.float32))
        num_in = matrix.shape[1]
        target = gain**2 * (num_out / num_in if rectangular == "fan" and num_out > num_in else 1.0)
        gram = matrix @ matrix.T if num_in >= num_out else matrix.T @ matrix
        residual = gram - target * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        gradient = 4.0 * (residual @ matrix if num_in >= num_out else matrix @ residual)
        bound = target + residual.abs().sum(dim=1).amax()
        step = (1.0 / (8.0 * bound)).clamp(max=size.to(bound) if isinstance(size, Tensor) else size)
        weight.copy_((matrix - step * gradient).reshape(weight.shape))


def _check(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for name in group:
        if name not in defaults and name not in _FOREIGN:
            raise unknown_name("option", name, defaults, do="Leave it out: AdamO does not read it.")
    require_range("lr", group["lr"], 0, do="Use a step size such as 1e-3.")
    for beta in group["betas"]:
        require_range("betas", beta, 0, 0.999999, do="(0.9, 0.999) is usual.")
    require_range("eps", group["eps"], 0, do="1e-8 is usual.")
    require_range("isometry_strength", group["isometry_strength"], 0, do="Use 0 for plain Adam.")
    require_range("isometry_every", group["isometry_every"], 1, do="Use 1 for the paper's step at every update.")
    require_range("gain", group["gain"], 1e-12, do="Use 1 for isometry, √2 for the gain of ReLU networks.")
    require_choice("rectangular", group["rectangular"], "none", "fan")
    for parameter in group["params"]:
        if parameter.is_complex():
            raise UserError(
                got=f"a complex parameter of shape {tuple(parameter.shape)}",
                wanted="real numbers",
                do="Give complex parameters an optimizer of their own, such as torch.optim.Adam.",
            )
        if group["isometry"] and parameter.ndim < 2:
            raise UserError(
                got=f"a parameter of shape {tuple(parameter.shape)} with isometry=True",
                wanted="weights (out, in) or (out, in, …)",
                do="Put biases and scales into a group of their own: pliant.torch.param_groups(module, head=...).",
            )
