"""The text-to-text transformer T5: an encoder-decoder with relative positions."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from pliant.errors import UserError, require_range, require_whole
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    Activation,
    Attention,
    Drop,
    FeedForward,
    Initializer,
    KernelLayer,
    NextKey,
    Piece,
    RMSNorm,
    activation,
    attention_piece,
    dropping,
    feed_forward_piece,
    key_stream,
    multiplied,
    norm_piece,
    wiring_of,
)
from pliant.types import Features, Key, Network, Text, TextLengths, Wiring


class T5Block(nnx.Module):
    """`norm_attention` → `attention` (→ `norm_cross` → `cross`) → `norm_mlp` → `mlp`, each added to what it reads."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        head_width: int,
        mlp_width: int,
        activation: Activation,
        gated: bool,
        has_cross: bool,
        rngs: nnx.Rngs,
    ):
        def attention() -> Attention:
            initializers = {
                "query": _normal(width * head_width),
                "key": _normal(width),
                "value": _normal(width),
                "out": _normal(num_heads * head_width),
            }
            return Attention(width, num_heads, head_width, initializers=initializers, use_bias=False, rngs=rngs)

        self.norm_attention = RMSNorm(width, rngs=rngs)
        self.attention = attention()
        self.norm_cross = RMSNorm(width, rngs=rngs) if has_cross else None
        self.cross = attention() if has_cross else None
        self.norm_mlp = RMSNorm(width, rngs=rngs)
        self.mlp = FeedForward(
            width,
            mlp_width,
            activation=activation,
            gated=gated,
            use_bias=False,
            up_init=_normal(width),
            down_init=_normal(mlp_width * activation.expansion),
            rngs=rngs,
        )

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch source width"] | None,
        *,
        bias: Float[Array, "1 heads length length"],
        mask: Bool[Array, "#batch 1 #length length"],
        memory_mask: Bool[Array, "batch 1 1 source"],
        drop: Drop,
        next_key: NextKey,
    ) -> tuple[Float[Array, "batch length width"], Float[Array, "batch length hidden"]]:
        """The block's output and the MLP's hidden units."""
        y = self.norm_attention(x)
        x = x + drop(self.attention(y, y, bias=bias, mask=mask, drop=drop))
        if self.cross is not None and memory is not None:
            x = x + drop(self.cross(self.norm_cross(x), memory, mask=memory_mask, drop=drop))
        y, hidden = self.mlp(self.norm_mlp(x), drop, next_key)
        return x + drop(y), hidden


class T5Stack(nnx.Module):
    """`block_i` → `norm`, with one `position_bias` (bucket, head) for the self-attention of all blocks."""

    def __init__(
        self,
        num_blocks: int,
        width: int,
        *,
        num_heads: int,
        head_width: int,
        mlp_width: int,
        num_buckets: int,
        max_distance: int,
        activation: Activation,
        gated: bool,
        is_decoder: bool,
        rngs: nnx.Rngs,
    ):
        self.num_blocks, self.max_distance, self.is_decoder = num_blocks, max_distance, is_decoder
        self.position_bias = nnx.Param(_normal(width)(rngs.params(), (num_buckets, num_heads), jnp.float32))
        for i in range(num_blocks):
            block = T5Block(
                width,
                num_heads=num_heads,
                head_width=head_width,
                mlp_width=mlp_width,
                activation=activation,
                gated=gated,
                has_cross=is_decoder,
                rngs=rngs,
            )
            setattr(self, f"block_{i}", block)
        self.norm = RMSNorm(width, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        memory: Float[Array, "batch source width"] | None,
        memory_mask: Bool[Array, "batch 1 1 source"],
        drop: Drop,
        next_key: NextKey,
    ) -> tuple[Float[Array, "batch length width"], list[Float[Array, "batch length hidden"]]]:
        """The stack's output and the hidden units of its MLPs; the encoder reads where `memory_mask` is True."""
        length = x.shape[1]
        table = self.position_bias[...]
        buckets = relative_buckets(length, table.shape[0], self.max_distance, bidirectional=not self.is_decoder)
        bias = table[buckets].transpose(2, 0, 1)[None]
        mask = jnp.asarray(np.tri(length, dtype=bool)[None, None]) if self.is_decoder else memory_mask
        x = drop(x)
        hiddens = []
        for i in range(self.num_blocks):
            block = getattr(self, f"block_{i}")
            x, hidden = block(x, memory, bias=bias, mask=mask, memory_mask=memory_mask, drop=drop, next_key=next_key)
            hiddens.append(hidden)
        return drop(self.norm(x)), hiddens


class T5(nnx.Module):
    """`tokens` → `encoder`, `tokens` → `decoder` → `head`, or the transposed `tokens` if there is none; see `t5`."""

    def __init__(
        self,
        num_outputs: int,
        *,
        width: int,
        num_heads: int,
        head_width: int,
        mlp_width: int,
        num_encoder_blocks: int,
        num_decoder_blocks: int,
        num_buckets: int,
        max_distance: int,
        activation: Activation,
        gated: bool,
        dropout: float,
        tie_embeddings: bool,
        rngs: nnx.Rngs,
    ):
        self.width, self.dropout = width, dropout
        self.tokens = nnx.Embed(num_outputs, width, embedding_init=jax.nn.initializers.normal(1.0), rngs=rngs)

        def stack(num_blocks: int, *, is_decoder: bool) -> T5Stack:
            return T5Stack(
                num_blocks,
                width,
                num_heads=num_heads,
                head_width=head_width,
                mlp_width=mlp_width,
                num_buckets=num_buckets,
                max_distance=max_distance,
                activation=activation,
                gated=gated,
                is_decoder=is_decoder,
                rngs=rngs,
            )

        self.encoder = stack(num_encoder_blocks, is_decoder=False)
        self.decoder = stack(num_decoder_blocks, is_decoder=True)
        self.head = (
            None
            if tie_embeddings
            else KernelLayer((width, num_outputs), use_bias=False, kernel_init=_normal(width), rngs=rngs)
        )

    def __call__(
        self, inputs: Text, *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch target out"], Features]:
        """The logits of every next token; the MLPs' hidden units, and the decoder's state that the head reads."""
        drop, next_key = dropping(self.dropout, train=train, key=key), key_stream(key, train=train)
        is_text = (inputs.source != 0)[:, None, None]
        memory, encoded = self.encoder(self.tokens(inputs.source), None, is_text, drop, next_key)
        state, decoded = self.decoder(self.tokens(inputs.decoder), memory, is_text, drop, next_key)
        features = {f"encoder_{i}_mlp": hidden for i, hidden in enumerate(encoded)}
        features |= {f"decoder_{i}_mlp": hidden for i, hidden in enumerate(decoded)}
        if self.head is None:
            features["decoder"] = state * self.width**-0.5
            return self.tokens.attend(features["decoder"]), features
        features["decoder"] = state
        return self.head(state), features


def t5(
    input_shape: TextLengths | Sequence[int],
    num_outputs: int,
    *,
    width: int = 256,
    num_heads: int = 4,
    head_width: int = 64,
    mlp_width: int = 1024,
    width_multiplier: float = 1.0,
    num_encoder_blocks: int = 1,
    num_decoder_blocks: int = 1,
    num_buckets: int = 32,
    max_distance: int = 128,
    activation: str = "relu",
    gated: bool = False,
    dropout: float = 0.0,
    tie_embeddings: bool = True,
) -> Network:
    r"""Builds a T5: a transformer that reads a text and writes another, token by token.

    A block adds to h what its parts make of it, one after the other: self-attention, in the decoder attention to what
    the encoder has read, and an MLP. There are no biases, and every kernel is a matrix (in, out).

    .. math::
       h \leftarrow h + \mathrm{Attention}(\mathrm{norm}(h)), \qquad
       h \leftarrow h + \phi(\mathrm{norm}(h) W_{up}) W_{down}, \qquad
       \mathrm{norm}(h) = \gamma\, h / \sqrt{\mathrm{mean}(h^2) + 10^{-6}}

    .. math::
       \mathrm{Attention}(h) = \big[\mathrm{softmax}(Q_i K_i^\top + B_i) V_i\big]_i W_{out}, \qquad
       B_{i,qk} = b[\mathrm{bucket}(k - q), i]

    Scores are not divided by a root. Self-attention has a learned number b for each head i and each bucket of
    distances, shared by the blocks of encoder or decoder; the nearest distances have a bucket each, farther ones share
    theirs, ever more of them. Tokens 0 of the source are padding, and nothing reads them. A position of the decoder
    reads itself and those before it. The inputs of `apply` are a `pliant.types.Text`.

    Args:
      input_shape: (source, target) lengths in tokens, each ≥ 1. The parameters don't depend on them.
      num_outputs: size of the vocabulary, ≥ 1; token 0 is padding, and the decoder's first input.
      width: size of a token, ≥ 1.
      num_heads: heads of an attention, ≥ 1.
      head_width: size of a head, ≥ 1; `num_heads` · `head_width` may differ from `width`.
      mlp_width: hidden units of a block's MLP, ≥ 1.
      width_multiplier: > 0, what `mlp_width` is multiplied by, as for `mlp`; not the tokens' size.
      num_encoder_blocks: blocks that read, ≥ 1.
      num_decoder_blocks: blocks that write, ≥ 1.
      num_buckets: of distances, ≥ 4; the encoder has half of them for each direction, and leaves out the last of an odd
        number.
      max_distance: from which on all distances are in one bucket, ≥ `num_buckets` // 2.
      activation: of the MLPs, a name in `pliant.networks.ACTIVATIONS`.
      gated: whether the MLP's hidden units are φ(norm(h) W_gate) · norm(h) W_up, as in T5 v1.1 with "gelu".
      dropout: the probability, in [0, 1), with which an entry of the embeddings, the attention weights, the hidden
        units and the outputs of attentions, MLPs and stacks is dropped in training. `apply` then requires a key.
      tie_embeddings: whether the head is the transposed token embedding, as in T5; it then reads the decoder's state
        divided by √width. False has a head of its own, as in T5 v1.1.

    Returns:
      A `Network` with logits (batch, target, num_outputs) as output. The features are `encoder_i_mlp` and
      `decoder_i_mlp`, the MLPs' hidden units, (batch, length, mlp_width), and `decoder`, what the head reads, (batch,
      target, width). The wiring's layers are the hidden units of the MLPs; all else is carried on by the skips.

    Raises:
      UserError: for sizes out of range, or an activation that cannot be gated.

    Example:
      >>> from pliant.types import Text
      >>> network = t5((6, 4), 10, width=16, num_heads=2, head_width=8, mlp_width=32)
      >>> params, state = network.init(jax.random.key(0))
      >>> text = Text(source=jnp.array([[3, 4, 5, 1, 0, 0]]), decoder=jnp.array([[0, 7, 8, 9]]))
      >>> logits, features, _ = network.apply(params, state, text, train=False, key=None)
      >>> logits.shape, features["encoder_0_mlp"].shape, params["tokens"]["embedding"].shape
      ((1, 4, 10), (1, 6, 32), (10, 16))

    References:
      Raffel et al., `Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer
      <https://arxiv.org/abs/1910.10683>`_, 2020. Section 2.1.
      `Do Neural Networks Lose Plasticity in a Gradually Changing World?`, 2026. Section 5.1: the first block of T5;
      width and heads are those of its authors' code, which starts from scratch.

    Differs from:
      The other networks of this folder, which start orthogonal: this one starts as T5 does, from normal numbers of mean
      0 whose deviation is 1 for the embeddings, (width · head_width)^−½ for the queries, and the inverse root of the
      number of inputs elsewhere (for the positions' bias, of the width). `transformers.T5ForConditionalGeneration`,
      whose separate head starts with deviation 1, not width^−½, and which pads the source by a mask that is handed in;
      with the same weights the outputs agree. The features of padding are not 0; leave its positions out of averages
      if that matters.
    """
    (mlp_width,) = multiplied((mlp_width,), width_multiplier)
    chosen = _check(
        input_shape,
        num_outputs,
        width=width,
        num_heads=num_heads,
        head_width=head_width,
        mlp_width=mlp_width,
        num_encoder_blocks=num_encoder_blocks,
        num_decoder_blocks=num_decoder_blocks,
        num_buckets=num_buckets,
        max_distance=max_distance,
        activation_name=activation,
        gated=gated,
        dropout=dropout,
    )

    def make(rngs: nnx.Rngs) -> T5:
        return T5(
            num_outputs,
            width=width,
            num_heads=num_heads,
            head_width=head_width,
            mlp_width=mlp_width,
            num_encoder_blocks=num_encoder_blocks,
            num_decoder_blocks=num_decoder_blocks,
            num_buckets=num_buckets,
            max_distance=max_distance,
            activation=chosen,
            gated=gated,
            dropout=dropout,
            tie_embeddings=tie_embeddings,
            rngs=rngs,
        )

    wiring = _wiring(
        {"encoder": num_encoder_blocks, "decoder": num_decoder_blocks},
        width,
        mlp_width,
        activation,
        chosen,
        gated=gated,
        has_head=not tie_embeddings,
    )
    return from_nnx(make, wiring)


def relative_buckets(
    length: int, num_buckets: int, max_distance: int, *, bidirectional: bool
) -> Int[np.ndarray, "length length"]:
    """The bucket of every (query, key): half of them are one distance each, the others grow up to `max_distance`.

    With `bidirectional` the first half of the buckets is for keys at or before the query, the second for those behind
    it; without, keys behind the query share the bucket of distance 0.
    """
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    distance = np.abs(offset) if bidirectional else np.maximum(-offset, 0)
    num_ways = num_buckets // 2 if bidirectional else num_buckets
    num_exact = num_ways // 2
    # In float32, as in the published models: a distance on the border of two buckets falls where it fell in training.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(num_exact))
    share = ratio / np.float32(math.log(max_distance / num_exact)) if max_distance > num_exact else np.ones_like(ratio)
    far = num_exact + (share * (num_ways - num_exact)).astype(int)
    bucket = np.where(distance < num_exact, distance, np.minimum(far, num_ways - 1))
    return bucket + (num_ways * (offset > 0) if bidirectional else 0)


def _normal(num_inputs: int) -> Initializer:
    """Normal numbers of mean 0 and variance 1 over `num_inputs`."""
    return jax.nn.initializers.normal(num_inputs**-0.5)


def _wiring(
    num_blocks: dict[str, int],
    width: int,
    mlp_width: int,
    name: str,
    chosen: Activation,
    *,
    gated: bool,
    has_head: bool,
) -> Wiring:
    pieces = [Piece(roles={"tokens/embedding": "embed"})]
    for stack, depth in num_blocks.items():
        pieces.append(Piece(roles={f"{stack}/position_bias": "embed"}))
        attentions = ("attention", "cross") if stack == "decoder" else ("attention",)
        norms = [f"{stack}/norm"]
        for i in range(depth):
            block = f"{stack}/block_{i}"
            mlp = feed_forward_piece(
                f"{stack}_{i}_mlp",
                f"{block}/mlp",
                mlp_width,
                activation=name,
                chosen=chosen,
                gated=gated,
                use_bias=False,
                up_init=_normal(width),
            )
            pieces += [mlp, *(attention_piece(f"{block}/{part}", use_bias=False) for part in attentions)]
            norms += [f"{block}/norm_{part}" for part in (*attentions, "mlp")]
        pieces.append(norm_piece(*norms, use_bias=False))
    return wiring_of(pieces, "decoder", head="head" if has_head else "", use_bias=False)


def _check(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    num_buckets: int,
    max_distance: int,
    mlp_width: int,
    activation_name: str,
    gated: bool,
    dropout: float,
    **sizes: int,
) -> Activation:
    chosen = activation(activation_name)
    if len(input_shape) != 2 or min(input_shape) < 1:
        raise UserError(
            got=f"inputs of shape {tuple(input_shape)}",
            wanted="text, (source, target) lengths ≥ 1",
            do="Choose a stream of text, or another network.",
        )
    for name, size in (sizes | {"mlp_width": mlp_width, "num_outputs": num_outputs}).items():
        require_whole(name, size, 1, do="Give a positive number.")
    require_whole("num_buckets", num_buckets, 4, do="Leave it out for 32.")
    if max_distance < num_buckets // 2:
        raise UserError(
            got=f"max_distance={max_distance} with num_buckets={num_buckets}",
            wanted=f"a distance ≥ {num_buckets // 2}, since the nearest have a bucket each",
            do="Leave both out for 128 and 32.",
        )
    require_range("dropout", dropout, 0, 0.999, do="0.1 is usual; 0 drops nothing.")
    if mlp_width % chosen.group_size:
        raise UserError(
            got=f"mlp_width={mlp_width} with activation {activation_name!r}",
            wanted=f"a multiple of {chosen.group_size}",
            do=f"Choose {-(-mlp_width // chosen.group_size) * chosen.group_size} instead.",
        )
    if gated and chosen.expansion != 1:
        raise UserError(
            got=f"gated=True with activation {activation_name!r}",
            wanted=f"an activation that keeps the width; this one multiplies it by {chosen.expansion}",
            do="Use 'gelu', as T5 v1.1 does, or gated=False.",
        )
    return chosen
