"""AdamO: Adam with a decoupled step towards isometry."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.adam import adam

from pliant.errors import UserError, unknown_name
from pliant.torch._adamo_state import adopt, check_options, is_trained
from pliant.torch._numbers import Number

Rectangular: TypeAlias = Literal["none", "fan"]

KERNEL_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weight is (out, in, …): one row a unit."""


class AdamO(torch.optim.Optimizer):
    r"""Adam that keeps weight matrices near isometry, and with it the network able to learn.

    Use it in place of `torch.optim.Adam` or `AdamW` when a network must go on learning as its data change.

    .. math:: \theta_{t+1} = (1 - \eta w)\, \theta_t - \eta \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}
              - \min\!\Big(k \eta \lambda,\; \frac{1}{8 B}\Big)\, 4 A (A^\top A - s^2 I)

    The first two terms are `torch.optim.AdamW`'s, foreach implementation; the moments see the gradient of the task
    only. The last term is the isometry step. It is taken at updates number k, 2k, 3k, … by the weights of groups with
    `isometry=True`. A is the weight before the update as a matrix (out, everything else), transposed to have at least
    as many rows as columns, and the step descends :math:`\lVert A^\top A - s^2 I \rVert_F^2`.
    B = s² + ‖AᵀA − s²I‖_∞ bounds the largest σ² (Gershgorin), so the step is stable for every strength: see
    `pliant.optimizers.add_isometry_step` for this and for the period. Far from the target B may be much larger than
    that σ². Then the cap can bind although kηλ is stable, and the step is shorter than equation 20's. The step revives
    dead ReLU units, whose task gradient is zero.

    **No gradient.** As in PyTorch, Adam and the weight decay skip a tensor whose `grad` is None. The isometry step does
    not.

    **Frozen parameters** (`requires_grad` is False) are left alone, even if they still have an old `grad`, which
    `torch.optim.Adam` would follow.

    **Schedules.** The weight decay and the isometry step follow the group's `lr`. Under `torch.compile` every change of
    a learning rate that is a Python number compiles the update again, as with PyTorch's optimizers. Pass
    `lr=torch.tensor(1e-3)` then.

    **Groups of other programs.** Keys that AdamO does not know, such as those of SAM, of schedules and of Hugging Face,
    are kept and not read. Options of Adam that AdamO does not have (`amsgrad`, `fused`, `differentiable`) must be off.

    Args:
      params: tensors, (name, tensor) pairs, or groups as `param_groups` makes them. Each option below may be a group's.
      lr: η ≥ 0, a number or a tensor with one entry.
      betas: decay rates of the two moments, in [0, 1).
      eps: ϵ ≥ 0, outside the root.
      weight_decay: w ≥ 0, decoupled as in `torch.optim.AdamW`.
      isometry: whether the isometry step acts on a group that does not say.
      isometry_strength: λ ≥ 0. With 0 the updates are those of `torch.optim.AdamW(foreach=True)` to the bit.
      isometry_every: k ≥ 1, a period in updates; 1 is the paper.
      gain: s > 0, the singular value aimed at.
      rectangular: "none" as published, or "fan": s² · out/in where a matrix has more outputs than inputs.
      maximize: ascend the task's objective. The isometry step and the weight decay stay the same.

    Raises:
      UserError: for numbers out of range, misspelt options, complex tensors, tensors of lazy modules that have not been
        called, and vectors in a group with isometry; if no group has isometry; and from `step` for sparse gradients.

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
      to 1e-6 over a hundred updates, in how the sum of the steps is rounded, and in that Gram matrices have the
      precision of `torch.set_float32_matmul_precision`, by default the highest. The authors' nanochat code has half of
      the gradient: pass λ/2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: Collection[Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        *,
        isometry: bool = False,
        isometry_strength: Number = 0.1,
        isometry_every: Number = 16,
        gain: Number = 1.0,
        rectangular: Rectangular = "none",
        maximize: bool = False,
    ):
        entries = [] if isinstance(params, Tensor | Mapping) else list(params)
        if not entries:
            raise UserError(
                got=f"params that are empty or no list ({type(params).__name__})",
                wanted="a list of tensors, or of groups",
                do="Make the groups with pliant.torch.param_groups(module, head=...).",
            )
        options: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "isometry": isometry,
            "isometry_strength": isometry_strength,
            "isometry_every": isometry_every,
            "gain": gain,
            "rectangular": rectangular,
            "maximize": maximize,
            "capturable": False,  # torch.compile sets it, on a GPU: Adam's counts then live there
        }
        super().__init__(entries, options)
        if not any(group["isometry"] for group in self.param_groups):
            raise UserError(
                got=f"{len(self.param_groups)} parameter group(s), none of which has isometry=True",
                wanted="at least one group of hidden kernels",
                do="Make the groups with pliant.torch.param_groups(module, head=...).",
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Sets the state: that of a copy or pickle as it is, that of `load_state_dict` after checks."""
        if "param_groups" in self.__dict__:
            adopt(state["param_groups"], self.param_groups, state["state"])
        super().__setstate__(state)
        for options in (self.defaults, *self.param_groups):  # pickles of earlier versions do not have these
            options.setdefault("weight_decay", 0.0)
            options.setdefault("maximize", False)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as in PyTorch.

        Raises:
          UserError: see `AdamO`; nothing is added then.
        """
        super().add_param_group(param_group)
        try:
            check_options(self.param_groups[-1])
        except UserError:
            self.param_groups.pop()
            raise
        # A tensor, since torch.compile takes numbers in groups for constants. It counts the group's updates.
        self.param_groups[-1]["updates"] = torch.tensor(0, device="cpu")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a state of AdamO, or of `torch.optim.Adam` or `AdamW` with the same groups.

        As in PyTorch, the state's options replace the optimizer's. Those that it does not have, such as which groups
        have isometry and how strong it is, stay as they are.

        Raises:
          UserError: for a state that means something that AdamO does not do (another optimizer's, amsgrad, L2 instead
            of decoupled weight decay, another sign of the gradient), or does not fit: other groups or shapes, numbers
            that are not finite. The optimizer stays as it was then.
        """
        try:
            super().load_state_dict(dict(state_dict))
        except UserError:
            raise
        except (KeyError, ValueError) as error:
            raise UserError(
                got=f"a state that is not loaded ({error})",
                wanted="the state_dict of an optimizer with the same groups",
                do="Make both optimizers with the same groups, such as pliant.torch.param_groups(module, head=...).",
            ) from error

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one update.

        Args:
          closure: evaluates the network again and returns the loss.

        Returns:
          What the closure returned.

        Raises:
          UserError: for sparse gradients; nothing is updated then.
        """
        from pliant.torch._before_adam import before_adam  # imports torch.compile

        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            before_adam(self.param_groups)  # reads the weights before the update; Adam reads none
            for group in self.param_groups:
                self._adam_step(group)
        return loss

    def _adam_step(self, group: dict[str, Any]) -> None:
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        self._init_group(group, *lists)
        weights, gradients, exp_avgs, exp_avg_sqs, steps = lists
        beta1, beta2 = group["betas"]
        has_tensors = any(isinstance(value, Tensor) for value in (group["lr"], beta1, beta2))
        adam(
            weights,
            gradients,
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            foreach=group["capturable"] or (group.get("foreach") is not False and not has_tensors),
            capturable=group["capturable"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=group["maximize"],
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
            if weight.grad is None or not is_trained(weight):
                continue
            state = self.state[weight]
            if "exp_avg" not in state:  # other programs keep entries of their own here
                place = weight.device if group["capturable"] else torch.device("cpu")
                state["step"] = torch.zeros((), dtype=torch.float32, device=place)
                state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            weights.append(weight)
            gradients.append(weight.grad)
            exp_avgs.append(state["exp_avg"])
            exp_avg_sqs.append(state["exp_avg_sq"])
            steps.append(state["step"])


def param_groups(module: nn.Module, *, head: str | Sequence[str] | None) -> list[dict[str, Any]]:
    """Sorts a network's parameters into a group that `AdamO` keeps near isometry, and the rest.

    Use it to make the first argument of `AdamO`.

    The first group has the weights of linear layers and convolutions, (out, in) and (out, in, …). The second group has
    everything else: the head, biases, norms, embeddings, convolutions in groups, transposed convolutions, the stacked
    projection of `torch.nn.MultiheadAttention`, weights that are computed from others (parametrisations, weight norm,
    spectral norm, pruning), layers of any other kind, and weights that are shared with one of these. Frozen parameters
    are in no group.

    Args:
      module: the network. Call lazy modules on a batch first.
      head: the output layer's name in it (`named_modules`), or several names; () for a network without a head.

    Returns:
      Two groups, `isometry=True` and `isometry=False`. The second is missing if it would be empty.

    Raises:
      UserError: for a name that the network does not have, lazy modules that have not been called, and if no weight is
        left.

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
    names = _names(head)
    known = dict(module.named_modules())
    for name in names:
        if name not in known:
            raise unknown_name("module", name, known, do="Use a name of module.named_modules().")
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise UserError(
                got=f"{name!r}, a parameter of a lazy module that is not initialized",
                wanted="parameters that have a shape",
                do="Call the module on a batch first.",
            )
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


def _names(head: Any) -> tuple[str, ...]:
    names = (head,) if isinstance(head, str) or not isinstance(head, Iterable) else tuple(head)
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            got=f"head={head!r}",
            wanted="the output layer's name, or several names",
            do="Use names of module.named_modules(), or head=() for a network without a head.",
        )
    return names
