"""The residual network."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    Activation,
    BatchNorm,
    KernelLayer,
    LayerActivation,
    LayerNorm,
    NextKey,
    Owned,
    Piece,
    activation_for,
    activation_roles,
    key_stream,
    orthogonal,
    owned,
    require_sizes,
    wiring_of,
)
from pliant.types import Features, HiddenLayer, Key, Network, Slot, Wiring
from pliant.xla.convolution import max_pool

Norm: TypeAlias = Literal["batch", "layer", "none"]
Stem: TypeAlias = Literal["cifar", "imagenet"]


class _Style(NamedTuple):
    """What all convolutions have in common."""

    activation: Activation
    norm: Norm
    use_bias: bool
    """Of the convolutions: no norm follows, whose offset would do the same."""


class BasicBlock(nnx.Module):
    """`conv_0` → `activation_0` → `conv_1`, plus the input or `shortcut`, → `activation_1`; norms behind kernels."""

    def __init__(self, in_features: int, width: int, stride: int, *, style: _Style, rngs: nnx.Rngs):
        self.conv_0 = _conv(in_features, width, 3, stride, style, rngs)
        self.norm_0 = _norm(width, style, rngs)
        self.activation_0 = LayerActivation(style.activation)
        self.conv_1 = _conv(width, width, 3, 1, style, rngs)
        self.norm_1 = _norm(width, style, rngs)
        self.activation_1 = LayerActivation(style.activation)
        has_shortcut = stride != 1 or in_features != width
        self.shortcut = _conv(in_features, width, 1, stride, style, rngs) if has_shortcut else None
        self.shortcut_norm = _norm(width, style, rngs) if has_shortcut else None

    def __call__(
        self, x: Float[Array, "batch height wide channels"], next_key: NextKey, *, train: bool
    ) -> tuple[Float[Array, "batch new_height new_wide width"], Float[Array, "batch new_height new_wide width"]]:
        """The block's output and its inner hidden layer, post-activation."""
        inner = self.activation_0(_normalized(self.norm_0, self.conv_0(x), train), next_key)
        y = _normalized(self.norm_1, self.conv_1(inner), train)
        if self.shortcut is not None:
            x = _normalized(self.shortcut_norm, self.shortcut(x), train)
        return self.activation_1(x + y, next_key), inner


class ResNet(nnx.Module):
    """`stem` (→ `stem_norm`) → `stem_activation` (→ pooling) → `block_i` → mean → `head`; see `resnet18`."""

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        widths_and_strides: Sequence[tuple[int, int]],
        *,
        stem: Stem,
        style: _Style,
        head_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.pools = stem == "imagenet"
        self.num_blocks = len(widths_and_strides)
        width = widths_and_strides[0][0]
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.stem = _conv(in_features, width, size, stride, style, rngs)
        self.stem_norm = _norm(width, style, rngs)
        self.stem_activation = LayerActivation(style.activation)
        for i, (next_width, stride) in enumerate(widths_and_strides):
            setattr(self, f"block_{i}", BasicBlock(width, next_width, stride, style=style, rngs=rngs))
            width = next_width
        self.head = nnx.Linear(width, num_outputs, use_bias=head_bias, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch height wide channels"], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output; what leaves the stem, the inside and the outside of every block; what the head reads."""
        next_key = key_stream(key, train=train)
        x = self.stem_activation(_normalized(self.stem_norm, self.stem(inputs), train), next_key)
        if self.pools:
            x = max_pool(x, 3, stride=2, padding=1)
        features = {"stem": x}
        for i in range(self.num_blocks):
            x, features[f"block_{i}_inner"] = getattr(self, f"block_{i}")(x, next_key, train=train)
            features[f"block_{i}"] = x
        features["pooled"] = x.mean(axis=(1, 2))
        return self.head(features["pooled"]), features


def resnet18(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    stem: Stem = "cifar",
    norm: Norm = "batch",
    width: int = 64,
    num_blocks: Sequence[int] = (2, 2, 2, 2),
    activation: str = "relu",
    use_bias: bool = True,
    gain: float | None = None,
) -> Network:
    r"""Builds ResNet-18: residual blocks of two convolutions, with orthogonal initialisation.

    .. math:: z = \phi(\mathrm{norm}(K_0 * h_{l-1})), \qquad
              h_l = \phi(\mathrm{norm}(K_1 * z) + s(h_{l-1})), \qquad
              f(x) = \mathrm{mean}_{i,j}(h_L) W_{head} + b_{head}

    where the kernels are 3 × 3, s is the identity, or, where the size changes, a 1 × 1 convolution with a norm of its
    own. Each stage of blocks begins with stride 2 and has twice the width of the one before; the first has stride 1.

    Args:
      input_shape: (height, wide, channels) of one image.
      num_outputs: size of the output, ≥ 1.
      stem: "cifar" begins with a 3 × 3 convolution of stride 1, for images of about 32 × 32; "imagenet" with 7 × 7 of
        stride 2 and the maximum over 3 × 3 positions with stride 2, which leaves a sixteenth of the positions.
      norm: behind every convolution; "batch" normalises each channel over examples and positions, in eval mode with
        running statistics; "layer" the channels of each position; both with scale and offset.
      width: channels of the first stage, ≥ 1.
      num_blocks: blocks of each stage, ≥ 1; the name of the network counts the layers of the default.
      activation: a name in `pliant.networks.ACTIVATIONS` that keeps the width. "maxmin" requires an even width.
      use_bias: whether the head has a bias, and the convolutions if no norm follows (initialised to 0).
      gain: singular values of the convolutions' kernels at the start, as matrices of shape (rows·columns·in, out), > 0;
        by default what keeps the activation's scale. The head starts with 1.

    Returns:
      A `Network`. The features are `stem`, what the first block reads, `block_i_inner` and `block_i`, the inside (z)
      and the output of each block, all (batch, height, wide, channels), and `pooled`, what the head reads, (batch,
      channels). The wiring's layers are the blocks' insides; all else is carried on by the skips. With norm "batch" the
      state has the running mean and variance of every norm; `apply` with `train=True` moves them by a tenth of the way
      to those of the batch.

    Raises:
      UserError: for sizes out of range, activations that change the width, and unknown names.

    Example:
      >>> network = resnet18((16, 16, 3), 10, width=4, num_blocks=(1, 1))
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 16, 16, 3)), train=False, key=None)
      >>> output.shape, features["block_1"].shape, features["pooled"].shape, state["stem_norm"]["mean"].shape
      ((5, 10), (5, 8, 8, 8), (5, 8), (4,))

    References:
      He, Zhang, Ren, Sun, `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_, 2016.
      Table 1, 18 layers; the shortcuts are option B of section 4.1. The stem for small images is that of section 4.2.

    Differs from:
      The reference and torchvision, whose kernels start normal with variance 2 over the fan-out; torchvision's head
      starts uniform. PyTorch's BatchNorm divides the variance that enters the running one by n − 1, not by n, the
      number of examples times positions; with the same statistics the outputs agree. Without a norm the activations'
      mean square about doubles from block to block at the start. An intervention that resets units leaves their running
      statistics to follow.
    """
    chosen = _check(input_shape, num_outputs, stem, norm, width, num_blocks, activation, gain)
    style = _Style(chosen, norm, use_bias and norm == "none")
    blocks = _blocks(width, num_blocks)
    in_features = input_shape[-1]

    def make(rngs: nnx.Rngs) -> ResNet:
        return ResNet(in_features, num_outputs, blocks, stem=stem, style=style, head_bias=use_bias, rngs=rngs)

    return from_nnx(make, _wiring(blocks, activation, style, head_bias=use_bias))


def _blocks(width: int, num_blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Width and stride of every block."""
    return [
        (width * 2**stage, 2 if stage > 0 and block == 0 else 1)
        for stage, blocks in enumerate(num_blocks)
        for block in range(blocks)
    ]


def _conv(in_features: int, width: int, size: int, stride: int, style: _Style, rngs: nnx.Rngs) -> KernelLayer:
    """A convolution whose kernel's centre starts on the first pixel."""
    around = (size // 2, size // 2)
    return KernelLayer(
        (size, size, in_features, width),
        strides=stride,
        padding=(around, around),
        use_bias=style.use_bias,
        kernel_init=orthogonal(style.activation.gain),
        rngs=rngs,
    )


def _norm(width: int, style: _Style, rngs: nnx.Rngs) -> nnx.Module | None:
    if style.norm == "batch":
        return BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
    return LayerNorm(width, rngs=rngs) if style.norm == "layer" else None


def _normalized(norm: nnx.Module | None, x: Array, train: bool) -> Array:
    if isinstance(norm, BatchNorm):
        return norm(x, use_running_average=not train)
    return norm(x) if isinstance(norm, LayerNorm) else x


def _wiring(blocks: Sequence[tuple[int, int]], name: str, style: _Style, *, head_bias: bool) -> Wiring:
    init, has_norm = orthogonal(style.activation.gain), style.norm != "none"

    def own(path: str, norm: str) -> Owned:
        is_batch = style.norm == "batch"
        return owned(path, init, use_bias=style.use_bias, norm=norm if has_norm else None, has_statistics=is_batch)

    def convolution(path: str, norm: str) -> Piece:
        return Piece(roles=own(path, norm).roles, biases=own(path, norm).biases)

    def activations(*paths: str) -> Piece:
        return Piece(roles={leaf: role for p in paths for leaf, role in activation_roles(p, style.activation).items()})

    pieces = [convolution("stem", "stem_norm"), activations("stem_activation")]
    before = blocks[0][0]
    for i, (width, stride) in enumerate(blocks):
        block = f"block_{i}"
        inner = own(f"{block}/conv_0", f"{block}/norm_0")
        readers = (Slot(f"{block}/conv_1/kernel", axis=-2),)
        layer = HiddenLayer(f"{block}_inner", width, inner.feeds, readers, name, style.activation.elementwise)
        pieces.append(Piece((layer._replace(statistics=inner.statistics),), inner.roles, inner.biases))
        pieces.append(convolution(f"{block}/conv_1", f"{block}/norm_1"))
        pieces.append(activations(f"{block}/activation_0", f"{block}/activation_1"))
        if stride != 1 or before != width:
            pieces.append(convolution(f"{block}/shortcut", f"{block}/shortcut_norm"))
        before = width
    return wiring_of(pieces, "pooled", use_bias=head_bias)


def _check(
    input_shape: Sequence[int],
    num_outputs: int,
    stem: str,
    norm: str,
    width: int,
    num_blocks: Sequence[int],
    name: str,
    gain: float | None,
) -> Activation:
    require_sizes(input_shape, num_outputs, images=True)
    if not num_blocks or min(num_blocks) < 1:
        raise UserError(
            got=f"num_blocks={tuple(num_blocks)}",
            wanted="at least one stage, of at least one block each",
            do="Leave it out for (2, 2, 2, 2).",
        )
    require_choice("stem", stem, "cifar", "imagenet")
    require_choice("norm", norm, "batch", "layer", "none")
    chosen = activation_for(name, (width,), gain)
    if chosen.expansion != 1:
        raise UserError(
            got=f"activation {name!r} in a residual network",
            wanted="one that keeps the width, since the skips add",
            do="Use 'relu' or 'maxmin', or the network 'cnn'.",
        )
    return chosen
