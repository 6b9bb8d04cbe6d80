"""The convolutional network: convolutions, then dense layers."""

import math
from collections.abc import Sequence
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    HiddenUnits,
    LinearKind,
    Modules,
    activation_for,
    apply_units,
    key_stream,
    linear_layers,
    multiplied,
    orthogonal,
    require_sizes,
    wiring_of,
)
from pliant.types import Features, Key, Network
from pliant.xla.convolution import Padding, max_pool


class CNN(nnx.Module):
    """`conv_i` (→ `conv_norm_i`) → `conv_activation_i` → pooling; the same with `dense_`, without pooling; `head`."""

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        convs: Sequence[HiddenUnits],
        dense: Sequence[HiddenUnits],
        *,
        pools: Sequence[int],
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.pools = tuple(pools)
        self.convs, self.dense = (tuple(units.modules for units in hidden) for hidden in (convs, dense))
        for units in (*convs, *dense):
            units.add_to(self, rngs)
        size = dense[-1].num_outputs if dense else input_size
        self.head = nnx.Linear(size, num_outputs, use_bias=use_bias, kernel_init=orthogonal(), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch height wide channels"], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output and what every hidden layer hands on."""
        next_key = key_stream(key, train=train)
        x, features = inputs, {}
        for modules, pool in zip(self.convs, self.pools, strict=True):
            x = max_pool(apply_units(self, modules, x, next_key, train=train), pool)
            features[modules.linear] = x
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for modules in self.dense:
            x = features[modules.linear] = apply_units(self, modules, x, next_key, train=train)
        return self.head(x), features


def cnn(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    channels: Sequence[int] = (32, 32, 32),
    kernel_sizes: Sequence[int] = (3, 3, 3),
    strides: Sequence[int] = (1, 1, 2),
    pool: Sequence[int] = (1, 1, 1),
    padding: Padding = "SAME",
    widths: Sequence[int] = (256, 256),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
    linear: LinearKind = "plain",
    linear_iterations: int = 7,
) -> Network:
    r"""Builds a convolutional network with dense layers behind it: by default that of the AdamO paper.

    .. math:: h_l = \mathrm{pool}_l(\phi(\mathrm{norm}(K_l * h_{l-1} + b_l))), \qquad
              h_l = \phi(\mathrm{norm}(h_{l-1} W_l + b_l)), \qquad f(x) = h_L W_{head} + b_{head}

    first for the convolutions, then for the dense layers, the first of which reads the flattened images.

    Args:
      input_shape: (height, wide, channels) of one image.
      num_outputs: size of the output, ≥ 1.
      channels: output channels of each convolution, each ≥ 1; empty for none.
      kernel_sizes: rows and columns of each kernel, ≥ 1.
      strides: of each convolution, ≥ 1.
      pool: rows and columns of the windows of the maximum behind each activation, ≥ 1; they do not overlap. 1 is none.
      padding: "SAME", where stride 1 keeps the size of the images, or "VALID" for none.
      widths: units of each dense hidden layer, each ≥ 1; empty for none.
      width_multiplier: > 0, what channels and widths are multiplied by, rounded, as for `mlp`.
      activation: as for `mlp`. "maxmin" requires even channels and widths.
      norm: "layer" puts a LayerNorm with scale and offset before every activation: over the channels of each position
        behind a convolution, over the units behind a dense layer.
      use_bias: whether convolutions, dense layers and head have biases (initialised to 0).
      gain: singular values of the hidden kernels at the start, > 0, those of convolutions as matrices of shape
        (rows·columns·in, out); by default what keeps the activation's scale (√2 for ReLU, 1 for MaxMin). The head
        starts with 1. With an orthogonal `linear` and with "spectral-norm" as for `mlp`.
      linear: how convolutions and dense hidden layers make their maps of their weights, as for `mlp`; those of a
        convolution are seen as a matrix. "spectral-norm-first" is about the first dense layer. "delta-orthogonal" is
        "plain" with convolutions all of whose singular values, as maps of whole images, start at the gain, see
        `delta_orthogonal`.
      linear_iterations: ≥ 1, how many steps the orthogonalisation has.

    Returns:
      A `Network`; the features are what the hidden layers hand on: post-activation arrays, behind the pooling,
      (batch, height, wide, channels) and (batch, width). The state is {} unless `linear` is "newton-schulz" or
      a spectral norm.

    Raises:
      UserError: for options that do not suit each other or the images, and unknown names.

    Example:
      >>> network = cnn((8, 8, 3), 10, channels=(4, 6), kernel_sizes=(3, 3), strides=(1, 2), pool=(2, 1), widths=(16,))
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 8, 8, 3)), train=False, key=None)
      >>> output.shape, features["conv_0"].shape, features["conv_1"].shape, params["dense_0"]["kernel"].shape
      ((5, 10), (5, 4, 4, 4), (5, 2, 2, 6), (24, 16))

    References:
      Rosseau et al. 2026 (arXiv 2606.09762), appendix B.1: 3 convolutions with 32 channels, 3 × 3, strides 1, 1, 2,
      and 2 dense layers of 256, orthogonal initialisation. The padding is not stated.

    Differs from:
      The PyTorch baselines of the field, which start from uniform Kaiming weights and non-zero biases, and flatten
      channels first; some have one LayerNorm over all of an image, with a scale for every pixel.
    """
    channels, widths = multiplied(channels, width_multiplier), multiplied(widths, width_multiplier)
    chosen = activation_for(activation, (*channels, *widths), gain)
    _check(input_shape, num_outputs, channels, (kernel_sizes, strides, pool), padding, norm)
    linears = linear_layers(
        linear,
        len(channels) + len(widths),
        first_dense=len(channels),
        gain=gain,
        default_gain=chosen.gain,
        iterations=linear_iterations,
        use_bias=use_bias,
    )
    height, wide, size = input_shape
    named = Modules("{}_{}", "{}_norm_{}" if norm == "layer" else "", "{}_activation_{}")
    convs: list[HiddenUnits] = []
    for i, width in enumerate(channels):
        modules = Modules(*(name.format("conv", i) for name in named))
        shape = (kernel_sizes[i], kernel_sizes[i], size, width)
        convs.append(HiddenUnits(modules, shape, linears[i], activation, strides[i], padding))
        size = convs[-1].num_outputs
    positions = math.prod(_size_behind((height, wide), convs, pool))
    input_size = size = size * positions
    dense: list[HiddenUnits] = []
    for i, width in enumerate(widths):
        modules = Modules(*(name.format("dense", i) for name in named))
        dense.append(HiddenUnits(modules, (size, width), linears[len(convs) + i], activation))
        size = dense[-1].num_outputs
    hidden = [*convs, *dense]
    names = [units.modules.linear for units in hidden]
    pieces = [
        units.piece([reader], positions=positions if i + 1 == len(convs) else 1)
        for i, (units, reader) in enumerate(zip(hidden, [*names[1:], "head"], strict=False))
    ]

    def make(rngs: nnx.Rngs) -> CNN:
        return CNN(input_size, num_outputs, convs, dense, pools=pool, use_bias=use_bias, rngs=rngs)

    return from_nnx(make, wiring_of(pieces, names[-1] if names else None, use_bias=use_bias))


def lyle_cnn(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    padding: Padding = "SAME",
    widths: Sequence[int] = (256, 256),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
) -> Network:
    """Builds the CNN of Lyle et al. 2023: 64 channels 5 × 5 and 64 channels 3 × 3, and 2 dense layers of 256.

    Strides, padding and pooling are not stated; here both strides are 2, the padding is "SAME", and nothing is pooled.

    Args:
      input_shape: (height, wide, channels) of one image.
      num_outputs: size of the output, ≥ 1.
      padding: as in `cnn`, like the options that follow.
      widths: as in `cnn`.
      width_multiplier: as in `cnn`.
      activation: as in `cnn`.
      norm: as in `cnn`; "layer" is one of the paper's interventions.
      use_bias: as in `cnn`.
      gain: as in `cnn`.

    Returns:
      A `Network`, see `cnn`.

    Raises:
      UserError: as `cnn`.

    Example:
      >>> params, _ = jax.eval_shape(lyle_cnn((28, 28, 1), 10).init, jax.random.key(0))
      >>> params["conv_0"]["kernel"].shape, params["dense_0"]["kernel"].shape
      ((5, 5, 1, 64), (3136, 256))

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023.
      Appendix A.2.

    Differs from:
      See `cnn`.
    """
    return cnn(
        input_shape,
        num_outputs,
        channels=(64, 64),
        kernel_sizes=(5, 3),
        strides=(2, 2),
        pool=(1, 1),
        padding=padding,
        widths=widths,
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        use_bias=use_bias,
        gain=gain,
    )


def kumar_cnn(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    padding: Padding = "VALID",
    widths: Sequence[int] = (100, 100),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
) -> Network:
    """Builds the CNN of Kumar et al. (L2 Init): twice 16 channels 5 × 5 and pooling by 2, and 2 dense layers of 100.

    Without padding, so that 32 × 32 images are 5 × 5 × 16 in front of the dense layers.

    Args:
      input_shape: (height, wide, channels) of one image, at least 16 × 16 unless `padding` is "SAME".
      num_outputs: size of the output, ≥ 1.
      padding: as in `cnn`, like the options that follow.
      widths: as in `cnn`.
      width_multiplier: as in `cnn`.
      activation: as in `cnn`.
      norm: as in `cnn`.
      use_bias: as in `cnn`.
      gain: as in `cnn`.

    Returns:
      A `Network`, see `cnn`.

    Raises:
      UserError: as `cnn`.

    Example:
      >>> params, _ = jax.eval_shape(kumar_cnn((32, 32, 3), 10).init, jax.random.key(0))
      >>> params["conv_1"]["kernel"].shape, params["dense_0"]["kernel"].shape
      ((5, 5, 16, 16), (400, 100))

    References:
      Kumar, Marklund, Van Roy, `Maintaining Plasticity in Continual Learning via Regenerative Regularization
      <https://arxiv.org/abs/2308.11958>`_, 2023. The padding is that of the authors' code.

    Differs from:
      The authors' code, which starts from uniform Kaiming weights and non-zero biases, and whose LayerNorm behind a
      convolution is one over all of the image. See `cnn`.
    """
    return cnn(
        input_shape,
        num_outputs,
        channels=(16, 16),
        kernel_sizes=(5, 5),
        strides=(1, 1),
        pool=(2, 2),
        padding=padding,
        widths=widths,
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        use_bias=use_bias,
        gain=gain,
    )


def _size_behind(image: tuple[int, int], convs: Sequence[HiddenUnits], pools: Sequence[int]) -> tuple[int, int]:
    """Height and width of the images behind all convolutions and poolings.

    Raises:
      UserError: if nothing is left of them.
    """
    sizes = list(image)
    for i, (units, pool) in enumerate(zip(convs, pools, strict=True)):
        for axis, size in enumerate(sizes):
            size = size if units.padding == "SAME" else size - units.shape[0] + 1
            sizes[axis] = -(-size // units.strides) // pool
        if min(sizes) < 1:
            raise UserError(
                got=f"images of {image[0]} × {image[1]}, of which conv_{i} leaves nothing",
                wanted="at least one position behind every convolution and pooling",
                do="Use smaller kernels, strides or pooling windows, or padding='SAME'.",
            )
    return sizes[0], sizes[1]


def _check(
    input_shape: Sequence[int],
    num_outputs: int,
    channels: Sequence[int],
    others: tuple[Sequence[int], Sequence[int], Sequence[int]],
    padding: str,
    norm: str,
) -> None:
    require_sizes(input_shape, num_outputs, images=True)
    for name, values in zip(("kernel_sizes", "strides", "pool"), others, strict=True):
        if len(values) != len(channels) or min(values, default=1) < 1:
            raise UserError(
                got=f"{name}={tuple(values)} for {len(channels)} convolutions",
                wanted="one number ≥ 1 for each of the channels",
                do=f"Give {name} as many entries as channels={tuple(channels)}.",
            )
    require_choice("padding", padding, "SAME", "VALID")
    require_choice("norm", norm, "none", "layer")
