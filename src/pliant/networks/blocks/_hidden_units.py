"""Parts of a network stated once: how a hidden layer is made, how it is applied, and what it adds to the wiring."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array

from pliant.networks.blocks._activations import activation
from pliant.networks.blocks._layer_activation import LayerActivation, NextKey, activation_roles
from pliant.networks.blocks._linear import Linear, through
from pliant.networks.blocks._norms import LayerNorm
from pliant.types import Head, HiddenLayer, Role, Slot, Wiring
from pliant.xla.convolution import Padding, Pair


class Piece(NamedTuple):
    """What a part of a network adds to its wiring."""

    layers: tuple[HiddenLayer, ...] = ()
    roles: Mapping[str, Role] = {}
    biases: Mapping[str, str] = {}
    indirect: frozenset[str] = frozenset()


class Modules(NamedTuple):
    """The names of a hidden layer's modules in the network that they are attributes of."""

    linear: str
    norm: str
    """Empty for none."""
    activation: str


class HiddenUnits(NamedTuple):
    """One hidden layer: a linear map, perhaps a LayerNorm, and an activation."""

    modules: Modules
    shape: tuple[int, ...]
    """Of the kernel: (in, out), or (height, wide, in, out) for a convolution."""
    linear: Linear
    activation: str
    strides: Pair = (1, 1)
    padding: Padding = "SAME"

    @property
    def num_outputs(self) -> int:
        """The size of its features' last axis."""
        return self.shape[-1] * activation(self.activation).expansion

    def add_to(self, network: nnx.Module, rngs: nnx.Rngs) -> None:
        """Makes the modules, as attributes of the network."""
        *window, num_in, width = self.shape
        if window:
            size = (window[0], window[1])
            layer = self.linear.conv(num_in, width, size, strides=self.strides, padding=self.padding, rngs=rngs)
        else:
            layer = self.linear.dense(num_in, width, rngs=rngs)
        setattr(network, self.modules.linear, layer)
        if self.modules.norm:
            setattr(network, self.modules.norm, LayerNorm(width, rngs=rngs))
        setattr(network, self.modules.activation, LayerActivation(activation(self.activation)))

    def piece(
        self, readers: Sequence[str], *, positions: int = 1, name: str = "", path: str = "", branch: str = ""
    ) -> Piece:
        """The layer in the wiring.

        Args:
          readers: the layers that read the units.
          positions: of an image that the readers read flattened.
          name: of the feature, by default that of the linear map.
          path: of the module that it is in, with a slash behind it.
          branch: of the network that it is in; empty for none.

        Example:
          >>> units = HiddenUnits(Modules("up", "", "relu"), (3, 4), Linear("plain", 1.0, 7, True), "relu")
          >>> units.piece(["block/down"], path="block/").roles
          {'block/up/kernel': 'matrix', 'block/up/bias': 'bias'}
        """
        chosen, linear = activation(self.activation), path + self.modules.linear
        norm = path + self.modules.norm if self.modules.norm else None
        own = self.linear.owned(linear, math.prod(self.shape[:-1]), norm=norm)
        slots = tuple(Slot(f"{reader}/kernel", axis=-2, tiles=chosen.expansion * positions) for reader in readers)
        layer = HiddenLayer(
            name or self.modules.linear,
            self.shape[-1],
            own.feeds,
            slots,
            self.activation,
            chosen.elementwise,
            statistics=own.statistics,
            state=own.state,
            branch=branch,
        )
        roles = own.roles | activation_roles(path + self.modules.activation, chosen)
        return Piece((layer,), roles, own.biases, frozenset(() if self.linear.is_plain else (f"{linear}/kernel",)))


def apply_units(network: nnx.Module, modules: Modules, x: Array, next_key: NextKey, *, train: bool) -> Array:
    """The features of a hidden layer."""
    return activate(network, modules, through(getattr(network, modules.linear), x, train=train), next_key)


def activate(network: nnx.Module, modules: Modules, x: Array, next_key: NextKey) -> Array:
    """The activation of what the linear map made, behind its norm."""
    x = getattr(network, modules.norm)(x) if modules.norm else x
    activation: LayerActivation = getattr(network, modules.activation)
    return activation(x, next_key)


def dense_piece(*paths: str, use_bias: bool, role: Role = "matrix") -> Piece:
    """The kernels and biases of dense layers that feed no units.

    Example:
      >>> dense_piece("stem", use_bias=True).biases
      {'stem/kernel': 'stem/bias'}
    """
    roles: dict[str, Role] = {f"{path}/kernel": role for path in paths}
    biases = {f"{path}/kernel": f"{path}/bias" for path in paths if use_bias}
    return Piece(roles=roles | dict.fromkeys(biases.values(), "bias"), biases=biases)


def norm_piece(*paths: str, use_bias: bool = True) -> Piece:
    """The scales and offsets of norms that belong to no units."""
    leaves = ("scale", "bias") if use_bias else ("scale",)
    return Piece(roles={f"{path}/{leaf}": "norm" for path in paths for leaf in leaves})


def wiring_of(pieces: Sequence[Piece], reads: str | None, *, head: str = "head", use_bias: bool) -> Wiring:
    """The wiring of a network with one head.

    Args:
      pieces: its parts, from input to output.
      reads: the feature that the head reads; None for the inputs.
      head: the head's path; empty for one that is tied to an embedding.
      use_bias: whether the head has a bias.

    Example:
      >>> wiring_of([], None, use_bias=True).heads
      {'output': Head(leaves=('head/kernel', 'head/bias'), reads=None, branch='', state=())}
    """
    of_head = dense_piece(*([head] if head else []), use_bias=use_bias, role="head")
    return _wiring([*pieces, of_head], {"output": Head(tuple(of_head.roles), reads)})


def wiring_of_branches(pieces: Sequence[Piece], reads: Mapping[str, str | None], *, use_bias: bool) -> Wiring:
    """The wiring of a network with a branch for each of several outputs, which ends in the head `NAME/head`.

    Args:
      pieces: its parts, from input to output.
      reads: by the name of the output, the feature that its head reads; None for the inputs.
      use_bias: whether the heads have biases.

    Example:
      >>> wiring_of_branches([], {"policy": None, "value": None}, use_bias=False).heads["value"]
      Head(leaves=('value/head/kernel',), reads=None, branch='value', state=())
    """
    of_heads = {name: dense_piece(f"{name}/head", use_bias=use_bias, role="head") for name in reads}
    heads = {name: Head(tuple(of_heads[name].roles), feature, name) for name, feature in reads.items()}
    return _wiring([*pieces, *of_heads.values()], heads)


def _wiring(pieces: Sequence[Piece], heads: Mapping[str, Head]) -> Wiring:
    roles: dict[str, Role] = {}
    biases: dict[str, str] = {}
    for piece in pieces:
        roles |= piece.roles
        biases |= piece.biases
    return Wiring(
        tuple(layer for piece in pieces for layer in piece.layers),
        roles,
        heads,
        frozenset(path for piece in pieces for path in piece.indirect),
        biases=biases,
    )
