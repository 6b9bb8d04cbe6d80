"""What the attention networks share: multi-head attention, the MLP between attentions, dropout, and their wiring."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from pliant.errors import UserError
from pliant.networks.blocks._activations import Activation
from pliant.networks.blocks._hidden_units import Piece, dense_piece
from pliant.networks.blocks._kernel_layer import KernelLayer
from pliant.networks.blocks._layer_activation import LayerActivation, NextKey, activation_roles
from pliant.types import Feed, HiddenLayer, Key, Slot

Initializer: TypeAlias = Callable[[Key, tuple[int, ...], Any], Array]
Drop: TypeAlias = Callable[[Array], Array]

PROJECTIONS = ("query", "key", "value", "out")


def dropping(rate: float, *, train: bool, key: Key | None) -> Drop:
    """`drop(x)`: entries are 0 with probability `rate` and grow by 1/(1 − rate) otherwise; the identity in evaluation.

    Every call draws from a key of its own, so what is dropped depends on the order of the calls in the network.
    """
    if not train or rate == 0.0:
        return lambda x: x
    if key is None:
        raise UserError(
            got=f"dropout={rate} in training without a key", wanted="a key", do="Pass key=jax.random.key(0) to `apply`."
        )
    calls = itertools.count()

    def drop(x: Array) -> Array:
        keep = jax.random.bernoulli(jax.random.fold_in(key, next(calls)), 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))

    return drop


class Attention(nnx.Module):
    """Multi-head attention: `query`, `key` and `value` of shape (width, heads · head width), and `out` back.

    The kernels are matrices, as those of other dense layers; the heads are split off the activations, and come before
    the positions: XLA:CPU multiplies in that order, and an `einsum` over the other one makes it copy more.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_width: int,
        *,
        initializers: Mapping[str, Initializer],
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.head_width = num_heads, head_width
        inner = num_heads * head_width

        def projection(name: str, num_in: int, num_out: int) -> KernelLayer:
            return KernelLayer((num_in, num_out), use_bias=use_bias, kernel_init=initializers[name], rngs=rngs)

        self.query = projection("query", width, inner)
        self.key = projection("key", width, inner)
        self.value = projection("value", width, inner)
        self.out = projection("out", inner, width)

    def __call__(
        self,
        x: Float[Array, "batch query width"],
        memory: Float[Array, "batch memory width"],
        *,
        scale: float = 1.0,
        bias: Float[Array, "1 heads query memory"] | None = None,
        mask: Bool[Any, "#batch 1 #query memory"] | None = None,
        drop: Drop = lambda x: x,
    ) -> Float[Array, "batch query width"]:
        """What each position of `x` reads from `memory`, where `mask` is True; weights are made in float32 or wider."""
        query, key, value = (
            projection(y).reshape(*y.shape[:2], self.num_heads, self.head_width).swapaxes(1, 2)
            for projection, y in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        wide = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.matmul(query * scale, key.swapaxes(2, 3), preferred_element_type=wide)
        if bias is not None:
            scores = scores + bias
        if mask is not None:  # a finite number, so that a row without any True is uniform and not NaN
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        weights = drop(jax.nn.softmax(scores)).astype(value.dtype)
        return self.out((weights @ value).swapaxes(1, 2).reshape(*x.shape[:2], self.num_heads * self.head_width))


class FeedForward(nnx.Module):
    """`up` → `activation` → `down`; with a `gate` the hidden units are activation(gate) · up."""

    def __init__(
        self,
        width: int,
        hidden_width: int,
        *,
        activation: Activation,
        gated: bool,
        use_bias: bool,
        up_init: Initializer,
        down_init: Initializer,
        rngs: nnx.Rngs,
    ):
        self.activation = LayerActivation(activation)

        def up() -> KernelLayer:
            return KernelLayer((width, hidden_width), use_bias=use_bias, kernel_init=up_init, rngs=rngs)

        self.gate = up() if gated else None
        self.up = up()
        num_in = hidden_width * activation.expansion
        self.down = KernelLayer((num_in, width), use_bias=use_bias, kernel_init=down_init, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch length width"], drop: Drop, next_key: NextKey
    ) -> tuple[Float[Array, "batch length width"], Float[Array, "batch length hidden"]]:
        """The output, and the hidden units that `down` reads (before dropout)."""
        up = self.up(x)
        hidden = self.activation(up, next_key) if self.gate is None else self.activation(self.gate(x), next_key) * up
        return self.down(drop(hidden)), hidden


def attention_piece(path: str, *, use_bias: bool) -> Piece:
    """What the `Attention` at `path` adds to the wiring."""
    return dense_piece(*(f"{path}/{name}" for name in PROJECTIONS), use_bias=use_bias)


def feed_forward_piece(
    name: str,
    path: str,
    hidden_width: int,
    *,
    activation: str,
    chosen: Activation,
    gated: bool,
    use_bias: bool,
    up_init: Initializer,
) -> Piece:
    """The hidden layer, named `name`, of the `FeedForward` at `path`, and the roles of its leaves."""
    fed = [f"{path}/{layer}" for layer in (("gate", "up") if gated else ("up",))]
    feeds = [Feed(Slot(f"{layer}/kernel", axis=-1), up_init) for layer in fed]
    if use_bias:
        feeds += [Feed(Slot(f"{layer}/bias", axis=-1), jax.nn.initializers.zeros) for layer in fed]
    gated_traits = chosen.traits._replace(bounds=None, is_kinked=False)  # the other factor has any sign and size
    layer = HiddenLayer(
        name=name,
        width=hidden_width,
        feeds=tuple(feeds),
        readers=(Slot(f"{path}/down/kernel", axis=-2, tiles=chosen.expansion),),
        activation=activation,
        elementwise=chosen.elementwise,
        statistics=(),
        activation_traits=gated_traits if gated and gated_traits != chosen.traits else None,
    )
    leaves = dense_piece(*fed, f"{path}/down", use_bias=use_bias)
    return leaves._replace(layers=(layer,), roles={**leaves.roles, **activation_roles(f"{path}/activation", chosen)})
