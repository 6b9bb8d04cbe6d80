"""ReDo: recycling dormant units."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.errors import UserError, unknown_name
from pliant.torch._called import require_real, unwrapped
from pliant.torch._forgetting import optimizers_in
from pliant.torch._hidden_layers import HiddenLayer, resolve
from pliant.torch._infer import follow
from pliant.torch._learner import Batch, Learner, learner_of
from pliant.torch._numbers import Number, number, whole_number
from pliant.torch._recycling import dormancy_scores
from pliant.torch._surgery import require_found, require_seen, require_trained, reset_units
from pliant.torch._wiring import Wiring


class ReDo:
    r"""Resets dormant units at regular intervals, with their optimizer statistics.

    Use it when units of a network fall silent during training, so that less and less of its width learns.

    At updates F, 2F, … a unit i of a hidden layer is reset if

    .. math:: s_i = \frac{\mathbb E_x |h_i(x)|}{\frac1N \sum_k \mathbb E_x |h_k(x)| + 10^{-9}} \le \tau

    Here h is the output of the activation. The mean is over examples and positions, and all layers are scored before
    any is reset. The incoming weights, the bias and the norm of a reset unit start again. The weights that read it
    become 0, so a unit that was silent leaves the output as it was, unless a norm over units comes between the
    activation and its readers. An entry that is both becomes 0.

    **Optimizer.** At the same entries it forgets its statistics: `exp_avg`, `momentum_buffer`, `square_avg` and the
    like, whatever the optimizer. Counts, Rprop's step sizes and copies of parameters stay. Adam's count stays too, so a
    reset weight's first update is up to 3.2 learning rates. A norm's running statistics stay. Statistics that weights
    share (Adafactor's rows and columns, the memory of LBFGS) cannot be forgotten for one unit and are refused.

    **Frozen parameters** (`requires_grad` is False) are left alone: no unit is reset in a layer whose feed, norm or
    reader has one.

    Call `step` after every update of the optimizer. In data-parallel training give every process the same inputs and an
    equal generator.

    Args:
      module: the network; behind `torch.compile` and `DataParallel` the module itself is scored.
      optimizer: the optimizer that trains it, or a list of several. Wrappers that keep theirs in an attribute, such as
        SAM, are looked into.
      layers: its hidden layers, if you declare them. By default `infer_wiring` finds them at the first scoring. It also
        checks those that are declared. Weights that are computed from others (`torch.nn.utils.prune`, weight norm,
        spectral norm, parametrisations) or used several times are refused.
      threshold: τ; 0 resets units that are exactly silent, a negative one none.
      every: F ≥ 1, a period in updates.
      wiring: what `infer_wiring` returned, if you have called it. All its layers are recycled.
      initializer: draws a weight in place, such as `torch.nn.init.orthogonal_`. New biases are 0 then. By default the
        layer's own `reset_parameters` draws both.
      generator: for the draws, on the CPU; PyTorch's global one by default.

    Raises:
      UserError: for numbers out of range, declared layers that name unknown modules or other sizes, optimizers that do
        not have the parameters or whose statistics weights share, a generator that is not on the CPU; and from `step`
        if no hidden layer is found, or a declared one is not as declared.

    Example:
      >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
      >>> with torch.no_grad():
      ...     _ = net[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0, 9.0]))  # the first unit never fires
      >>> optimizer = torch.optim.Adam(net.parameters())
      >>> redo = ReDo(net, optimizer, threshold=0.0, every=1)
      >>> redo.step(torch.ones(8, 2)), net[2].weight[0, 0].item(), net[0].bias[0].item() > -1.0
      (1, 0.0, True)

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Equation 1 and algorithm 1.

    Differs from:
      PyTorch ports that set the whole tensor's step count to zero, know one network only, or whose `fill_` writes to a
      copy of the outgoing weights. Dopamine's code, whose incoming weights are always Xavier uniform and which keeps
      the bias' moments. `pliant.interventions.redo`, which draws the examples itself and whose biases start at 0.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Any,
        layers: Sequence[HiddenLayer] = (),
        *,
        threshold: Number = 0.025,
        every: Number = 1000,
        wiring: Wiring | None = None,
        initializer: Callable[..., Any] | None = None,
        generator: torch.Generator | None = None,
    ):
        if generator is not None and generator.device.type != "cpu":
            raise UserError(
                got=f"a generator on {generator.device}", wanted="one on the CPU", do="Use torch.Generator()."
            )
        self.module, _ = unwrapped(module)
        self.optimizer = optimizer
        self.threshold = number("threshold", threshold, do="Use 0.025, the default; a negative one resets no unit.")
        self.every = whole_number("every", every, 1, do="Use the period in updates, 1000 by default.")
        self.initializer = initializer
        self.generator = generator
        self.updates = 0
        self._optimizers = optimizers_in(optimizer)
        declared = resolve(self.module, layers)
        self._declared = declared.layers
        self._is_followed = wiring is not None
        self._learner = self._learn(wiring or declared) if wiring or layers else None

    def step(self, *inputs: Any, **named: Any) -> int:
        """Counts an update, and resets dormant units at every F-th.

        Args:
          inputs: what the network is called with, on 64 examples or so of the current task; read at those updates only.
          named: keyword arguments of the network.

        Returns:
          How many units were reset.

        Raises:
          UserError: see `scores` and `reset`.
        """
        self.updates += 1
        if self.updates % self.every:
            return 0
        scores = self.scores(*inputs, **named)
        return self.reset({name: score <= self.threshold for name, score in scores.items()})

    def scores(self, *inputs: Any, **named: Any) -> dict[str, Tensor]:
        """Scores all units: (width,) by the feed's name; they average to 1, or are all 0 in a silent layer.

        The network runs in evaluation mode without gradients; its mode is restored afterwards. The first time it runs
        several times more for every layer, to find the layers and check them: see `infer_wiring`.

        Raises:
          UserError: if no hidden layer is found, or a declared one is not as declared.
        """
        if any(isinstance(each, Tensor) and each.ndim and not len(each) for each in tree_leaves((inputs, named))):
            raise UserError(got="no examples", wanted="a batch", do="Pass 64 examples or so of the current task.")
        if not self._is_followed:
            require_real(self.module)
            wiring = follow(self.module, inputs, named, declared=self._declared)
            names = [layer.name for layer in self._declared or wiring.layers]
            self._learner = self._learn(
                wiring._replace(layers=tuple(each for each in wiring.layers if each.name in names))
            )
            self._is_followed = True
        assert self._learner is not None
        require_seen(self._learner, "ReDo")
        outputs = self._learner.outputs(Batch(inputs, named), is_training=False)
        return {name: dormancy_scores(each) for name, each in outputs.items()}

    def reset(self, units: Mapping[str, Tensor]) -> int:
        """Resets units, whatever their scores. Layers with frozen parameters are left alone.

        Args:
          units: True at the units to reset, (width,) by the feed's name; layers may be missing.

        Returns:
          How many were reset.

        Raises:
          UserError: for unknown layers and other shapes, if the layers are not found yet, and if the optimizer cannot
            forget; nothing is changed then.
        """
        if self._learner is None:
            raise UserError(
                got="a reset before the hidden layers are found",
                wanted="layers that are known",
                do="Call scores(x) first, or give layers= or wiring=.",
            )
        widths = {layer.name: layer.width for layer in self._learner.wiring.layers}
        flags = {name: torch.as_tensor(value) for name, value in units.items()}
        for name, value in flags.items():
            if name not in widths:
                raise unknown_name("hidden layer", str(name), widths, do="Use the name of a layer's feed.")
            if value.dtype != torch.bool or value.shape != (widths[name],):
                raise UserError(
                    got=f"units of shape {tuple(value.shape)} and type {value.dtype} for {name!r}",
                    wanted=f"{widths[name]} booleans",
                    do="Pass True for each unit to reset, such as scores[name] <= 0.",
                )
        return reset_units(self._learner, flags)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates and the generator's state, to resume with."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"updates": self.updates, "generator": generator}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from a state that `state_dict` made."""
        self.updates = whole_number(
            "updates", state_dict.get("updates"), 0, do="The checkpoint is damaged: use another."
        )
        if self.generator is not None and state_dict.get("generator") is not None:
            self.generator.set_state(state_dict["generator"].cpu())

    def _learn(self, wiring: Wiring) -> Learner:
        """The network with its layers, if the optimizers can forget what a reset rewrites."""
        require_found(wiring, "ReDo")
        learner = learner_of(self.module, wiring, self._optimizers, self.initializer, self.generator)
        require_trained(learner)
        return learner
