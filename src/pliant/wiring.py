"""The layer graph of a network: which parameters feed, read and belong to which units.

A network states it, or `pliant.diagnose` finds it in the traced program; nothing is guessed from names, shapes or
neighbouring paths.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from pliant.errors import UserError, unknown_name

Role: TypeAlias = Literal["matrix", "head", "bias", "norm", "embed", "other"]
ROLES: tuple[Role, ...] = ("matrix", "head", "bias", "norm", "embed", "other")
ALL_BUT_NORMS: tuple[Role, ...] = ("matrix", "head", "bias", "embed", "other")
"""The roles that most methods pull or shrink: norms are left out, since their scales start at 1 and must not vanish."""


def leaf_path(path: Any) -> str:
    """The name of a leaf: its keys joined by slashes, for dicts, lists and objects alike.

    Example:
      >>> [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path({"dense_0": {"kernel": 1}})]
      ['dense_0/kernel']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their `leaf_path`.

    Example:
      >>> by_path({"dense_0": {"kernel": 1}})
      {'dense_0/kernel': 1}
    """
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


class Traits(NamedTuple):
    """What methods and diagnostics ask of an activation."""

    outputs: int = 1
    """How many outputs each unit has: 2 for CReLU."""
    can_be_silent: bool = True
    """Whether all outputs of a unit can be 0 at once; not those of Fourier features, a sine and a cosine."""
    silences: bool = False
    """Whether the outputs are exactly 0 for many inputs, as behind ReLU: then units can die."""
    bounds: tuple[float, float] | None = None
    """The values between which outputs lie, and near which the activation is flat."""
    is_kinked: bool = False
    """Whether it is straight on either side of 0 and keeps the sign of its input."""


TRAITS: Mapping[str, Traits] = {
    "relu": Traits(silences=True, is_kinked=True),
    "crelu": Traits(outputs=2, silences=True, is_kinked=True),
    "leaky-relu": Traits(is_kinked=True),
    "aid": Traits(is_kinked=True),
    "tanh": Traits(bounds=(-1.0, 1.0)),
    "sigmoid": Traits(bounds=(0.0, 1.0)),
    "fourier": Traits(outputs=2, can_be_silent=False, bounds=(-1.0, 1.0)),
    "unknown": Traits(silences=True),
}
"""Of the activations by name that have any; "unknown" is what `pliant.diagnose` says without a wiring."""


class Slot(NamedTuple):
    """Where the units of a layer live in one leaf of the parameters, or of the network's state."""

    path: str
    """The leaf, as `leaf_path` names it."""
    axis: int
    """The axis that the units index: −1 for a kernel's outputs, −2 for its inputs."""
    tiles: int = 1
    """How often the units repeat along that axis, unit index fastest: H·W behind a flatten (NHWC), 2 behind CReLU."""
    repeats: int = 1
    """How many neighbouring entries along that axis belong to each unit: H·W behind a flatten of (channels, height,
    width)."""
    groups: int = 1
    """In how many blocks of equal length a second axis is divided. Above 1, units index blocks and `axis`: the places
    along `axis` in the first block come first. A convolution in groups (height, width, in / groups, out) reads channels
    with axis −2, across −1. A kernel (in, heads, size) feeds units with axis −1, across −2, groups = heads."""
    across: int = -1
    """The axis that is divided into `groups`."""

    def axes(self, num_axes: int) -> tuple[int, ...]:
        """The axes of a leaf that say which unit an entry belongs to, from 0 on.

        Example:
          >>> Slot("conv/kernel", axis=-2, groups=2).axes(4)
          (2, 3)
        """
        own = {self.axis % num_axes} | ({self.across % num_axes} if self.groups > 1 else set())
        return tuple(sorted(own))

    def units_last(self, leaf: Array) -> Array:
        """The leaf with all places of units on its last axis: tiles of units, with their repeats.

        Example:
          >>> reader = Slot("conv/kernel", axis=-2, groups=2)
          >>> reader.units_last(jax.numpy.array([[1, 2, 3, 4], [5, 6, 7, 8]])).tolist()  # a block has two outputs
          [[1, 5, 3, 7], [2, 6, 4, 8]]
        """
        if self.groups == 1:
            return jax.numpy.moveaxis(leaf, self.axis, -1)
        axis, across = self.axis % leaf.ndim, self.across % leaf.ndim
        blocks = leaf.reshape(*leaf.shape[:across], self.groups, -1, *leaf.shape[across + 1 :])
        last = jax.numpy.moveaxis(blocks, (across, axis + (axis > across)), (-2, -1))
        return last.reshape(*last.shape[:-2], -1)

    def by_unit(self, leaf: Array) -> Array:
        """The leaf as a matrix (entries of a unit, units).

        Example:
          >>> reader = Slot("head/kernel", axis=0, tiles=2)
          >>> reader.by_unit(jax.numpy.array([[1], [2], [3], [4]])).tolist()
          [[1, 2], [3, 4]]
        """
        last = self.units_last(leaf)
        num_units = last.shape[-1] // (self.tiles * self.repeats)
        if self.repeats > 1:
            last = last.reshape(*last.shape[:-1], self.tiles, num_units, self.repeats).swapaxes(-1, -2)
        return last.reshape(leaf.size // max(num_units, 1), num_units)

    def spread(self, values: Array, leaf: Array) -> Array:
        """Numbers of the units in the places of theirs, to be broadcast against the leaf.

        Example:
          >>> reader = Slot("head/kernel", axis=0, repeats=2)
          >>> reader.spread(jax.numpy.array([1, 2]), jax.numpy.zeros((4, 3))).tolist()
          [[1], [1], [2], [2]]
          >>> in_groups = Slot("conv/kernel", axis=-2, groups=2)
          >>> in_groups.spread(jax.numpy.array([1, 2, 3, 4]), jax.numpy.zeros((2, 4))).tolist()
          [[1, 1, 3, 3], [2, 2, 4, 4]]
        """
        line = jax.numpy.tile(jax.numpy.repeat(values, self.repeats), self.tiles)
        shape = [1] * leaf.ndim
        shape[self.axis] = -1
        if self.groups == 1:
            return line.reshape(shape)
        shape[self.across] = length = leaf.shape[self.across]
        table = jax.numpy.repeat(line.reshape(self.groups, -1), length // self.groups, axis=0)
        is_first = self.across % leaf.ndim < self.axis % leaf.ndim
        return (table if is_first else table.T).reshape(shape)


class Feed(NamedTuple):
    """A parameter that belongs to the units of a layer, and how a fresh unit's share of it is drawn."""

    slot: Slot
    initializer: Callable[[PRNGKeyArray, tuple[int, ...], Any], Array]
    """`(key, shape of the whole leaf, dtype) -> leaf`, as in `jax.nn.initializers`."""


class HiddenLayer(NamedTuple):
    """One hidden layer: what feeds each unit, and who reads it."""

    name: str
    """Its key in the features."""
    width: int
    """Number of units."""
    feeds: tuple[Feed, ...]
    """The parameters that a unit owns: incoming kernel slice, bias, its norm's scale and offset."""
    readers: tuple[Slot, ...]
    """The kernels whose rows multiply the unit's output."""
    activation: str
    """Its name. That of a known activation says what it does, see `traits`."""
    elementwise: bool
    """False where a feature depends on several units (MaxMin): then no unit owns an output."""
    axis: int = -1
    """The axis of its feature that the units index: −1, or 1 for (batch, channels, height, width)."""
    statistics: tuple[Slot, ...] | None = None
    """Where the units live in the running statistics of the network's state, such as a BatchNorm's mean and variance;
    None if it is not stated."""
    state: tuple[str, ...] = ()
    """What else the network's state keeps of the layer, by `leaf_path`: singular vectors of its kernel."""
    branch: str = ""
    """Which branch of the network it is in, such as "actor" or "critic"; empty for the trunk that all of them read."""
    activation_traits: Traits | None = None
    """What its activation does, if the name is not that of a known one."""

    @property
    def traits(self) -> Traits:
        """What its activation does.

        Example:
          >>> HiddenLayer("dense", 4, (), (), "relu", elementwise=True).traits.silences
          True
        """
        return TRAITS.get(self.activation, Traits()) if self.activation_traits is None else self.activation_traits

    def units_last(self, feature: Array) -> Array:
        """The layer's feature with its units on the last axis.

        Raises:
          UserError: if that axis does not have `width` entries per tile.

        Example:
          >>> layer = HiddenLayer("conv", 4, (), (), "relu", elementwise=True, axis=1)
          >>> layer.units_last(jax.numpy.zeros((2, 4, 8, 8))).shape
          (2, 8, 8, 4)
        """
        if feature.ndim < 2 or feature.shape[self.axis] % self.width:
            raise UserError(
                got=f"a feature of shape {feature.shape} for the layer {self.name!r}",
                wanted=f"{self.width} units along axis {self.axis}",
                do="Set the layer's width, and the axis that its units index.",
            )
        return feature if self.axis in (-1, feature.ndim - 1) else jax.numpy.moveaxis(feature, self.axis, -1)


class Head(NamedTuple):
    """One output layer."""

    leaves: tuple[str, ...] | None
    """Its parameters, kernel and bias, by `leaf_path`; empty for a head tied to an embedding, None if nobody has
    said."""
    reads: str | None = None
    """The feature that it reads; None for the inputs."""
    branch: str = ""
    """The branch that it ends, if what it reads is no hidden layer's."""
    state: tuple[str, ...] = ()
    """What the network's state keeps of it, by `leaf_path`."""


class _Graph(NamedTuple):
    """The fields of a `Wiring`."""

    layers: tuple[HiddenLayer, ...]
    """Hidden layers from input to output whose units can be cut off: zeroing what reads a unit takes it out of the
    network. What a skip connection carries on is among the features, but not here."""
    roles: Mapping[str, Role]
    """The role of every parameter leaf, by `leaf_path`."""
    heads: Mapping[str, Head]
    """The output layers by the name of their output, or "output" where there is one. By default that is the leaves of
    role "head", if no bias is left that feeds no layer: it might be the head's. Then, and if more or less than one
    layer lists them among its readers, methods that ask for the head ask you to say."""
    indirect: frozenset[str]
    """Kernels, by `leaf_path`, that their layers do not apply as they are: normalised, orthogonalised, scaled."""
    output_axes: Mapping[str, tuple[int, ...]]
    """The axes of a kernel that index its outputs, by `leaf_path`; all others are inputs. (−1,) for those that are
    missing: dense (in, out), conv (height, wide, in, out). (0,) for (out, in, height, wide), (−2, −1) for (in, heads,
    size)."""
    frozen: frozenset[str]
    """Parameters, by `leaf_path`, that no method may change. Units that they feed or that they read are never reset."""
    biases: Mapping[str, str]
    """The bias that is added to what a kernel makes, both by `leaf_path`. Where a layer or a head has one bias, all of
    its kernels have it; say so of all others."""


class Wiring(_Graph):
    """The layer graph of a network: stated by the network, never guessed from names or shapes.

    Example:
      >>> roles = {"w": "matrix", "head/kernel": "head", "head/bias": "bias"}
      >>> wiring = Wiring(layers=(), roles=roles, heads={"output": Head(("head/kernel", "head/bias"))})
      >>> wiring.head({"w": 0.0, "head": {"kernel": 0.0, "bias": 0.0}})
      {'head': {'bias': True, 'kernel': True}, 'w': False}
    """

    __slots__ = ()

    def __new__(
        cls,
        layers: tuple[HiddenLayer, ...],
        roles: Mapping[str, Role],
        heads: Mapping[str, Head] | None = None,
        indirect: frozenset[str] = frozenset(),
        output_axes: Mapping[str, tuple[int, ...]] = {},  # never changed
        frozen: frozenset[str] = frozenset(),
        biases: Mapping[str, str] = {},
        *,
        head_input: str | None = None,
    ) -> "Wiring":
        """Completes `heads` and `biases` where they are clear."""
        if head_input is not None or isinstance(heads, str):
            leaves = tuple(path for path, role in roles.items() if role == "head")
            raise UserError(
                got=f"the head's input {head_input or heads!r}",
                wanted="the output layers by name: their kernels and biases, and what they read",
                do=f"Write heads={{'output': Head({leaves}, reads={head_input or heads!r})}}, with the head's bias.",
            )
        known = _only_head(layers, roles) if heads is None else dict(heads)
        return super().__new__(
            cls, layers, roles, known, indirect, output_axes, frozen, _biases(layers, roles, known) | dict(biases)
        )

    @property
    def head_input(self) -> str | None:
        """Refused: a wiring may have several heads, see `head_reads`."""
        raise UserError(
            got="wiring.head_input",
            wanted="what the head of an output reads",
            do="Write wiring.head_reads(), or wiring.head_reads('policy') where there are several outputs.",
        )

    @property
    def indirect_readers(self) -> list[str]:
        """Those of `indirect` that read hidden units: there a unit's weights do not say what it contributes."""
        return sorted({slot.path for layer in self.layers for slot in layer.readers} & self.indirect)

    @property
    def head_leaves(self) -> frozenset[str]:
        """The parameters of all output layers, by `leaf_path`; none if the head is tied to an embedding.

        Raises:
          UserError: if the wiring does not state which they are.

        Example:
          >>> sorted(Wiring((), {"w": "matrix", "v": "head"}).head_leaves)
          ['v']
        """
        kernels = tuple(path for path, role in self.roles.items() if role == "head")
        unsaid = not self.heads and kernels
        if unsaid or any(head.leaves is None for head in self.heads.values()):
            biases = [path for path, role in self.roles.items() if role == "bias"]
            raise UserError(
                got=f"a wiring that does not say which of the biases {', '.join(biases)} are the head's"
                if biases
                else "a wiring that does not say what the head reads",
                wanted="the output layers by name: their kernels and biases, and what they read",
                do=f"Give it heads={{'output': Head({kernels}, reads=...)}}, with the head's biases.",
            )
        return frozenset(path for head in self.heads.values() for path in head.leaves or ())

    def head_reads(self, output: str | None = None) -> str | None:
        """The feature that a head reads; None for the inputs.

        Args:
          output: the name of the head's output; may be left out if all heads read the same.

        Raises:
          UserError: for an output that the network does not have, if the heads read different features and no output is
            named, and if what the head reads is not stated.

        Example:
          >>> Wiring((), {}, {"policy": Head((), "actor"), "value": Head((), "critic")}).head_reads("value")
          'critic'
        """
        if output is not None and self.heads and output not in self.heads:
            raise unknown_name("output", output, self.heads, do="See the heads of the network's wiring.")
        heads = self.heads.values() if output is None or not self.heads else [self.heads[output]]
        read = {head.reads for head in heads}
        if not self.heads and not self.layers:
            return None
        if not read:
            raise UserError(
                got="a wiring that does not say what the head reads",
                wanted="the output layers by name, each with the feature that it reads",
                do="Give it heads={'output': Head((kernel, bias), reads=feature)}.",
            )
        if len(read) > 1:
            raise UserError(
                got=f"a network with the outputs {', '.join(self.heads)}, which read different features",
                wanted="the name of one",
                do=f"Say output={next(iter(self.heads))!r}, for example.",
            )
        return read.pop()

    def features_read(self) -> tuple[str | None, ...]:
        """The features that heads read, each once, in the order of the heads; None for the inputs.

        Raises:
          UserError: if it is not stated.

        Example:
          >>> heads = {"policy": Head((), "actor"), "value": Head((), "critic"), "advantage": Head((), "actor")}
          >>> Wiring((), {}, heads).features_read()
          ('actor', 'critic')
        """
        named = self.heads or (None,)
        return tuple(dict.fromkeys(self.head_reads(output) for output in named))

    def bias_of(self, kernel: str) -> str | None:
        """The bias that is added to what a kernel makes; None if there is none.

        Raises:
          UserError: if it is unclear, because the wiring does not state what some bias belongs to.

        Example:
          >>> Wiring((), {"w": "head", "b": "bias"}, {"output": Head(("w", "b"))}).bias_of("w")
          'b'
        """
        unclear = [path for path, role in self.roles.items() if role == "bias" and path not in self.biases.values()]
        if kernel not in self.biases and unclear:
            raise UserError(
                got=f"the kernel {kernel!r}, and the bias {unclear[0]!r}, whose kernel is not stated",
                wanted="a wiring that states which kernel each bias belongs to",
                do=f"Add it to the feeds of its layer or the leaves of its head, or give biases={{{kernel!r}: ...}}.",
            )
        return self.biases.get(kernel)

    def chains(self) -> list[tuple[HiddenLayer, ...]]:
        """The hidden layers in front of the heads, from input to output: those of the trunk, then of a branch.

        One chain for each branch that has a head; all layers in one if there are no branches.

        Example:
          >>> branches = {"trunk": "", "h": "actor", "g": "critic"}
          >>> layers = tuple(HiddenLayer(name, 4, (), (), "relu", True, branch=b) for name, b in branches.items())
          >>> heads = {"policy": Head((), "h"), "value": Head((), "g")}
          >>> [[layer.name for layer in chain] for chain in Wiring(layers, {}, heads).chains()]
          [['trunk', 'h'], ['trunk', 'g']]
        """
        branch_of = {layer.name: layer.branch for layer in self.layers}
        of_heads = [head.branch or branch_of.get(head.reads or "", "") for head in self.heads.values()]
        branches = dict.fromkeys(of_heads or branch_of.values() or ("",))
        return [tuple(layer for layer in self.layers if layer.branch in ("", branch)) for branch in branches]

    def last_layers(self, number: int) -> tuple[HiddenLayer, ...]:
        """The last hidden layers in front of each head, in the order of `layers`.

        Args:
          number: of layers in each chain of `chains`, ≥ 0; all of a chain that has fewer.

        Example:
          >>> branches = {"trunk": "", "h": "actor", "g": "critic"}
          >>> layers = tuple(HiddenLayer(name, 4, (), (), "relu", True, branch=b) for name, b in branches.items())
          >>> heads = {"policy": Head((), "h"), "value": Head((), "g")}
          >>> [layer.name for layer in Wiring(layers, {}, heads).last_layers(1)]
          ['h', 'g']
        """
        last = {layer.name for chain in self.chains() for layer in chain[max(len(chain) - number, 0) :]}
        return tuple(layer for layer in self.layers if layer.name in last)

    def units_last(self, name: str, feature: Array) -> Array:
        """A feature with its units on the last axis; one that is of no hidden layer is returned as it is.

        Example:
          >>> layer = HiddenLayer("conv", 4, (), (), "relu", elementwise=True, axis=1)
          >>> wiring = Wiring((layer,), {})
          >>> [wiring.units_last(name, jax.numpy.zeros((2, 4, 8))).shape for name in ("conv", "stream")]
          [(2, 8, 4), (2, 4, 8)]
        """
        layers = [layer for layer in self.layers if layer.name == name]
        return layers[0].units_last(feature) if layers else feature

    def mask(self, params: PyTree, *roles: Role) -> PyTree[bool]:
        """True at the leaves that have one of `roles`; the structure is that of `params`.

        Raises:
          UserError: if `params` has a leaf that the wiring does not know.

        Example:
          >>> wiring = Wiring(layers=(), roles={"head/kernel": "head", "head/bias": "bias"})
          >>> wiring.mask({"head": {"kernel": 0.0, "bias": 0.0}}, "head")
          {'head': {'bias': False, 'kernel': True}}
        """
        return jax.tree_util.tree_map_with_path(lambda path, _: self._role(leaf_path(path)) in roles, params)

    def head(self, params: PyTree) -> PyTree[bool]:
        """True at the parameters of the output layers, see `head_leaves`; the structure is that of `params`."""
        leaves = self.head_leaves
        return jax.tree_util.tree_map_with_path(lambda path, _: leaf_path(path) in leaves, params)

    def _role(self, path: str) -> Role:
        if path not in self.roles:
            raise UserError(
                got=f"the parameter {path!r}",
                wanted=f"a leaf with a role: {', '.join(self.roles)}",
                do="Use the wiring of the network that made these parameters, or add the leaf to its roles.",
            )
        return self.roles[path]


def _only_head(layers: Iterable[HiddenLayer], roles: Mapping[str, Role]) -> dict[str, Head]:
    """The head of a wiring that has not stated its heads, as far as it is clear."""
    kernels = tuple(path for path, role in roles.items() if role == "head")
    fed = {feed.slot.path for layer in layers for feed in layer.feeds}
    is_clear = not any(role == "bias" and path not in fed for path, role in roles.items())
    read = [layer.name for layer in layers if any(slot.path in kernels for slot in layer.readers)]
    if not kernels or len(read) != min(len(tuple(layers)), 1):
        return {}
    return {"output": Head(kernels if is_clear else None, read[0] if read else None)}


def _biases(layers: Iterable[HiddenLayer], roles: Mapping[str, Role], heads: Mapping[str, Head]) -> dict[str, str]:
    """The only bias of a layer or a head, for each of its kernels."""
    groups = [[feed.slot.path for feed in layer.feeds] for layer in layers]
    groups += [list(head.leaves or ()) for head in heads.values()]
    found: dict[str, str] = {}
    for paths in groups:
        biases = {path for path in paths if roles.get(path) == "bias"}
        if len(biases) == 1:
            found |= dict.fromkeys([path for path in paths if roles.get(path) not in ("bias", "norm")], *biases)
    return found


def renamed(
    wiring: Wiring,
    leaf: Callable[[str], str],
    *,
    state: Callable[[str], str] | None = None,
    name: Callable[[str], str] = str,
) -> Wiring:
    """The same layer graph of a network whose parameters have other paths.

    Args:
      wiring: the layer graph.
      leaf: the new path of a parameter.
      state: the new path of what the network's state keeps; that of a parameter by default.
      name: the new name of a feature.

    Example:
      >>> wiring = Wiring((), {"w": "head"}, {"output": Head(("w",), "hidden")})
      >>> renamed(wiring, lambda path: f"net/{path}").heads["output"].leaves
      ('net/w',)
    """
    kept = leaf if state is None else state

    def slot(each: Slot, path: Callable[[str], str] = leaf) -> Slot:
        return each._replace(path=path(each.path))

    def layer(each: HiddenLayer) -> HiddenLayer:
        return each._replace(
            name=name(each.name),
            feeds=tuple(Feed(slot(feed.slot), feed.initializer) for feed in each.feeds),
            readers=tuple(map(slot, each.readers)),
            statistics=None if each.statistics is None else tuple(slot(own, kept) for own in each.statistics),
            state=tuple(map(kept, each.state)),
        )

    def head(each: Head) -> Head:
        return each._replace(
            leaves=None if each.leaves is None else tuple(map(leaf, each.leaves)),
            reads=None if each.reads is None else name(each.reads),
            state=tuple(map(kept, each.state)),
        )

    return Wiring(
        tuple(map(layer, wiring.layers)),
        {leaf(path): role for path, role in wiring.roles.items()},
        {output: head(each) for output, each in wiring.heads.items()},
        frozenset(map(leaf, wiring.indirect)),
        {leaf(path): axes for path, axes in wiring.output_axes.items()},
        frozenset(map(leaf, wiring.frozen)),
        {leaf(kernel): leaf(bias) for kernel, bias in wiring.biases.items()},
    )
