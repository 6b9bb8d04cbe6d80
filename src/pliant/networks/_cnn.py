"""The convolutional network: convolutions, then dense layers."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice
from pliant.networks._activations import Activation
from pliant.networks._functional import from_nnx
from pliant.networks._layer_activation import LayerActivation, NextKey, activation_roles, key_stream
from pliant.networks._linear import Linear, LinearKind, linear_layers, through
from pliant.networks._norms import LayerNorm
from pliant.networks._orthogonal import orthogonal
from pliant.networks._wiring import activation_for, multiplied, output_head, require_sizes
from pliant.types import Features, HiddenLayer, Key, Network, Role, Slot, Wiring
from pliant.xla.convolution import Padding, max_pool


class _Conv(NamedTuple):
    """A convolution with what is around it."""

    channels: int
    kernel_size: int
    stride: int
    pool: int


class _Style(NamedTuple):
    """What all hidden layers have in common."""

    activation: Activation
    has_norm: bool
    use_bias: bool
    padding: Padding
    linears: tuple[Linear, ...]
    """Of the convolutions and then of the dense layers."""


class CNN(nnx.Module):
    """`conv_i` (→ `conv_norm_i`) → `conv_activation_i` → pooling; the same with `dense_`, without pooling; `head`."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        convs: Sequence[_Conv],
        widths: Sequence[int],
        *,
        style: _Style,
        rngs: nnx.Rngs,
    ):
        self.pools = tuple(layer.pool for layer in convs)
        self.depth = len(widths)
        in_features = input_shape[-1]
        for i, layer in enumerate(convs):
            size = (layer.kernel_size, layer.kernel_size)
            new = style.linears[i].conv(
                in_features, layer.channels, size, strides=layer.stride, padding=style.padding, rngs=rngs
            )
            setattr(self, f"conv_{i}", new)
            if style.has_norm:
                setattr(self, f"conv_norm_{i}", LayerNorm(layer.channels, rngs=rngs))
            setattr(self, f"conv_activation_{i}", LayerActivation(style.activation))
            in_features = layer.channels * style.activation.expansion
        height, wide = _size_behind(input_shape, convs, style.padding)
        in_features *= height * wide
        for i, width in enumerate(widths):
            setattr(self, f"dense_{i}", style.linears[len(convs) + i].dense(in_features, width, rngs=rngs))
            if style.has_norm:
                setattr(self, f"dense_norm_{i}", LayerNorm(width, rngs=rngs))
            setattr(self, f"dense_activation_{i}", LayerActivation(style.activation))
            in_features = width * style.activation.expansion
        self.head = nnx.Linear(in_features, num_outputs, use_bias=style.use_bias, kernel_init=orthogonal(), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch height wide channels"], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output and what every hidden layer hands on."""
        next_key = key_stream(key, train=train)
        x, features = inputs, {}
        for i, pool in enumerate(self.pools):
            x = max_pool(self._hidden("conv", i, x, next_key, train=train), pool)
            features[f"conv_{i}"] = x
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for i in range(self.depth):
            x = features[f"dense_{i}"] = self._hidden("dense", i, x, next_key, train=train)
        return self.head(x), features

    def _hidden(self, kind: str, i: int, x: Array, next_key: NextKey, *, train: bool) -> Array:
        x = through(getattr(self, f"{kind}_{i}"), x, train=train)
        if hasattr(self, f"{kind}_norm_{i}"):
            x = getattr(self, f"{kind}_norm_{i}")(x)
        activate: LayerActivation = getattr(self, f"{kind}_activation_{i}")
        return activate(x, next_key)


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
      activation: as for `mlp`. "maxmin" wants even channels and widths.
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
    convs = [_Conv(*sizes) for sizes in zip(channels, kernel_sizes, strides, pool, strict=True)]
    style = _Style(chosen, norm == "layer", use_bias, padding, linears)
    height, wide, in_features = input_shape
    _size_behind((height, wide, in_features), convs, padding)

    def make(rngs: nnx.Rngs) -> CNN:
        return CNN((height, wide, in_features), num_outputs, convs, widths, style=style, rngs=rngs)

    return from_nnx(make, _wiring((height, wide, in_features), convs, widths, activation, style))


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


def _size_behind(input_shape: tuple[int, int, int], convs: Sequence[_Conv], padding: Padding) -> tuple[int, int]:
    """Height and width of the images behind all convolutions and poolings.

    Raises:
      UserError: if nothing is left of them.
    """
    sizes = list(input_shape[:2])
    for i, layer in enumerate(convs):
        for axis, size in enumerate(sizes):
            size = size if padding == "SAME" else size - layer.kernel_size + 1
            sizes[axis] = -(-size // layer.stride) // layer.pool
        if min(sizes) < 1:
            raise UserError(
                got=f"images of {input_shape[0]} × {input_shape[1]}, of which conv_{i} leaves nothing",
                wanted="at least one position behind every convolution and pooling",
                do="Use smaller kernels, strides or pooling windows, or padding='SAME'.",
            )
    return sizes[0], sizes[1]


def _wiring(
    input_shape: tuple[int, int, int], convs: Sequence[_Conv], widths: Sequence[int], name: str, style: _Style
) -> Wiring:
    height, wide = _size_behind(input_shape, convs, style.padding)
    hidden = [("conv", i, layer.channels) for i, layer in enumerate(convs)]
    hidden += [("dense", i, width) for i, width in enumerate(widths)]
    modules = [f"{kind}_{i}" for kind, i, _ in hidden] + ["head"]
    areas = [layer.kernel_size**2 for layer in convs] + [1] * len(widths)
    inputs = input_shape[-1] if convs else math.prod(input_shape)
    roles: dict[str, Role] = {}
    layers = []
    for i, (kind, number, width) in enumerate(hidden):
        norm = f"{kind}_norm_{number}" if style.has_norm else None
        own = style.linears[i].owned(modules[i], areas[i] * inputs, norm=norm)
        tiles = style.activation.expansion * (height * wide if i == len(convs) - 1 else 1)
        readers = (Slot(f"{modules[i + 1]}/kernel", axis=-2, tiles=tiles),)
        layers.append(
            HiddenLayer(
                modules[i],
                width,
                own.feeds,
                readers,
                name,
                style.activation.elementwise,
                statistics=own.statistics,
                state=own.state,
            )
        )
        roles |= own.roles | activation_roles(f"{kind}_activation_{number}", style.activation)
        inputs = width * tiles
    heads, of_head = output_head(layers[-1].name if layers else None, use_bias=style.use_bias)
    roles |= of_head
    indirect = frozenset(f"{modules[i]}/kernel" for i, linear in enumerate(style.linears) if not linear.is_plain)
    return Wiring(tuple(layers), roles, heads, indirect)


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
