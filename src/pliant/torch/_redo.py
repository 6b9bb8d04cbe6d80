"""ReDo: recycling dormant units."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pliant.errors import UserError, unknown_name
from pliant.torch._between import require_nothing_between
from pliant.torch._forgetting import forget, optimizers_in, require_statistics
from pliant.torch._hidden_layers import HiddenLayer, Layer, resolve
from pliant.torch._numbers import Number, number, whole_number
from pliant.torch._perturbation import require_units_in_place


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
      module: the network itself, not what `torch.compile` makes of it, where hooks are not called.
      optimizer: the optimizer that trains it, or a list of several. Wrappers that keep theirs in an attribute, such as
        SAM, are looked into.
      layers: its hidden layers. Weights that are computed from others (`torch.nn.utils.prune`, weight norm, spectral
        norm, parametrisations) or shared between modules are refused.
      threshold: τ; 0 resets units that are exactly silent, a negative one none.
      every: F ≥ 1, a period in updates.
      initializer: draws a weight in place, such as `torch.nn.init.orthogonal_`; called with `generator=`. New biases
        are 0 then. By default the layer's own `reset_parameters` draws both.
      generator: for the draws, on the CPU; PyTorch's global one by default.

    Raises:
      UserError: for numbers out of range, unknown modules, sizes that do not match, layers other than linear ones and
        convolutions, weights that are not a module's own, MaxMin (whose outputs belong to no unit), optimizers that do
        not have the parameters or whose statistics weights share, a generator that is not on the CPU; and from `step`
        if an activation is not called exactly once, units are elsewhere than the layer says, or a reader or a norm is
        not declared.

    Example:
      >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
      >>> with torch.no_grad():
      ...     _ = net[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0, 9.0]))  # the first unit never fires
      >>> optimizer = torch.optim.Adam(net.parameters())
      >>> redo = ReDo(net, optimizer, [HiddenLayer("0", "1", readers=["2"])], threshold=0.0, every=1)
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
        layers: Sequence[HiddenLayer],
        *,
        threshold: Number = 0.025,
        every: Number = 1000,
        initializer: Callable[..., Any] | None = None,
        generator: torch.Generator | None = None,
    ):
        if not layers:
            raise UserError(
                got="ReDo without hidden layers", wanted="at least one", do="Pass [HiddenLayer(feed, activation, ...)]."
            )
        if generator is not None and generator.device.type != "cpu":
            raise UserError(
                got=f"a generator on {generator.device}", wanted="one on the CPU", do="Use torch.Generator()."
            )
        self.module = module
        self.optimizer = optimizer
        self.layers = [resolve(module, layer) for layer in layers]
        self.threshold = number("threshold", threshold, do="Use 0.025, the default; a negative one resets no unit.")
        self.every = whole_number("every", every, 1, do="Use the period in updates, 1000 by default.")
        self.initializer = initializer
        self.generator = generator
        self.updates = 0
        self._is_checked = False
        self._optimizers = optimizers_in(optimizer)
        self._require_suited()

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
        a few times more for every layer, to see whether a change of a unit shows where the layer says and nowhere else,
        and once with gradients, to see whether parameters between the layer and its activation are declared.

        Raises:
          UserError: if an activation is not called exactly once, units are elsewhere than declared, or a reader or a
            norm is missing.
        """

        def run(hooks: Sequence[Any], *, has_gradients: bool = False) -> Any:
            modes = [(part, part.training) for part in self.module.modules()]
            try:
                self.module.eval()
                with torch.inference_mode(False), torch.set_grad_enabled(has_gradients):
                    given, keywords = tree_map_only(Tensor, _recordable, (inputs, named))
                    return self.module(*given, **keywords)
            finally:
                for hook in hooks:
                    hook.remove()
                for part, mode in modes:
                    part.training = mode

        shapes: dict[str, torch.Size] = {}
        seen: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        run([hook for layer in self.layers for hook in _hooks(layer, shapes, seen[layer.name])])
        for name, means in seen.items():
            if len(means) != 1:
                raise UserError(
                    got=f"the activation behind {name!r} called {len(means)} times in a forward pass",
                    wanted="one call",
                    do="Give every hidden layer an activation module of its own, in a network that is not compiled.",
                )
        if not self._is_checked:
            self._check_places(run)
            self._is_checked = True
        return {name: means[0] / (means[0].mean() + 1e-9) for name, means in seen.items()}

    def reset(self, units: Mapping[str, Tensor]) -> int:
        """Resets units, whatever their scores. Layers with frozen parameters are left alone.

        Args:
          units: True at the units to reset, (width,) by the feed's name; layers may be missing.

        Returns:
          How many were reset.

        Raises:
          UserError: for unknown layers and other shapes, and if the optimizer cannot forget; nothing is changed then.
        """
        widths = {layer.name: layer.width for layer in self.layers}
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
        chosen = [
            (layer, flags[layer.name])
            for layer in self.layers
            if layer.name in flags and bool(flags[layer.name].any()) and not layer.is_frozen
        ]
        require_statistics(self._optimizers, [each for layer, _ in chosen for each in layer.parameters])
        fed: dict[Tensor, Tensor] = {}
        read: dict[Tensor, Tensor] = {}
        fresh: dict[Tensor, Tensor] = {}
        for layer, dead in chosen:
            for parameter, value in self._draws(layer):
                fresh[parameter] = value
                _mark(fed, parameter, 0, dead)
            for reader, (_, repeats, tiles) in layer.readers:
                _mark(read, reader.weight, 1, dead.repeat_interleave(repeats).tile(tiles))
        with torch.no_grad():
            for parameter, mask in fed.items():
                parameter.copy_(torch.where(mask, fresh[parameter].to(parameter), parameter))
            for parameter, mask in read.items():
                parameter.masked_fill_(mask, 0.0)
            for parameter, mask in (*fed.items(), *read.items()):
                forget(self._optimizers, parameter, mask)
        return sum(int(dead.sum()) for _, dead in chosen)

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

    def _require_suited(self) -> None:
        """Raises unless every layer is given once, and the optimizers can reset all statistics of its parameters."""
        names = [layer.name for layer in self.layers]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    got=f"{names.count(name)} hidden layers fed by {name!r}", wanted="one", do="List all readers in it."
                )
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        parameters = [(layer.name, parameter) for layer in self.layers for parameter in layer.parameters]
        for name, parameter in parameters:
            if parameter.requires_grad and id(parameter) not in trained:
                raise UserError(
                    got=f"a parameter of shape {tuple(parameter.shape)} at {name!r}, which the optimizer does not have",
                    wanted="the optimizers that train the hidden layers",
                    do="Pass all of them as a list, or freeze what none of them trains: requires_grad_(False).",
                )
        require_statistics(self._optimizers, [parameter for _, parameter in parameters])

    def _check_places(self, run: Callable[..., Any]) -> None:
        """Raises if units are elsewhere than declared; what forward passes count or draw stays as it was."""
        devices = {each.device for each in self.module.parameters() if each.device.type == "cuda"}

        def run_alike(hooks: Sequence[Any], **options: Any) -> Any:
            buffers = [
                (part, name, buffer, buffer.clone())
                for part in self.module.modules()
                for name, buffer in part._buffers.items()
                if buffer is not None
            ]
            try:
                with torch.random.fork_rng(devices=devices):
                    return run(hooks, **options)
            finally:
                for part, name, buffer, value in buffers:
                    part._buffers[name] = buffer.detach_() if buffer.grad_fn is not None else buffer
                    buffer.data.copy_(value)

        require_nothing_between(self.module, self.layers, run_alike)
        for layer in self.layers:
            require_units_in_place(self.module, layer, run_alike)

    def _draws(self, layer: Layer) -> Iterator[tuple[Tensor, Tensor]]:
        """The parameters that a layer's units own, each with a whole fresh one; drawn on the CPU in float32."""
        feed = layer.feed
        drawn = copy.deepcopy(feed).to("cpu", torch.promote_types(feed.weight.dtype, torch.float32))
        if self.initializer is None:
            seed = int(torch.randint(2**63 - 1, (), generator=self.generator))
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                drawn.reset_parameters()
        else:
            with torch.no_grad():
                self.initializer(drawn.weight, generator=self.generator)
                if drawn.bias is not None:
                    drawn.bias.zero_()
        yield feed.weight, drawn.weight
        if feed.bias is not None:
            yield feed.bias, drawn.bias
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            parameter = getattr(layer.norm, name, None)
            if parameter is not None:
                yield parameter, torch.full_like(parameter, value)


def _hooks(layer: Layer, shapes: dict[str, torch.Size], seen: list[Tensor]) -> Iterator[Any]:
    """Forward hooks that note the shape of a feed's output, and the mean absolute output of every unit."""

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        shapes[layer.name] = output.shape

    def observe(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        seen.append(layer.means(output, shapes.get(layer.name)))

    yield layer.feed.register_forward_hook(note)
    yield layer.activation.register_forward_hook(observe)


def _recordable(each: Tensor) -> Tensor:
    """The tensor, copied if it was made in inference mode, where gradients cannot be recorded with it."""
    return each.clone() if each.is_inference() else each


def _mark(masks: dict[Tensor, Tensor], parameter: Tensor, axis: int, flags: Tensor) -> None:
    """Adds the entries that `flags` select along an axis."""
    shape = [1] * parameter.ndim
    shape[axis] = -1
    mask = flags.to(parameter.device).reshape(shape).expand_as(parameter)
    masks[parameter] = masks[parameter] | mask if parameter in masks else mask
