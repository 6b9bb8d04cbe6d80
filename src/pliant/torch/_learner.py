"""What the parts of an attached method see and change: a network, its layer graph and its optimizers."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pliant.errors import UserError
from pliant.torch._called import buffers_kept, recordable, without_fused_layers
from pliant.torch._calls import Call, Calls, running
from pliant.torch._units import fits
from pliant.torch._wiring import WiredLayer, Wiring


class Batch(NamedTuple):
    """What the network was last called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Learner(NamedTuple):
    """A network that is trained."""

    module: nn.Module
    params: Mapping[str, nn.Parameter]
    wiring: Wiring
    optimizers: Sequence[Any]
    initializer: Callable[..., Any] | None
    """Draws a kernel in place; by default the modules' own."""
    generator: torch.Generator | None
    start: Mapping[str, Tensor]
    """The values of parameters whose module cannot draw them again."""

    def trained(self, *roles: str) -> list[str]:
        """The parameters of these roles that are not frozen."""
        return [name for name in self.wiring.of_role(*roles) if self.params[name].requires_grad]

    def layers(self) -> list[WiredLayer]:
        """The layers in which nothing is frozen that a reset would rewrite."""
        return [
            layer for layer in self.wiring.layers if all(self.params[each].requires_grad for each in layer.parameters)
        ]

    def outputs(self, batch: Batch, *, is_training: bool) -> dict[str, Tensor]:
        """The activations of the layers on a batch, (…, outputs, width), in float32 or wider.

        The network runs without gradients; its mode, running statistics and random states are restored.

        Raises:
          UserError: if an activation is not called as it was when the wiring was found.
        """
        calls = {use.call for layer in self.wiring.layers for use in layer.uses}
        seen: dict[Call | None, Tensor] = {}

        def see(call: Call, result: Tensor) -> None:
            if call in calls:
                seen[call] = result.clone()

        with unchanged(self.module, is_training=is_training), running(self.module) as scope, Calls(see, scope):
            args, kwargs = tree_map_only(Tensor, recordable, (batch.args, batch.kwargs))
            self.module(*args, **kwargs)
        found = {}
        for layer in self.wiring.layers:
            values = [(use, seen.get(use.call)) for use in layer.uses]
            if any(value is None or not fits(use.labels, value) for use, value in values):
                raise UserError(
                    got=f"a forward pass in which {layer.activation!r} is not called as before",
                    wanted="the network that the wiring was found with, called alike",
                    do="Attach the method again, with a batch as in training.",
                )
            found[layer.name] = torch.cat([_by_unit(use, value) for use, value in values if value is not None])
        return found

    def fresh(self, names: Sequence[str]) -> dict[str, Tensor]:
        """New draws of whole parameters; the same as at the start where their module cannot draw them."""
        seed = int(torch.randint(2**63 - 1, (), generator=self.generator))
        found: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
                drawn = dict(_drawn(self.module, self.module.get_submodule(owner)))
                own = [name for name in names if name.rpartition(".")[0] == owner]
                for name in own:
                    parameter = self.params[name]
                    value = drawn.get(name.rpartition(".")[2], self.start.get(name))
                    if self.initializer is not None and self.wiring.roles[name] in ("matrix", "head"):
                        value = torch.empty(parameter.shape)
                        self.initializer(value)
                    elif self.initializer is not None and self.wiring.roles[name] == "bias":
                        value = torch.zeros(parameter.shape)
                    assert value is not None
                    found[name] = value.detach().to(parameter)
        return found


def learner_of(
    module: nn.Module,
    wiring: Wiring,
    optimizers: Sequence[Any],
    initializer: Callable[..., Any] | None,
    generator: torch.Generator | None,
) -> Learner:
    """A network that is trained, at the start of training."""
    params = dict(module.named_parameters())
    start: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False):
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in params):
            part = module.get_submodule(owner)
            drawn = dict(_drawn(module, part))
            others = [kind for kind, _ in part.named_parameters(recurse=False) if kind not in drawn]
            names = [f"{owner}.{kind}".lstrip(".") for kind in others]
            start |= {name: params[name].detach().clone() for name in names if name in params}
    return Learner(module, params, wiring, optimizers, initializer, generator, start)


def _drawn(module: nn.Module, owner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module, drawn again in a copy: by `_init_weights` of the network or `reset_parameters`."""
    own = dict(owner.named_parameters(recurse=False))
    draw = getattr(owner, "reset_parameters", None) or getattr(owner, "_reset_parameters", None)
    of_network = getattr(module, "_init_weights", None)
    if (draw is None and of_network is None) or (next(owner.children(), None) is not None and draw is None):
        return
    fresh = copy.deepcopy(owner).to("cpu")
    fresh.to(torch.promote_types(next(iter(own.values())).dtype, torch.float32))
    for each in fresh.parameters():
        each.__dict__.pop("_is_hf_initialized", None)
    before = {name: each._version for name, each in fresh.named_parameters(recurse=False)}
    with torch.random.fork_rng(devices=[]) if draw is None else contextlib.nullcontext():
        getattr(fresh, draw.__name__)() if draw is not None else of_network(fresh)
    if draw is not None and of_network is not None:
        of_network(fresh)
    yield from ((name, each) for name, each in fresh.named_parameters(recurse=False) if each._version != before[name])


def _by_unit(layer: WiredLayer, value: Tensor) -> Tensor:
    """(…, outputs, width)."""
    value = value.detach().to(torch.promote_types(value.dtype, torch.float32))
    axes = [axis for axis, size in enumerate(layer.labels.shape) if size > 1] or [value.ndim - 1]
    last = list(range(-len(axes), 0))
    flat = value.movedim(axes, last).flatten(-len(axes))
    order = layer.labels.movedim(axes, last).flatten()
    places = order.argsort(stable=True).reshape(layer.width, -1).to(value.device)  # the entries of each unit
    found = flat[..., places.T]
    if layer.outputs == 1:
        return found.reshape(-1, 1, layer.width)
    return found.reshape(-1, layer.outputs, layer.width)


@contextlib.contextmanager
def unchanged(module: nn.Module, *, is_training: bool) -> Iterator[None]:
    """Runs a network without gradients, and restores its mode, buffers and random states."""
    modes = [(part, part.training) for part in module.modules()]
    devices = sorted({each.device.index or 0 for each in module.parameters() if each.is_cuda})
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(without_fused_layers())
        stack.enter_context(buffers_kept(module))
        try:
            for part, _ in modes if not is_training else ():
                part.training = False
            yield
        finally:
            for part, mode in modes:
                part.training = mode
