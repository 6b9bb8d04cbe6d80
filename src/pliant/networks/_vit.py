"""The vision transformer."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import UserError, require_choice, require_range, require_whole
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    PROJECTIONS,
    Activation,
    Attention,
    Drop,
    FeedForward,
    KernelLayer,
    LayerNorm,
    NextKey,
    Piece,
    activation,
    attention_piece,
    dense_piece,
    dropping,
    feed_forward_piece,
    key_stream,
    multiplied,
    norm_piece,
    orthogonal,
    require_sizes,
    wiring_of,
)
from pliant.types import Features, Key, Network, Wiring


class ViTBlock(nnx.Module):
    """(`norm_attention` →) `attention`, then (`norm_mlp` →) `mlp`, each added to what comes in if `skip`."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        mlp_width: int,
        activation: Activation,
        has_norm: bool,
        skip: bool,
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.skip = skip
        self.scale = (width // num_heads) ** -0.5
        self.norm_attention = LayerNorm(width, rngs=rngs) if has_norm else None
        self.attention = Attention(
            width,
            num_heads,
            width // num_heads,
            initializers=dict.fromkeys(PROJECTIONS, orthogonal(1.0)),
            use_bias=use_bias,
            rngs=rngs,
        )
        self.norm_mlp = LayerNorm(width, rngs=rngs) if has_norm else None
        self.mlp = FeedForward(
            width,
            mlp_width,
            activation=activation,
            gated=False,
            use_bias=use_bias,
            up_init=orthogonal(activation.gain),
            down_init=orthogonal(1.0),
            rngs=rngs,
        )

    def __call__(
        self, x: Float[Array, "batch token width"], drop: Drop, next_key: NextKey
    ) -> tuple[Float[Array, "batch token width"], Float[Array, "batch token hidden"]]:
        """The block's output and the MLP's hidden units."""
        y = x if self.norm_attention is None else self.norm_attention(x)
        y = drop(self.attention(y, y, scale=self.scale))
        x = x + y if self.skip else y
        y = x if self.norm_mlp is None else self.norm_mlp(x)
        y, hidden = self.mlp(y, drop, next_key)
        return (x + drop(y) if self.skip else drop(y)), hidden


class ViT(nnx.Module):
    """`patch` (+ `class_token`) + `positions` → `block_i` (→ `norm`) → pooling → `head`; see `vit`."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        *,
        patch_size: int,
        width: int,
        num_blocks: int,
        num_heads: int,
        mlp_width: int,
        activation: Activation,
        has_norm: bool,
        skip: bool,
        pool: Literal["token", "mean"],
        dropout: float,
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.patch_size, self.num_blocks, self.pool, self.dropout = patch_size, num_blocks, pool, dropout
        height, wide, channels = input_shape
        num_tokens = -(-height // patch_size) * -(-wide // patch_size)
        self.patch = KernelLayer((patch_size**2 * channels, width), use_bias=use_bias, rngs=rngs)
        if pool == "token":
            num_tokens += 1
            self.class_token = nnx.Param(jnp.zeros((1, width)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (num_tokens, width)))
        for i in range(num_blocks):
            block = ViTBlock(
                width,
                num_heads=num_heads,
                mlp_width=mlp_width,
                activation=activation,
                has_norm=has_norm,
                skip=skip,
                use_bias=use_bias,
                rngs=rngs,
            )
            setattr(self, f"block_{i}", block)
        self.norm = LayerNorm(width, rngs=rngs) if has_norm else None
        self.head = nnx.Linear(width, num_outputs, use_bias=use_bias, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch height wide channels"], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output; the hidden units of every MLP, the output of every block, and what the head reads."""
        drop, next_key = dropping(self.dropout, train=train, key=key), key_stream(key, train=train)
        x = self.patch(_patches(inputs, self.patch_size))
        if self.pool == "token":
            token = jnp.broadcast_to(self.class_token[...][None], (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([token, x], axis=1)
        x = drop(x + self.positions[...][None])
        features = {}
        for i in range(self.num_blocks):
            x, features[f"block_{i}_mlp"] = getattr(self, f"block_{i}")(x, drop, next_key)
            features[f"block_{i}"] = x
        x = x[:, :1] if self.pool == "token" else x  # the norm acts on every token by itself
        x = x if self.norm is None else self.norm(x)
        features["pooled"] = x.mean(axis=1)
        return self.head(features["pooled"]), features


def vit(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    patch_size: int = 4,
    pad: bool = False,
    width: int = 256,
    num_blocks: int = 4,
    num_heads: int = 4,
    mlp_width: int | None = None,
    width_multiplier: float = 1.0,
    activation: str = "gelu",
    norm: Literal["none", "layer"] = "layer",
    skip: bool = True,
    pool: Literal["token", "mean"] = "token",
    dropout: float = 0.0,
    use_bias: bool = True,
) -> Network:
    r"""Builds a vision transformer with orthogonal initialisation: attention over the patches of an image.

    .. math::
       z = h_{l-1} + \mathrm{Attention}(\mathrm{norm}(h_{l-1})), \qquad
       h_l = z + \phi(\mathrm{norm}(z) W_{up}) W_{down}, \qquad
       f(x) = \mathrm{pool}(\mathrm{norm}(h_L)) W_{head}

    where h_0 are the patches times a kernel, behind a learned class token, plus learned positions, and

    .. math::
       \mathrm{Attention}(h) = \big[\mathrm{softmax}(Q_i K_i^\top / \sqrt{d}) V_i\big]_i W_{out}, \qquad
       Q = h W_{query},\ K = h W_{key},\ V = h W_{value}

    with heads i of width d. Biases are left out of the formulas. Every kernel is a matrix (in, out).

    Args:
      input_shape: (height, wide, channels) of one image.
      num_outputs: size of the output, ≥ 1.
      patch_size: pixels along a side of a patch, ≥ 1. Must divide height and width of the image, unless `pad`.
      pad: whether images are filled with zeros at the bottom and on the right up to a multiple of the patch size.
      width: size of a token, ≥ 1; a multiple of `num_heads`.
      num_blocks: attention and MLP pairs, ≥ 1.
      num_heads: heads of an attention, ≥ 1.
      mlp_width: hidden units of a block's MLP, ≥ 1; by default 4 · `width`, as in the reference.
      width_multiplier: > 0, what `mlp_width` is multiplied by, as for `mlp`; not the tokens' size.
      activation: of the MLPs, a name in `pliant.networks.ACTIVATIONS`. "maxmin" requires an even `mlp_width`.
      norm: "layer" puts a LayerNorm with scale and offset before every attention and MLP, and before the pooling.
      skip: whether attention and MLP are added to what they read. False leaves the sum out.
      pool: "token" has a class token, which the head reads; "mean" has none, and the head reads the tokens' mean.
      dropout: the probability, in [0, 1), with which an entry of the embedding, of an attention's output, of the hidden
        units and of an MLP's output is dropped in training. `apply` then requires a key.
      use_bias: whether dense layers and head have biases (initialised to 0).

    Returns:
      A `Network`. The features are `block_i_mlp`, an MLP's hidden units, (batch, tokens, mlp_width), `block_i`, what
      leaves the block, (batch, tokens, width), and `pooled`, what the head reads, (batch, width). The class token comes
      first. The wiring's layers are the hidden units of the MLPs; all else is carried on by the skips.

    Raises:
      UserError: for sizes that don't fit each other, and unknown names.

    Example:
      >>> network = vit((8, 8, 1), 10, width=16, num_blocks=1, mlp_width=32)
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 8, 8, 1)), train=False, key=None)
      >>> output.shape, features["block_0_mlp"].shape, params["block_0"]["attention"]["query"]["kernel"].shape
      ((5, 10), (5, 5, 32), (16, 16))

    References:
      Dosovitskiy et al., `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_, 2021. Equations 1 to 4.
      Rosseau et al. 2026 (arXiv 2606.09762), appendix B.7: 4 blocks of 4 heads on CIFAR-10; the widths are not stated.

    Differs from:
      The reference, whose kernels start from uniform Xavier weights and whose head starts from 0; here kernels are
      orthogonal, with the activation's gain before it and 1 elsewhere, the positions are normal with deviation 0.02 and
      the class token is 0. `transformers.ViTForImageClassification`, whose LayerNorm adds 1e-12 to the variance, not
      1e-6, whose "gelu" is the exact one, and which drops attention weights and not hidden units; with the same weights
      the outputs agree otherwise. No reference has `skip=False`, which is AdamO's ablation.
    """
    (mlp_width,) = multiplied((4 * width if mlp_width is None else mlp_width,), width_multiplier)
    chosen = _check(
        input_shape,
        num_outputs,
        patch_size=patch_size,
        pad=pad,
        width=width,
        num_blocks=num_blocks,
        num_heads=num_heads,
        mlp_width=mlp_width,
        activation_name=activation,
        norm=norm,
        pool=pool,
        dropout=dropout,
    )
    height, wide, channels = input_shape
    has_norm = norm == "layer"

    def make(rngs: nnx.Rngs) -> ViT:
        return ViT(
            (height, wide, channels),
            num_outputs,
            patch_size=patch_size,
            width=width,
            num_blocks=num_blocks,
            num_heads=num_heads,
            mlp_width=mlp_width,
            activation=chosen,
            has_norm=has_norm,
            skip=skip,
            pool=pool,
            dropout=dropout,
            use_bias=use_bias,
            rngs=rngs,
        )

    wiring = _wiring(
        num_blocks, mlp_width, activation, chosen, has_norm=has_norm, has_token=pool == "token", use_bias=use_bias
    )
    return from_nnx(make, wiring)


def lyle_vit(
    input_shape: Sequence[int], num_outputs: int, *, dropout: float = 0.1, norm: Literal["none", "layer"] = "layer"
) -> Network:
    """Builds the transformer of Lyle et al. 2023: one block, patches of 3, width 256, an MLP of 1,024, dropout.

    Args:
      input_shape: (height, wide, channels) of one image; filled with zeros up to a multiple of 3.
      num_outputs: size of the output, ≥ 1.
      dropout: as in `vit`.
      norm: as in `vit`.

    Returns:
      A `Network`, see `vit`.

    Raises:
      UserError: as `vit`.

    Example:
      >>> jax.eval_shape(lyle_vit((28, 28, 1), 10).init, jax.random.key(0))[0]["positions"].shape
      (101, 256)

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023.
      Appendix A.2. The number of heads and what becomes of the last pixels are not stated: 8, and padding.

    Differs from:
      See `vit`.
    """
    return vit(
        input_shape,
        num_outputs,
        patch_size=3,
        pad=True,
        num_blocks=1,
        num_heads=8,
        mlp_width=1024,
        dropout=dropout,
        norm=norm,
    )


def _patches(
    images: Float[Array, "batch height wide channels"], patch_size: int
) -> Float[Array, "batch patches pixels"]:
    """The images as rows of patches, top left first; a patch's pixels are in the order row, column, channel."""
    batch, height, wide, channels = images.shape
    below, right = -height % patch_size, -wide % patch_size
    if below or right:
        images = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))
    rows, columns = (height + below) // patch_size, (wide + right) // patch_size
    tiles = images.reshape(batch, rows, patch_size, columns, patch_size, channels).swapaxes(2, 3)
    return tiles.reshape(batch, rows * columns, patch_size**2 * channels)


def _wiring(
    num_blocks: int, mlp_width: int, name: str, chosen: Activation, *, has_norm: bool, has_token: bool, use_bias: bool
) -> Wiring:
    pieces = [dense_piece("patch", use_bias=use_bias, role="embed")]
    pieces.append(Piece(roles=dict.fromkeys(["positions", *(["class_token"] if has_token else [])], "embed")))
    for i in range(num_blocks):
        mlp = feed_forward_piece(
            f"block_{i}_mlp",
            f"block_{i}/mlp",
            mlp_width,
            activation=name,
            chosen=chosen,
            gated=False,
            use_bias=use_bias,
            up_init=orthogonal(chosen.gain),
        )
        pieces += [mlp, attention_piece(f"block_{i}/attention", use_bias=use_bias)]
    if has_norm:
        norms = [f"block_{i}/norm_{part}" for i in range(num_blocks) for part in ("attention", "mlp")]
        pieces.append(norm_piece("norm", *norms))
    return wiring_of(pieces, "pooled", use_bias=use_bias)


def _check(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    patch_size: int,
    pad: bool,
    width: int,
    num_blocks: int,
    num_heads: int,
    mlp_width: int,
    activation_name: str,
    norm: str,
    pool: str,
    dropout: float,
) -> Activation:
    chosen = activation(activation_name)
    require_sizes(input_shape, num_outputs, images=True)
    sizes = {"patch_size": patch_size, "width": width, "num_blocks": num_blocks, "num_heads": num_heads}
    for name, size in (sizes | {"mlp_width": mlp_width}).items():
        require_whole(name, size, 1, do="Give a positive number.")
    require_choice("norm", norm, "layer", "none")
    require_choice("pool", pool, "token", "mean")
    require_range("dropout", dropout, 0, 0.999, do="0.1 is usual; 0 drops nothing.")
    height, wide = input_shape[:2]
    if not pad and (height % patch_size or wide % patch_size):
        raise UserError(
            got=f"images of {height} × {wide} pixels with patch_size={patch_size}",
            wanted="a patch size that divides both sides",
            do="Choose another, or fill the images up with zeros: pad=True.",
        )
    if width % num_heads:
        raise UserError(
            got=f"width={width} with num_heads={num_heads}",
            wanted="a width that is a multiple of the number of heads",
            do=f"Choose width={-(-width // num_heads) * num_heads}.",
        )
    if mlp_width % chosen.group_size:
        raise UserError(
            got=f"mlp_width={mlp_width} with activation {activation_name!r}",
            wanted=f"a multiple of {chosen.group_size}",
            do=f"Choose {-(-mlp_width // chosen.group_size) * chosen.group_size} instead.",
        )
    return chosen
