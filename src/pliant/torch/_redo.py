"""ReDo: recycling dormant units."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pliant.errors import UserError, require_range, unknown_name
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._maxmin import MaxMin

KEPT = ("step", "step_size", "z", "ax", "master_param")
"""Names of entries of optimizer states that are no statistics of gradients: counts, Rprop's step sizes, copies of
parameters (schedule-free, averaged SGD, mixed precision)."""


class Reader(NamedTuple):
    """A layer that reads the units of another, and where it finds them among its inputs."""

    module: str
    """Its name in the network (`named_modules`)."""
    repeats: int = 1
    """How many inputs in a row are one unit: H·W behind a flatten of (batch, channels, H, W), where the unit is the
    slowest index."""
    tiles: int = 1
    """How often all units come one after the other: 2 behind CReLU, H·W behind a flatten with channels last."""


class HiddenLayer(NamedTuple):
    """One hidden layer: what feeds each unit, where it is observed, and who reads it. Modules go by their names."""

    feed: str
    """A linear layer or convolution: its outputs are the units."""
    activation: str
    """The module whose output is scored, called once in a forward pass: give every layer one of its own."""
    readers: Sequence[str | Reader]
    """All layers that multiply the units' outputs; a name is a `Reader` with its defaults."""
    norm: str | None = None
    """The norm whose scale and offset belong to the units."""


class ReDo:
    r"""Resets dormant units at regular intervals, with their optimizer statistics.

    At updates F, 2F, … a unit i of a hidden layer is reset if

    .. math:: s_i = \frac{\mathbb E_x |h_i(x)|}{\frac1N \sum_k \mathbb E_x |h_k(x)| + 10^{-9}} \le \tau

    with h behind the activation and the mean over examples and positions, all layers being scored before any is reset.
    Its incoming weights, bias and norm are drawn anew; the weights that read it become 0, so a unit that was silent
    leaves the output as it was; an entry that is both ends at 0. At the same entries the optimizer forgets: every
    tensor of its state that has the weight's shape becomes 0, whatever its name (exp_avg, momentum_buffer, square_avg,
    …) but for "step", "step_size" and copies of parameters ("z", "ax", "master_param"). Adam's count stays, so a reset
    weight's first update is up to 3.2 learning rates. A norm's running statistics stay too.

    Call `step` after every update of the optimizer. In data-parallel training give every process the same inputs and an
    equal generator.

    Args:
      module: the network itself, not what `torch.compile` makes of it, where hooks are not heard.
      optimizer: the one that trains it.
      layers: its hidden layers.
      threshold: τ; 0 resets units that are exactly silent, a negative one none.
      every: F ≥ 1, a period in updates.
      initializer: draws a weight in place, such as `torch.nn.init.orthogonal_`; called with `generator=`. New biases
        are 0 then. By default the layer's own `reset_parameters` draws both.
      generator: for the draws, on the CPU; PyTorch's global one by default.

    Raises:
      UserError: for numbers out of range, unknown modules, sizes that do not suit each other, layers other than linear
        ones and convolutions, MaxMin (whose outputs belong to no unit), a generator that is not on the CPU; and from
        `step` if an activation is not called exactly once.

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
        optimizer: torch.optim.Optimizer,
        layers: Sequence[HiddenLayer],
        *,
        threshold: float = 0.025,
        every: int = 1000,
        initializer: Callable[..., Any] | None = None,
        generator: torch.Generator | None = None,
    ):
        require_range("every", every, 1, do="Use the period in updates, 1000 by default.")
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
        self.layers = [_resolved(module, layer) for layer in layers]
        self.threshold = threshold
        self.every = every
        self.initializer = initializer
        self.generator = generator
        self.updates = 0

    def step(self, *inputs: Any, **named: Any) -> int:
        """Counts an update, and resets dormant units if it is one of every F.

        Args:
          inputs: what the network is called with, on 64 examples or so of the current task; read at those updates only.
          named: keyword arguments of the network.

        Returns:
          How many units were reset.
        """
        self.updates += 1
        if self.updates % self.every:
            return 0
        scores = self.scores(*inputs, **named)
        return self.reset({name: score <= self.threshold for name, score in scores.items()})

    def scores(self, *inputs: Any, **named: Any) -> dict[str, Tensor]:
        """Scores all units: (width,) by the feed's name; they average to 1, or are all 0 in a silent layer.

        The network is run in evaluation mode without gradients, and is in the former mode again afterwards.
        """
        seen: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        hooks = [layer.activation.register_forward_hook(_observer(layer, seen[layer.name])) for layer in self.layers]
        modes = [(part, part.training) for part in self.module.modules()]
        try:
            self.module.eval()
            with torch.no_grad():
                self.module(*inputs, **named)
        finally:
            for hook in hooks:
                hook.remove()
            for part, mode in modes:
                part.training = mode
        for name, means in seen.items():
            if len(means) != 1:
                raise UserError(
                    got=f"the activation behind {name!r} called {len(means)} times in a forward pass",
                    wanted="one call",
                    do="Give every hidden layer an activation module of its own, in a network that is not compiled.",
                )
        return {name: means[0] / (means[0].mean() + 1e-9) for name, means in seen.items()}

    def reset(self, units: Mapping[str, Tensor]) -> int:
        """Draws units anew, whatever their scores.

        Args:
          units: True at the units to reset, (width,) by the feed's name; layers may be missing.

        Returns:
          How many they are.
        """
        chosen = [(layer, units[layer.name]) for layer in self.layers if layer.name in units]
        chosen = [(layer, flags) for layer, flags in chosen if bool(flags.any())]
        fed: dict[Tensor, Tensor] = {}
        read: dict[Tensor, Tensor] = {}
        fresh: dict[Tensor, Tensor] = {}
        for layer, flags in chosen:
            for parameter, value in self._draws(layer):
                fresh[parameter] = value
                _mark(fed, parameter, 0, flags)
            for reader, (_, repeats, tiles) in layer.readers:
                _mark(read, reader.weight, 1, flags.repeat_interleave(repeats).tile(tiles))
        with torch.no_grad():
            for parameter, mask in fed.items():
                parameter.copy_(torch.where(mask, fresh[parameter].to(parameter), parameter))
            for parameter, mask in read.items():
                parameter.masked_fill_(mask, 0.0)
            for parameter, mask in (*fed.items(), *read.items()):
                _forget(self.optimizer, parameter, mask)
        return sum(int(flags.sum()) for _, flags in chosen)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates and the generator's state, to resume with."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"updates": self.updates, "generator": generator}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues where the state was made."""
        self.updates = state_dict["updates"]
        if self.generator is not None and state_dict["generator"] is not None:
            self.generator.set_state(state_dict["generator"].cpu())

    def _draws(self, layer: "_Layer") -> Iterator[tuple[Tensor, Tensor]]:
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


class _Layer(NamedTuple):
    """A `HiddenLayer` with the modules in place of their names."""

    name: str
    feed: Any
    activation: nn.Module
    readers: list[tuple[Any, Reader]]
    norm: nn.Module | None

    @property
    def width(self) -> int:
        return int(self.feed.weight.shape[0])


def _resolved(module: nn.Module, layer: HiddenLayer) -> _Layer:
    """Looks the modules up.

    Raises:
      UserError: for unknown names, and modules that no unit can be reset in.
    """
    feed, activation = _kernel_layer(module, layer.feed), _find(module, layer.activation)
    if isinstance(activation, MaxMin):
        raise UserError(
            got=f"ReDo behind MaxMin ({layer.activation!r})",
            wanted="hidden layers in which every unit owns its output",
            do="Use an elementwise activation such as ReLU: sorted outputs belong to no unit, and none of them dies.",
        )
    width = feed.weight.shape[0]
    readers = []
    for entry in layer.readers:
        reader = Reader(entry) if isinstance(entry, str) else entry
        found = _kernel_layer(module, reader.module)
        if found.weight.shape[1] != width * reader.repeats * reader.tiles:
            raise UserError(
                got=f"{reader.module!r} with {found.weight.shape[1]} inputs per output, for {width} units of "
                f"{layer.feed!r} × {reader.repeats} repeats × {reader.tiles} tiles",
                wanted="as many",
                do=f"Behind a flatten of (batch, {width}, H, W) it is Reader({reader.module!r}, repeats=H * W).",
            )
        readers.append((found, reader))
    norm = None if layer.norm is None else _find(module, layer.norm)
    scale = getattr(norm, "weight", None)
    if scale is not None and scale.shape != (width,):
        raise UserError(
            got=f"the norm {layer.norm!r} with a scale of shape {tuple(scale.shape)}",
            wanted=f"one number for each of {width} units",
            do="Name a norm over units or channels, or none.",
        )
    return _Layer(layer.feed, feed, activation, readers, norm)


def _find(module: nn.Module, name: str) -> nn.Module:
    known = dict(module.named_modules(remove_duplicate=False))
    if name not in known:
        raise unknown_name("module", name, known, do="Use a name of module.named_modules().")
    return known[name]


def _kernel_layer(module: nn.Module, name: str) -> Any:
    """The linear layer or convolution of that name."""
    found = _find(module, name)
    is_plain = isinstance(found, KERNEL_LAYERS) and not parametrize.is_parametrized(found)
    if not is_plain or getattr(found, "groups", 1) != 1:
        raise UserError(
            got=f"{name!r}, which is {found}",
            wanted="a linear layer or a convolution, without parametrisation or groups",
            do="Leave this hidden layer out.",
        )
    return found


def _observer(layer: _Layer, seen: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that notes the mean absolute output of every unit."""

    def observe(module: nn.Module, inputs: Any, output: Tensor) -> None:
        del module, inputs
        output = output.abs().to(torch.promote_types(output.dtype, torch.float32))
        means = output.movedim(-1 if isinstance(layer.feed, nn.Linear) else 1, -1).flatten(0, -2).mean(dim=0)
        if len(means) % layer.width:
            raise UserError(
                got=f"{len(means)} outputs behind {layer.name!r}",
                wanted=f"a multiple of its {layer.width} units",
                do="Name the activation that comes right behind the layer and its norm.",
            )
        seen.append(means.reshape(-1, layer.width).mean(dim=0))

    return observe


def _mark(masks: dict[Tensor, Tensor], parameter: Tensor, axis: int, flags: Tensor) -> None:
    """Adds the entries that `flags` select along an axis."""
    shape = [1] * parameter.ndim
    shape[axis] = -1
    mask = flags.to(parameter.device).reshape(shape).expand_as(parameter)
    masks[parameter] = masks[parameter] | mask if parameter in masks else mask


def _forget(optimizer: torch.optim.Optimizer, parameter: Tensor, mask: Tensor) -> None:
    """Zeroes an optimizer's gradient statistics at chosen entries of a parameter."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == parameter.shape and name not in KEPT:
            value.masked_fill_(mask, 0.0)
