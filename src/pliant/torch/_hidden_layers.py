"""Hidden layers of a PyTorch network: the layers that feed and read their units, and how active they are."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from pliant.errors import UserError, unknown_name
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._maxmin import MaxMin
from pliant.torch._numbers import whole_number


class Reader(NamedTuple):
    """A layer that reads the units of another, and where it finds them among its inputs."""

    module: str
    """Its name in the network (`named_modules`)."""
    repeats: int = 1
    """How many adjacent inputs are one unit: H·W behind a flatten of (batch, channels, H, W)."""
    tiles: int = 1
    """How often the sequence of all units is repeated: 2 behind CReLU, H·W behind a flatten with channels last."""


class HiddenLayer(NamedTuple):
    """One hidden layer: what feeds each unit, where it is observed, and who reads it. Modules are given by name."""

    feed: str
    """A linear layer or convolution: its outputs are the units."""
    activation: str
    """The module whose output is scored. It must be called once in a forward pass, so no other layer may use it."""
    readers: Sequence[str | Reader]
    """All layers that multiply the units' outputs; a name is a `Reader` with its defaults."""
    norm: str | None = None
    """The norm whose scale and offset belong to the units."""


class Layer(NamedTuple):
    """A `HiddenLayer` with the modules in place of their names."""

    name: str
    feed: Any
    activation: nn.Module
    readers: list[tuple[Any, Reader]]
    norm: nn.Module | None
    width: int

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that a reset rewrites.

        Raises:
          UserError: for weights that are computed from others, which may have become so since the layer was resolved.
        """
        found = [*_own(self.name, self.feed), *_own(f"the norm of {self.name}", self.norm)]
        for reader, (name, _, _) in self.readers:
            found += _own(name, reader, ["weight"])
        return found

    @property
    def is_frozen(self) -> bool:
        """Whether a reset would rewrite a frozen parameter."""
        return not all(parameter.requires_grad for parameter in self.parameters)

    def means(self, output: Any, feed_shape: torch.Size | None) -> Tensor:
        """The mean absolute output of every unit, (width,).

        Args:
          output: of the activation.
          feed_shape: the shape of the feed's output; None takes a batch for granted.

        Raises:
          UserError: if it is not clear which entries of the output belong to a unit.
        """
        axis, tiles, repeats = self.layout(output, feed_shape)
        if not output.numel():
            raise UserError(got="no examples", wanted="a batch", do="Pass 64 examples or so of the current task.")
        values = output.abs().to(torch.promote_types(output.dtype, torch.float32)).movedim(axis, -1)
        means = values.reshape(-1, values.shape[-1]).mean(dim=0)
        return means.reshape(tiles, self.width, repeats).mean(dim=(0, 2)) if len(means) > self.width else means

    def layout(self, output: Any, feed_shape: torch.Size | None) -> tuple[int, int, int]:
        """The axis of the units in the activation's output, and their tiles and repeats there; see `means`."""
        num_spatial = self.feed.weight.ndim - 2
        ndim = len(feed_shape) if feed_shape is not None else num_spatial + 2
        is_tensor = isinstance(output, Tensor) and output.ndim > 0
        if not is_tensor or (num_spatial and output.ndim > ndim):
            raise self._unclear(output, "one tensor with the axes of the layer's output")
        is_flat = output.ndim < ndim and num_spatial > 0
        axis = -1 if is_flat else -1 - num_spatial
        num = output.shape[axis]
        is_same = feed_shape is not None and _without(output.shape, axis) == _without(feed_shape, axis)
        is_moved = num != self.width and self.width in output.shape[1:] and not is_same
        if num % self.width or is_moved:
            raise self._unclear(output, f"a multiple of its {self.width} units along axis {axis}")
        layouts = {(tiles, repeats) for _, (_, repeats, tiles) in self.readers if self.width * repeats * tiles == num}
        if num > self.width and len(layouts) != 1:
            if is_flat or layouts:
                raise self._unclear(output, "an output in the order in which the readers find the units")
            layouts = {(num // self.width, 1)}  # CReLU
        tiles, repeats = layouts.pop() if num > self.width else (1, 1)
        return axis, tiles, repeats

    def _unclear(self, output: Any, wanted: str) -> UserError:
        shape = f"outputs of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        return UserError(
            got=f"{shape} behind {self.name!r}",
            wanted=wanted,
            do="Name the activation that comes right behind the layer and its norm.",
        )


def _without(shape: Sequence[int], axis: int) -> list[int]:
    sizes = list(shape)
    del sizes[axis]
    return sizes


def resolve(module: nn.Module, layer: HiddenLayer) -> Layer:
    """Finds the modules that `HiddenLayer`s name.

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
    width = int(feed.weight.shape[0])
    if not width:
        raise UserError(got=f"{layer.feed!r} without units", wanted="at least one", do="Leave this hidden layer out.")
    norm = None if layer.norm is None else _find(module, layer.norm)
    for scale in _own(str(layer.norm), norm):
        if scale.shape != (width,):
            raise UserError(
                got=f"the norm {layer.norm!r} with a scale of shape {tuple(scale.shape)}",
                wanted=f"one number for each of {width} units",
                do="Name a norm over units or channels, or none.",
            )
    found = Layer(layer.feed, feed, activation, list(_readers(module, layer, width)), norm, width)
    for parameter in found.parameters:
        _require_single(module, layer.feed, parameter)
    return found


def _readers(module: nn.Module, layer: HiddenLayer, width: int) -> Iterator[tuple[Any, Reader]]:
    entries = [layer.readers] if isinstance(layer.readers, str | Reader) else layer.readers
    if not entries:
        raise UserError(
            got=f"{layer.feed!r} without readers",
            wanted="the layers that multiply the units' outputs",
            do="Name all of them: a reset sets their weights for the unit to 0.",
        )
    for entry in entries:
        reader = Reader(entry) if isinstance(entry, str) else entry
        for name in ("repeats", "tiles"):
            whole_number(name, getattr(reader, name), 1, do="Use 1, unless there is a flatten or CReLU in between.")
        found = _kernel_layer(module, reader.module)
        if found.weight.shape[1] != width * reader.repeats * reader.tiles:
            raise UserError(
                got=f"{reader.module!r} with {found.weight.shape[1]} inputs per output, for {width} units of "
                f"{layer.feed!r} × {reader.repeats} repeats × {reader.tiles} tiles",
                wanted="as many",
                do=f"Behind a flatten of (batch, {width}, H, W) it is Reader({reader.module!r}, repeats=H * W).",
            )
        yield found, reader


def _find(module: nn.Module, name: Any) -> nn.Module:
    known = dict(module.named_modules(remove_duplicate=False))
    if name not in known:
        raise unknown_name("module", str(name), known, do="Use a name of module.named_modules().")
    return known[name]


def _kernel_layer(module: nn.Module, name: str) -> Any:
    """The linear layer or convolution of that name, whose weight is a parameter of its own."""
    found = _find(module, name)
    if not isinstance(found, KERNEL_LAYERS) or getattr(found, "groups", 1) != 1:
        raise UserError(
            got=f"{name!r}, which is {found}",
            wanted="a linear layer or a convolution, without groups",
            do="Leave this hidden layer out.",
        )
    _own(name, found, ["weight"])
    if not _is_plain(found):
        raise UserError(
            got=f"{name!r}, whose class {type(found).__name__} computes something else with its weight",
            wanted="a layer that multiplies by its weight, as torch.nn.Linear and torch.nn.Conv2d do",
            do="Leave this hidden layer out.",
        )
    return found


def _own(name: str, module: nn.Module | None, kinds: Sequence[str] = ("weight", "bias")) -> list[Tensor]:
    """A module's weight and bias, those that it has.

    Raises:
      UserError: if one of them is no parameter of the module's own (pruned, normalised or parametrised) or has no shape
        yet.
    """
    found: list[Tensor] = []
    for kind in kinds:
        parameter = None if module is None else module._parameters.get(kind)
        if parameter is not None and is_lazy(parameter):
            raise UserError(
                got=f"{name!r}, a lazy module that is not initialized",
                wanted="weights that have a shape",
                do="Call the network on a batch first.",
            )
        if parameter is not None:
            found.append(parameter)
        elif module and (parametrize.is_parametrized(module, kind) or getattr(module, kind, None) is not None):
            sources = [source for source, _ in module.named_parameters() if kind in source]
            raise UserError(
                got=f"{name!r}, whose {kind} is computed from {', '.join(sources) or 'something else'}",
                wanted=f"a {kind} that is a parameter of its own: a reset would write to the copy",
                do="Leave this hidden layer out, or make it a parameter, as torch.nn.utils.prune.remove, "
                "remove_weight_norm, remove_spectral_norm and parametrize.remove_parametrizations do.",
            )
    return found


def _is_plain(layer: Any) -> bool:
    """Whether a layer multiplies by its weight: known by its class, else tried out on an example."""
    base: Any = next(kind for kind in KERNEL_LAYERS if isinstance(layer, kind))
    if all(
        getattr(type(layer), name, None) is getattr(base, name, None) and name not in vars(layer)
        for name in ("forward", "_conv_forward")
    ):
        return True
    weight, bias = layer.weight, layer.bias
    shape = [2, weight.shape[1]]
    if weight.ndim > 2:
        sizes = zip(weight.shape[2:], layer.dilation, strict=True)
        shape += [2 * size * dilation for size, dilation in sizes]
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).cos().reshape(shape).to(weight)
    try:
        with torch.no_grad():
            plain = nn.functional.linear(x, weight, bias) if weight.ndim == 2 else None
            plain = base._conv_forward(layer, x, weight, bias) if plain is None else plain
            torch.testing.assert_close(layer.forward(x), plain)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return False
    return True


def _require_single(module: nn.Module, name: str, parameter: Tensor) -> None:
    """Raises if a parameter that resets rewrite is also another module's."""
    holders = [
        f"{path}.{kind}"
        for path, part in module.named_modules()
        for kind, other in part._parameters.items()
        if other is parameter
    ]
    if len(holders) > 1:
        raise UserError(
            got=f"{name!r}, where a parameter of shape {tuple(parameter.shape)} is shared by {', '.join(holders)}",
            wanted="parameters that belong to one module",
            do="Leave this hidden layer out: a reset would change the other modules too.",
        )
