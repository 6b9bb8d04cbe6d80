"""The convolutional network: convolutions, then dense layers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    HiddenUnits,
    LinearKind,
    Modules,
    NextKey,
    activation_for,
    apply_units,
    key_stream,
    linear_layers,
    multiplied,
    orthogonal,
    require_sizes,
    wiring_of,
    wiring_of_branches,
)
from pliant.types import Features, Key, Network, Wiring
from pliant.xla.convolution import Padding, Pair, max_pool, pair


class _Dense(nnx.Module):
    """Dense hidden layers (→ `dense_norm_i`) → `dense_activation_i`, and a linear `head`."""

    def __init__(
        self, input_size: int, num_outputs: int, dense: Sequence[HiddenUnits], *, use_bias: bool, rngs: nnx.Rngs
    ):
        self.dense = tuple(units.modules for units in dense)
        for units in dense:
            units.add_to(self, rngs)
        size = dense[-1].num_outputs if dense else input_size
        self.head = nnx.Linear(size, num_outputs, use_bias=use_bias, kernel_init=orthogonal(), rngs=rngs)

    def behind(self, x: Float[Array, "batch in"], next_key: NextKey, *, train: bool) -> tuple[Array, dict[str, Array]]:
        """The head's output and what every dense layer hands on."""
        features = {}
        for modules in self.dense:
            x = features[modules.linear] = apply_units(self, modules, x, next_key, train=train)
        return self.head(x), features


class CNN(_Dense):
    """`conv_i` (→ `conv_norm_i`) → `conv_activation_i` → pooling; the same with `dense_`, without pooling; `head`.

    With several outputs, the dense layers and the head of each are in a module of its name.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int | Mapping[str, int],
        convs: Sequence[HiddenUnits],
        dense: Sequence[HiddenUnits],
        *,
        pools: Sequence[int],
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.pools = tuple(pools)
        self.convs = tuple(units.modules for units in convs)
        self.outputs = tuple(num_outputs) if isinstance(num_outputs, Mapping) else ()
        for units in convs:
            units.add_to(self, rngs)
        if isinstance(num_outputs, Mapping):
            for name, size in num_outputs.items():
                setattr(self, name, _Dense(input_size, size, dense, use_bias=use_bias, rngs=rngs))
        else:
            super().__init__(input_size, num_outputs, dense, use_bias=use_bias, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch height wide channels"], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"] | dict[str, Array], Features]:
        """The head's output, or those of all heads by name, and what every hidden layer hands on."""
        next_key = key_stream(key, train=train)
        x, features = inputs, {}
        for modules, pool in zip(self.convs, self.pools, strict=True):
            x = max_pool(apply_units(self, modules, x, next_key, train=train), pool)
            features[modules.linear] = x
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        if not self.outputs:
            output, dense = self.behind(x, next_key, train=train)
            return output, features | dense
        outputs: dict[str, Array] = {}
        for name in self.outputs:
            part: _Dense = getattr(self, name)
            outputs[name], dense = part.behind(x, next_key, train=train)
            features |= {f"{name}/{layer}": feature for layer, feature in dense.items()}
        return outputs, features


def cnn(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    channels: Sequence[int] = (32, 32, 32),
    kernel_sizes: Sequence[int | Pair] = (3, 3, 3),
    strides: Sequence[int | Pair] = (1, 1, 2),
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
      kernel_sizes: rows and columns of each kernel, ≥ 1: one number for both, or in code (rows, columns).
      strides: of each convolution, ≥ 1: one number for both axes, or in code (for height, for wide).
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
    return _made(
        input_shape,
        num_outputs,
        channels=channels,
        kernel_sizes=kernel_sizes,
        strides=strides,
        pool=pool,
        padding=padding,
        widths=widths,
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        use_bias=use_bias,
        gain=gain,
        linear=linear,
        linear_iterations=linear_iterations,
    )


def _made(
    input_shape: Sequence[int],
    num_outputs: Any,
    *,
    channels: Sequence[int],
    kernel_sizes: Sequence[Any],
    strides: Sequence[Any],
    pool: Sequence[Any],
    padding: Any,
    widths: Sequence[int],
    width_multiplier: float,
    activation: str,
    norm: str,
    use_bias: bool,
    gain: float | None,
    linear: str,
    linear_iterations: int,
) -> Network:
    """The network `cnn`; with several outputs, each has dense layers and a head of its own behind the convolutions."""
    channels, widths = multiplied(channels, width_multiplier), multiplied(widths, width_multiplier)
    chosen = activation_for(activation, (*channels, *widths), gain)
    sizes = num_outputs if isinstance(num_outputs, Mapping) else {"": num_outputs}
    for number in sizes.values():
        require_sizes(input_shape, number, images=True)
    _check(channels, {"kernel_sizes": kernel_sizes, "strides": strides, "pool": pool}, padding, norm)
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
        shape = (*_both(kernel_sizes[i]), size, width)
        convs.append(HiddenUnits(modules, shape, linears[i], activation, _both(strides[i]), padding))
        size = convs[-1].num_outputs
    positions = math.prod(_size_behind((height, wide), convs, pool))
    input_size = size = size * positions
    dense: list[HiddenUnits] = []
    for i, width in enumerate(widths):
        modules = Modules(*(name.format("dense", i) for name in named))
        dense.append(HiddenUnits(modules, (size, width), linears[len(convs) + i], activation))
        size = dense[-1].num_outputs

    def make(rngs: nnx.Rngs) -> CNN:
        return CNN(input_size, num_outputs, convs, dense, pools=pool, use_bias=use_bias, rngs=rngs)

    return from_nnx(make, _wiring(convs, dense, tuple(sizes), positions=positions, use_bias=use_bias))


def _wiring(
    convs: Sequence[HiddenUnits],
    dense: Sequence[HiddenUnits],
    outputs: Sequence[str],
    *,
    positions: int,
    use_bias: bool,
) -> Wiring:
    """Of one output without a name, or of several; the layers behind the convolutions read all `positions`."""
    paths = {name: f"{name}/" if name else "" for name in outputs}
    conv_names = [units.modules.linear for units in convs]
    dense_names = [units.modules.linear for units in dense]
    first, *next_ones = [*dense_names, "head"]
    behind = [path + first for path in paths.values()]
    pieces = [units.piece([reader]) for units, reader in zip(convs, conv_names[1:], strict=False)] + [
        units.piece(behind, positions=positions) for units in convs[-1:]
    ]
    for branch, path in paths.items():
        for units, name, reader in zip(dense, dense_names, next_ones, strict=True):
            pieces.append(units.piece([path + reader], name=path + name, path=path, branch=branch))
    last_conv = conv_names[-1] if conv_names else None
    reads = {name: path + dense_names[-1] if dense else last_conv for name, path in paths.items()}
    if "" in reads:
        return wiring_of(pieces, reads[""], use_bias=use_bias)
    return wiring_of_branches(pieces, reads, use_bias=use_bias)


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


def octax_cnn(
    input_shape: Sequence[int],
    num_outputs: int | Mapping[str, int],
    *,
    padding: Padding = "SAME",
    widths: Sequence[int] = (256,),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
    linear: LinearKind = "plain",
    linear_iterations: int = 7,
) -> Network:
    """Builds the CNN of Octax's agents: 32 channels 8 × 4, 64 channels 4 × 4 and 64 channels 3 × 3, and dense layers.

    The strides are 4 × 2, 2 and 1, so that screens of 32 × 64 are 4 × 16 in front of the dense layers. With several
    outputs, such as a policy and a value, the convolutions are shared, and each output has dense layers of its own:
    that is the agent with `ppo.trunk=shared`.

    Args:
      input_shape: (height, wide, channels) of one image.
      num_outputs: size of the output, ≥ 1, or the size of each output by name.
      padding: as in `cnn`, like the options that follow.
      widths: as in `cnn`, of each output's dense layers. Four of 64 are those of continual Octax.
      width_multiplier: as in `cnn`.
      activation: as in `cnn`.
      norm: as in `cnn`.
      use_bias: as in `cnn`.
      gain: as in `cnn`.
      linear: as in `cnn`.
      linear_iterations: as in `cnn`.

    Returns:
      A `Network`, see `cnn`. With several outputs, its output is a dictionary by their names; parameters and features
      of their dense layers have the name before them.

    Raises:
      UserError: as `cnn`.

    Example:
      >>> network = octax_cnn((32, 64, 4), {"policy": 6, "value": 1})
      >>> params, _ = jax.eval_shape(network.init, jax.random.key(0))
      >>> params["conv_0"]["kernel"].shape, params["policy"]["dense_0"]["kernel"].shape
      ((8, 4, 4, 32), (4096, 256))
      >>> params["value"]["head"]["kernel"].shape
      (256, 1)

    References:
      Radji et al., `Octax: Accelerated CHIP-8 Arcade Environments for Reinforcement Learning in JAX
      <https://arxiv.org/abs/2510.01764>`_, 2025, the agent of the authors' code.

    Differs from:
      The authors' code, where kernels that are given as one number are as long only along the last axis of the image,
      4 and 3 instead of 4 × 4 and 3 × 3, and where the stack of frames is an axis of the image. See `cnn`.
    """
    return _made(
        input_shape,
        num_outputs,
        channels=(32, 64, 64),
        kernel_sizes=((8, 4), 4, 3),
        strides=((4, 2), 2, 1),
        pool=(1, 1, 1),
        padding=padding,
        widths=widths,
        width_multiplier=width_multiplier,
        activation=activation,
        norm=norm,
        use_bias=use_bias,
        gain=gain,
        linear=linear,
        linear_iterations=linear_iterations,
    )


def _size_behind(image: tuple[int, int], convs: Sequence[HiddenUnits], pools: Sequence[int]) -> tuple[int, int]:
    """Height and width of the images behind all convolutions and poolings.

    Raises:
      UserError: if nothing is left of them.
    """
    sizes = list(image)
    for i, (units, pool) in enumerate(zip(convs, pools, strict=True)):
        for axis, size in enumerate(sizes):
            size = size if units.padding == "SAME" else size - units.shape[axis] + 1
            sizes[axis] = -(-size // units.strides[axis]) // pool
        if min(sizes) < 1:
            raise UserError(
                got=f"images of {image[0]} × {image[1]}, of which conv_{i} leaves nothing",
                wanted="at least one position behind every convolution and pooling",
                do="Use smaller kernels, strides or pooling windows, or padding='SAME'.",
            )
    return sizes[0], sizes[1]


def _both(size: int | Pair) -> Pair:
    """One number for both axes as two."""
    return pair(size) if isinstance(size, Sequence) else (size, size)


def _check(channels: Sequence[int], others: Mapping[str, Sequence[Any]], padding: str, norm: str) -> None:
    for name, values in others.items():
        if len(values) != len(channels) or not all(_is_size(value, is_pair_fine=name != "pool") for value in values):
            raise UserError(
                got=f"{name}={tuple(values)} for {len(channels)} convolutions",
                wanted="one number ≥ 1 for each of the channels",
                do=f"Give {name} as many entries as channels={tuple(channels)}.",
            )
    require_choice("padding", padding, "SAME", "VALID")
    require_choice("norm", norm, "none", "layer")


def _is_size(value: Any, *, is_pair_fine: bool) -> bool:
    """Whether it is a number ≥ 1, or two of them where that is fine."""
    if isinstance(value, Sequence):
        return is_pair_fine and len(value) == 2 and min(value) >= 1
    return value >= 1
