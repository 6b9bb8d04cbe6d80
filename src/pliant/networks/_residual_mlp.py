"""The residual multilayer perceptron."""

import math
from collections.abc import Sequence
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice, require_range, require_whole
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    HiddenUnits,
    LayerNorm,
    Linear,
    Modules,
    NextKey,
    activation_for,
    apply_units,
    dense_piece,
    key_stream,
    multiplied,
    norm_piece,
    orthogonal,
    require_sizes,
    wiring_of,
)
from pliant.types import Features, Key, Method, Network

_MODULES = Modules("up", "", "activation")


class ResidualBlock(nnx.Module):
    """(`norm` →) `up` → `activation` → `down`, added to the stream; see `residual_mlp`."""

    def __init__(
        self, units: HiddenUnits, *, norm: Literal["none", "layer"], use_bias: bool, branch_gain: float, rngs: nnx.Rngs
    ):
        width = units.shape[0]
        if norm == "layer":
            self.norm = LayerNorm(width, rngs=rngs)
        units.add_to(self, rngs)
        kernel_init = orthogonal(branch_gain)
        self.down = nnx.Linear(units.num_outputs, width, use_bias=use_bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(
        self, stream: Float[Array, "batch width"], next_key: NextKey
    ) -> tuple[Float[Array, "batch width"], Array]:
        """The stream behind the block, and the block's hidden features."""
        x = self.norm(stream) if hasattr(self, "norm") else stream
        hidden = apply_units(self, _MODULES, x, next_key, train=False)
        return stream + self.down(hidden), hidden


class ResidualMLP(nnx.Module):
    """A `stem`, blocks `block_i`, (`norm`) and a linear `head`; see `residual_mlp`."""

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        width: int,
        blocks: Sequence[HiddenUnits],
        *,
        norm: Literal["none", "layer"],
        use_bias: bool,
        branch_gain: float,
        rngs: nnx.Rngs,
    ):
        self.num_blocks = len(blocks)
        self.stem = nnx.Linear(input_size, width, use_bias=use_bias, kernel_init=orthogonal(1.0), rngs=rngs)
        for i, units in enumerate(blocks):
            block = ResidualBlock(units, norm=norm, use_bias=use_bias, branch_gain=branch_gain, rngs=rngs)
            setattr(self, f"block_{i}", block)
        if norm == "layer":
            self.norm = LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, num_outputs, use_bias=use_bias, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch ..."], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output, the hidden features of every block and the stream that the head reads."""
        next_key = key_stream(key, train=train)
        stream = self.stem(inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:])))
        features = {}
        for i in range(self.num_blocks):
            stream, features[f"block_{i}"] = getattr(self, f"block_{i}")(stream, next_key)
        features["stream"] = self.norm(stream) if hasattr(self, "norm") else stream
        return self.head(features["stream"]), features


def residual_mlp(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    width: int | None = None,
    num_blocks: int | None = None,
    hidden_width: int | None = None,
    widths: Sequence[int] | None = None,
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
    branch_gain: float | None = None,
) -> Network:
    r"""Builds a multilayer perceptron of residual blocks with orthogonal initialisation.

    .. math:: h_0 = x W_{stem} + b, \qquad h_{l+1} = h_l + \phi(\mathrm{norm}(h_l) W_l + b_l) V_l + c_l, \qquad
              f(x) = \mathrm{norm}(h_L) W_{head} + b_{head}

    Args:
      input_shape: shape of one example; flattened.
      num_outputs: size of the output, ≥ 1.
      width: size of the stream h that the blocks add to, ≥ 1; by default the first of `widths`, or 128.
      num_blocks: L ≥ 0; by default 4.
      hidden_width: units of each block, ≥ 1; by default `width`.
      widths: units of every single block, each ≥ 1, in the place of `num_blocks` and `hidden_width`; empty for a linear
        model.
      width_multiplier: > 0, what the units of all blocks are multiplied by, as for `mlp`; not the stream's.
      activation: φ, a name in `pliant.networks.ACTIVATIONS`.
      norm: "layer" puts a LayerNorm with scale and offset in front of every block and of the head (pre-norm).
      use_bias: whether dense layers and head have biases (initialised to 0).
      gain: singular values of every W at the start, > 0; by default what keeps the activation's scale.
      branch_gain: singular values of every V at the start, ≥ 0; by default 1/√L, with which the stream grows at most by
        about √e. 0 starts as a linear model.

    Returns:
      A `Network`. Its features are "block_i", (batch, hidden_width), and "stream", what the head reads. Only the
      blocks' units are in `wiring.layers`: one of the stream is carried on by the skip connection, so it cannot be cut
      off.

    Raises:
      UserError: for an unknown activation or norm, numbers out of range, or both `widths` and what they replace.

    Example:
      >>> network = residual_mlp((8, 8, 1), 10, width=16, num_blocks=2)
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 8, 8, 1)), train=False, key=None)
      >>> output.shape, features["block_1"].shape, features["stream"].shape
      ((5, 10), (5, 16), (5, 16))

    References:
      He et al., `Identity Mappings in Deep Residual Networks <https://arxiv.org/abs/1603.05027>`_, 2016. Equation 1
      with the identity; the norm in front of the branch is their pre-activation.
      Lyle et al. 2023 (arXiv 2303.01486): residual connections among the architectures that keep plasticity.

    Differs from:
      He et al.'s blocks, which have a norm in front of both layers of a branch. The 1/√L is ours.
    """
    require_sizes(input_shape, num_outputs)
    _check(norm, width, num_blocks, hidden_width, widths, branch_gain)
    if width is None:
        width = widths[0] if widths else 128
    if widths is None:
        widths = (width if hidden_width is None else hidden_width,) * (4 if num_blocks is None else num_blocks)
    widths = multiplied(widths, width_multiplier)
    chosen = activation_for(activation, widths, gain)
    if branch_gain is None:
        branch_gain = 1.0 / math.sqrt(max(len(widths), 1))
    input_size = math.prod(input_shape)

    linear = Linear("plain", chosen.gain, 1, use_bias)
    blocks = [HiddenUnits(_MODULES, (width, size), linear, activation) for size in widths]

    def make(rngs: nnx.Rngs) -> ResidualMLP:
        return ResidualMLP(
            input_size, num_outputs, width, blocks, norm=norm, use_bias=use_bias, branch_gain=branch_gain, rngs=rngs
        )

    pieces = [dense_piece("stem", use_bias=use_bias)]  # reads the inputs as any dense layer does: no embedding
    for i, units in enumerate(blocks):
        pieces.append(units.piece([f"block_{i}/down"], name=f"block_{i}", path=f"block_{i}/"))
        pieces.append(dense_piece(f"block_{i}/down", use_bias=use_bias))
    if norm == "layer":
        pieces.append(norm_piece(*(f"block_{i}/norm" for i in range(len(blocks))), "norm"))
    return from_nnx(make, wiring_of(pieces, "stream", use_bias=use_bias))


def _check(
    norm: str,
    width: int | None,
    num_blocks: int | None,
    hidden_width: int | None,
    widths: Sequence[int] | None,
    branch_gain: float | None,
) -> None:
    require_choice("norm", norm, "none", "layer")
    require_whole("width", width, 1, do="Use 128, for example.")
    require_whole("num_blocks", num_blocks, 0, do="Use 0 for a linear model.")
    for name, value in (("num_blocks", num_blocks), ("hidden_width", hidden_width)):
        if value is not None and widths is not None:
            raise UserError(
                got=f"{name}={value} with widths={tuple(widths)}",
                wanted="one or the other, since widths say how many blocks there are and of how many units",
                do=f"Leave {name} out.",
            )
    require_range("branch_gain", branch_gain, 0, do="Leave it out for one over the root of the number of blocks.")


RESIDUAL = Method(
    name="residual",
    summary="Adam on a residual network in place of the MLP: a block for every hidden layer, added to a stream",
    reference="He et al. 2016, equation 1; Lyle et al. 2023",
    replaces={"mlp": "residual-mlp"},
)
