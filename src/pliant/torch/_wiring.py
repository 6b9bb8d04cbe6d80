"""The layer graph of a PyTorch network: which parameters feed, read and belong to which units."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from pliant.torch._calls import Call
from pliant.torch._slots import Slot


class WiredLayer(NamedTuple):
    """A hidden layer whose units can be reset: zeroing what reads a unit takes it out of the network."""

    name: str
    """The module whose weight makes the units, or that parameter itself."""
    width: int
    """How many units there are."""
    feeds: tuple[Slot, ...]
    """What belongs to the units: incoming weights, bias, and the norm's scale, offset and running statistics."""
    readers: tuple[Slot, ...]
    """The weights that multiply the units' outputs."""
    activation: str
    """What makes the outputs, with the module that calls it."""
    outputs: int
    """How many outputs each unit has: 2 behind CReLU."""
    labels: Tensor
    """The unit of each entry of the activation; axes that do not matter have size 1."""
    call: Call | None
    """The call that returns the activation; None if it happens out of Python's sight."""
    is_mixed: bool = False
    """Whether a norm over units lies among what feeds them."""
    is_normed: bool = False
    """Whether a norm over units lies between the activation and its readers: then a reset changes the output."""
    again: tuple["WiredLayer", ...] = ()
    """The same layer on other inputs, as of two towers that share all parameters: same feeds, same readers."""

    @property
    def uses(self) -> tuple["WiredLayer", ...]:
        """The layer wherever it is used."""
        return (self, *self.again)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that a reset rewrites."""
        slots = [each for each in self.feeds if each.role != "statistic"]
        return tuple(dict.fromkeys(each.parameter for each in (*slots, *self.readers)))


class Wiring(NamedTuple):
    """The layer graph of a network. Print it to see the table."""

    layers: tuple[WiredLayer, ...]
    """In the order in which they are computed."""
    roles: Mapping[str, str]
    """The role of every parameter: "matrix", "head", "bias", "norm", "embed" or "other"."""
    heads: tuple[str, ...]
    """The parameters of the output layers."""
    biases: Mapping[str, str]
    """The bias that is added to what a kernel makes."""
    fans_in: Mapping[str, int]
    """How many weights feed each output of a kernel."""
    output_axes: Mapping[str, int]
    """The axis of a kernel that indexes its outputs: 0 for `nn.Linear`, 1 for the transposed layout of GPT-2."""
    norms: Mapping[str, tuple[str, ...]]
    """The scale and the offset of the norm behind a kernel, as far as it has them."""
    others: Mapping[str, str]
    """Activations whose units cannot be reset, and why."""

    def of_role(self, *roles: str) -> tuple[str, ...]:
        """The parameters of these roles, in the order of the network."""
        return tuple(name for name, role in self.roles.items() if role in roles)

    def __str__(self) -> str:
        rows = [("layer", "units", "fed by", "read by", "activation")]
        for layer in self.layers:
            fed = ", ".join(_short(each.parameter, layer.name) for each in layer.feeds)
            read = ", ".join(each.parameter.removesuffix(".weight") + _times(layer, each) for each in layer.readers)
            rows.append((layer.name, str(layer.width), fed, read, layer.activation))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append(f"heads: {', '.join(self.heads) or 'none found'}")
        if self.others:
            lines.append("not reset:")
            lines += [f"  {name}: {why}" for name, why in self.others.items()]
            lines.append(
                "Declare one by hand: infer_wiring(module, x, layers=[HiddenLayer(feed, activation, readers)])."
            )
        return "\n".join(lines)


def _short(parameter: str, layer: str) -> str:
    return parameter.removeprefix(f"{layer}.")


def _times(layer: WiredLayer, slot: Slot) -> str:
    """How many inputs of a reader are one unit."""
    times = int((slot.units >= 0).sum()) // layer.width if sum(size > 1 for size in slot.units.shape) == 1 else 1
    return f" (× {times})" if times > 1 else ""
