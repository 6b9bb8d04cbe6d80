"""The choice of linear layers: how hidden layers make their maps of their weights."""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from flax import nnx
from jaxtyping import Array

from pliant.errors import UserError, require_whole, unknown_name
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._newton_schulz import OrthogonalConv, OrthogonalDense
from pliant.networks.blocks._orthogonal import Initializer, delta_orthogonal, orthogonal
from pliant.networks.blocks._spectral_norm import SpectralNorm
from pliant.networks.blocks._weight_norm import Scaled, WeightNorm, fresh_direction, fresh_scale
from pliant.networks.blocks._wiring import Owned, owned
from pliant.types import Feed, Slot
from pliant.xla.convolution import Padding, Pair

LinearKind: TypeAlias = Literal[
    "plain",
    "delta-orthogonal",
    "newton-schulz",
    "cans",
    "spectral-norm",
    "spectral-norm-first",
    "weight-norm",
    "scaled",
]
LINEAR_KINDS: tuple[LinearKind, ...] = get_args(LinearKind)
"""How a layer makes its map of its weights: as they are; as they are, but 0 at the start around the centres of
convolutions' kernels; orthogonalised in one of two ways; over their spectral norm, in all layers or in the first dense
one; with the norm of each unit's weights as a parameter; with a scale behind."""
_PLAIN = ("plain", "delta-orthogonal")
_BOUNDED = ("newton-schulz", "cans", "spectral-norm")
"""Those whose spectral norm stays equal to the gain."""


class Linear(NamedTuple):
    """How one hidden layer makes its map of its weights."""

    kind: LinearKind
    gain: float
    """Singular values of the map at the start."""
    iterations: int
    use_bias: bool

    @property
    def is_plain(self) -> bool:
        """Whether the kernel is applied as it is."""
        return self.kind in _PLAIN

    def dense(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Makes a dense layer.

        Example:
          >>> linear = Linear("plain", gain=1.0, iterations=7, use_bias=True)
          >>> through(linear.dense(3, 2, rngs=nnx.Rngs(0)), jnp.ones((4, 3)), train=True).shape
          (4, 2)
        """
        options: dict[str, Any] = {"use_bias": self.use_bias, "rngs": rngs}
        if self.is_plain:
            return nnx.Linear(in_features, out_features, kernel_init=self._start(), **options)
        if self.kind in ("newton-schulz", "cans"):
            options |= {"kind": self.kind, "iterations": self.iterations}
            return OrthogonalDense(in_features, out_features, gain=self.gain, **options)
        return _LAYERS[self.kind]((in_features, out_features), gain=self.gain, **options)

    def conv(
        self, in_features: int, out_features: int, size: Pair, *, strides: int | Pair, padding: Padding, rngs: nnx.Rngs
    ) -> nnx.Module:
        """Makes a convolution.

        Example:
          >>> linear = Linear("weight-norm", gain=1.0, iterations=7, use_bias=True)
          >>> layer = linear.conv(3, 8, (3, 3), strides=2, padding="SAME", rngs=nnx.Rngs(0))
          >>> through(layer, jnp.ones((4, 6, 6, 3)), train=True).shape
          (4, 3, 3, 8)
        """
        options: dict[str, Any] = {"use_bias": self.use_bias, "strides": strides, "padding": padding, "rngs": rngs}
        if self.is_plain:
            return KernelLayer((*size, in_features, out_features), kernel_init=self._start(), **options)
        if self.kind in ("newton-schulz", "cans"):
            options |= {"kind": self.kind, "iterations": self.iterations}
            return OrthogonalConv(in_features, out_features, size, gain=self.gain, **options)
        return _LAYERS[self.kind]((*size, in_features, out_features), gain=self.gain, **options)

    def owned(self, module: str, fan_in: int, *, norm: str | None = None) -> Owned:
        """Lists what the units of such a layer own, as `pliant.networks.blocks._wiring.owned`.

        Args:
          module: the layer.
          fan_in: rows of its kernel as a matrix.
          norm: its norm; None for none.

        Example:
          >>> Linear("weight-norm", gain=1.0, iterations=7, use_bias=False).owned("dense_0", 8).roles
          {'dense_0/kernel': 'matrix', 'dense_0/scale': 'other'}
        """
        draw = fresh_direction if self.kind == "scaled" else self._start()
        own = owned(module, draw, use_bias=self.use_bias, norm=norm)
        if self.kind in ("newton-schulz", "spectral-norm"):
            own = own._replace(state=(f"{module}/u", f"{module}/v"))
        if self.kind in ("weight-norm", "scaled"):
            path = f"{module}/scale"
            scale = Feed(Slot(path, axis=-1), fresh_scale(self.gain, fan_in))
            own = own._replace(feeds=(*own.feeds, scale), roles=own.roles | {path: "other"})
        return own

    def _start(self) -> Initializer:
        draw = delta_orthogonal if self.kind == "delta-orthogonal" else orthogonal
        return draw(1.0 if self.kind in _BOUNDED else self.gain)


_LAYERS: dict[str, Any] = {"spectral-norm": SpectralNorm, "weight-norm": WeightNorm, "scaled": Scaled}


def linear_layers(
    linear: str,
    num_layers: int,
    *,
    first_dense: int = 0,
    gain: float | None,
    default_gain: float,
    iterations: int,
    use_bias: bool,
) -> tuple[Linear, ...]:
    """Chooses the linear map of every hidden layer.

    Args:
      linear: the network's option.
      num_layers: hidden layers, ≥ 0.
      first_dense: the index of the first dense layer: the one that "spectral-norm-first" is about.
      gain: singular values of the maps at the start, > 0; None for 1 where they stay so, else `default_gain`.
      default_gain: that of the activation.
      iterations: ≥ 1, of the orthogonalisation.
      use_bias: whether there are biases.

    Raises:
      UserError: for an unknown kind, numbers out of range, and "spectral-norm-first" without a dense layer.

    Example:
      >>> layers = linear_layers(
      ...     "spectral-norm-first", 2, gain=None, default_gain=1.4, iterations=7, use_bias=True
      ... )
      >>> [(layer.kind, layer.gain) for layer in layers]
      [('spectral-norm', 1.0), ('plain', 1.4)]
    """
    chosen = next((kind for kind in LINEAR_KINDS if kind == linear), None)
    if chosen is None:
        raise unknown_name("linear layer", linear, LINEAR_KINDS, do="Leave it out for 'plain'.")
    require_whole("linear_iterations", iterations, 1, do="Use 7, as published.")
    if chosen == "spectral-norm-first" and first_dense >= num_layers:
        raise UserError(
            got=f"linear={linear!r} without dense hidden layers",
            wanted="a first one to normalise",
            do="Give widths, or use 'spectral-norm', which is for all layers.",
        )
    kinds: list[LinearKind] = [chosen] * num_layers
    if chosen == "spectral-norm-first":
        kinds = ["spectral-norm" if i == first_dense else "plain" for i in range(num_layers)]
    own = [1.0 if kind in _BOUNDED else default_gain for kind in kinds]
    gains = own if gain is None else [gain] * num_layers
    return tuple(Linear(kind, gain, iterations, use_bias) for kind, gain in zip(kinds, gains, strict=True))


def through(layer: Any, x: Array, *, train: bool) -> Array:
    """Calls a layer; only those that apply a function of their weights want to know whether this is training.

    Example:
      >>> through(WeightNorm((3, 2), rngs=nnx.Rngs(0)), jnp.ones((4, 3)), train=True).shape
      (4, 2)
    """
    return layer(x, train=train) if isinstance(layer, KernelLayer) else layer(x)
