"""The multilayer perceptron with a mixture of experts."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import require_choice, require_whole
from pliant.networks._functional import from_nnx
from pliant.networks.blocks import (
    HiddenUnits,
    LayerActivation,
    LayerNorm,
    Linear,
    Modules,
    Piece,
    activate,
    activation,
    activation_for,
    apply_units,
    dense_piece,
    key_stream,
    multiplied,
    require_sizes,
    wiring_of,
)
from pliant.types import Features, Key, Method, Network


class MoEMLP(nnx.Module):
    """Hidden layers `dense_i`, then a `router` and pairs `expert_i`, `expert_i_out`, and a `head`; see `moe_mlp`.

    The norm of a layer x is `x_norm`, its activation `x_activation`.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        dense: Sequence[HiddenUnits],
        experts: Sequence[HiddenUnits],
        mixture_width: int,
        *,
        top_k: int,
        rngs: nnx.Rngs,
    ):
        self.dense, self.experts = (tuple(units.modules for units in hidden) for hidden in (dense, experts))
        self.top_k = top_k
        *_, any_expert = experts
        linear, chosen = any_expert.linear, activation(any_expert.activation)
        for units in dense:
            units.add_to(self, rngs)
        size = dense[-1].num_outputs if dense else input_size
        router = linear._replace(gain=1.0, use_bias=False)
        self.router = router.dense(size, len(experts), rngs=rngs)
        for units in experts:
            units.add_to(self, rngs)
            out = linear.dense(units.num_outputs, mixture_width, rngs=rngs)
            setattr(self, f"{units.modules.linear}_out", out)
        if any_expert.modules.norm:
            self.mixture_norm = LayerNorm(mixture_width, rngs=rngs)
        self.mixture_activation = LayerActivation(chosen)
        self.head = linear._replace(gain=1.0).dense(mixture_width * chosen.expansion, num_outputs, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch ..."], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output, and the features of hidden layers, of experts (times their gate) and of the mixture."""
        next_key = key_stream(key, train=train)
        x = inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))
        features = {}
        for modules in self.dense:
            x = features[modules.linear] = apply_units(self, modules, x, next_key, train=train)
        gates = top_k_gates(self.router(x), self.top_k)
        terms = []
        for i, modules in enumerate(self.experts):
            gate = gates[:, i : i + 1]
            hidden = apply_units(self, modules, x, next_key, train=train)
            features[modules.linear] = gate * hidden
            terms.append(gate * getattr(self, f"{modules.linear}_out")(hidden))
        mixture = _modules("mixture", has_norm=hasattr(self, "mixture_norm"))
        features["mixture"] = activate(self, mixture, jnp.stack(terms).sum(axis=0), next_key)
        return self.head(features["mixture"]), features


def _modules(name: str, *, has_norm: bool) -> Modules:
    return Modules(name, f"{name}_norm" if has_norm else "", f"{name}_activation")


def top_k_gates(logits: Float[Array, "batch experts"], top_k: int) -> Float[Array, "batch experts"]:
    r"""The softmax over all experts, kept for the `top_k` most probable ones and 0 for the others.

    .. math:: g_e = p_e \; [e \in \mathrm{top}_k(p)], \qquad p = \mathrm{softmax}(z)

    What is kept is not made to sum to 1, so that the router learns with one expert as well.

    Args:
      logits: z.
      top_k: from 1 to the number of experts. Of equals the first is kept.

    Example:
      >>> top_k_gates(jnp.log(jnp.array([[0.5, 0.2, 0.3]])), 2).tolist()[0][1]
      0.0

    References:
      Fedus, Zoph, Shazeer, `Switch Transformers <https://arxiv.org/abs/2101.03961>`_, 2022. Equation 2, for one expert.

    Differs from:
      Mixtral and others that take the softmax of the kept logits: with one expert its gate is 1, and its gradient 0.
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    num_experts = logits.shape[-1]
    if top_k == num_experts:
        return probabilities
    _, chosen = jax.lax.top_k(probabilities, top_k)
    return probabilities * jax.nn.one_hot(chosen, num_experts, dtype=logits.dtype).sum(axis=-2)


def moe_mlp(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    widths: Sequence[int] = (128, 128),
    width_multiplier: float = 1.0,
    num_experts: int = 4,
    top_k: int | None = None,
    expert_width: int | None = None,
    mixture_width: int | None = None,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
) -> Network:
    r"""Builds a multilayer perceptron whose last hidden layers are a mixture of experts.

    .. math:: k_e = \phi(\mathrm{norm}(h U_e + b_e)), \qquad
              m = \phi\Big(\mathrm{norm}\sum_e g_e (k_e V_e + c_e)\Big), \qquad
              f(x) = m W_{head} + b_{head}

    behind hidden layers h as in `mlp`, with the gates g of `top_k_gates` on the router's logits h R. All experts are
    computed for every example, and those that are not chosen get the gate 0: simple and differentiable, not fast.

    Args:
      input_shape: shape of one example; flattened.
      num_outputs: size of the output, ≥ 1.
      widths: units of the hidden layers before the mixture, each ≥ 1; may be empty.
      width_multiplier: > 0, what all units, those of experts and mixture too, are multiplied by, as for `mlp`.
      num_experts: ≥ 1.
      top_k: how many experts are chosen, from 1 to `num_experts`; by default all. With one token an example, as here,
        that is what a Soft MoE computes.
      expert_width: units of each expert, ≥ 1; by default the last of `widths`, or 128.
      mixture_width: units of the mixture m, ≥ 1; by default the same.
      activation: φ, a name in `pliant.networks.ACTIVATIONS`.
      norm: "layer" puts a LayerNorm with scale and offset before every activation.
      use_bias: whether dense layers, experts and head have biases (initialised to 0); the router has none.
      gain: singular values of the kernels at the start, > 0; by default what keeps the activation's scale. Router and
        head start with 1. Without a norm the gates make the mixture smaller, E even ones by about √E.

    Returns:
      A `Network`. Its features are "dense_i", "expert_i" (units times the expert's gate) and "mixture", which the head
      reads. Every expert has kernels of its own, so methods that hold kernels near isometry act on each expert. The
      router has the role "other": holding its singular values would fix how sharp the gates can be.

    Raises:
      UserError: for an unknown activation or norm, or numbers out of range.

    Example:
      >>> network = moe_mlp((8, 8, 1), 10, widths=(16,), num_experts=3, top_k=1)
      >>> params, state = network.init(jax.random.key(0))
      >>> _, features, _ = network.apply(params, state, jnp.ones((5, 8, 8, 1)), train=False, key=None)
      >>> speaking = [bool(jnp.any(features[f"expert_{i}"][0] != 0)) for i in range(3)]
      >>> sum(speaking), features["mixture"].shape
      (1, (5, 16))

    References:
      Obando-Ceron et al., `Mixtures of Experts Unlock Parameter Scaling for Deep RL
      <https://arxiv.org/abs/2402.08609>`_, 2024: experts in place of the layer before the head, soft or top-1.
      Puigcerver et al., `From Sparse to Soft Mixtures of Experts <https://arxiv.org/abs/2308.00951>`_, 2024.

    Differs from:
      Dopamine's networks, which route many tokens an image (pixels of a feature map), have eight experts, a capacity
      per expert beyond which tokens are dropped, and no activation behind the mixture. No loss that balances the load.
    """
    top_k = num_experts if top_k is None else top_k
    last = widths[-1] if widths else 128
    inner = (last if expert_width is None else expert_width, last if mixture_width is None else mixture_width)
    expert_width, mixture_width = multiplied(inner, width_multiplier)
    widths = multiplied(widths, width_multiplier)
    chosen = activation_for(activation, (*widths, expert_width, mixture_width), gain)
    require_sizes(input_shape, num_outputs)
    _check(norm, num_experts, top_k)
    input_size = math.prod(input_shape)

    size, linear = input_size, Linear("plain", chosen.gain, 1, use_bias)
    dense: list[HiddenUnits] = []
    for i, width in enumerate(widths):
        dense.append(HiddenUnits(_modules(f"dense_{i}", has_norm=norm == "layer"), (size, width), linear, activation))
        size = dense[-1].num_outputs
    experts = [
        HiddenUnits(_modules(f"expert_{i}", has_norm=norm == "layer"), (size, expert_width), linear, activation)
        for i in range(num_experts)
    ]

    def make(rngs: nnx.Rngs) -> MoEMLP:
        return MoEMLP(input_size, num_outputs, dense, experts, mixture_width, top_k=top_k, rngs=rngs)

    names, of_experts = ([units.modules.linear for units in hidden] for hidden in (dense, experts))
    readers = [*([name] for name in names[1:]), ["router", *of_experts]]
    pieces = [dense_piece("router", use_bias=False, role="other")]
    pieces += [units.piece(read_by) for units, read_by in zip(dense, readers, strict=False)]
    pieces += [units.piece([f"{name}_out"]) for units, name in zip(experts, of_experts, strict=True)]
    pieces.append(_mixture(experts, mixture_width, has_norm=norm == "layer"))
    return from_nnx(make, wiring_of(pieces, "mixture", use_bias=use_bias))


def _mixture(experts: Sequence[HiddenUnits], width: int, *, has_norm: bool) -> Piece:
    """The units that all experts feed."""
    outs = []
    for units in experts:
        modules = _modules(f"{units.modules.linear}_out", has_norm=False)._replace(activation="mixture_activation")
        if has_norm and units is experts[-1]:
            modules = modules._replace(norm="mixture_norm")
        outs.append(units._replace(modules=modules, shape=(units.num_outputs, width)).piece(["head"], name="mixture"))
    feeds = tuple(feed for out in outs for layer in out.layers for feed in layer.feeds)
    roles = {path: role for out in outs for path, role in out.roles.items()}
    biases = {kernel: bias for out in outs for kernel, bias in out.biases.items()}
    return Piece((outs[0].layers[0]._replace(feeds=feeds),), roles, biases)


def _check(norm: str, num_experts: int, top_k: int) -> None:
    require_choice("norm", norm, "none", "layer")
    require_whole("num_experts", num_experts, 1, do="Use 4, for example.")
    require_whole("top_k", top_k, 1, num_experts, do="Leave it out for all experts.")


MIXTURE_OF_EXPERTS = Method(
    name="mixture-of-experts",
    summary="Adam on an MLP with a soft mixture of four experts before its head",
    reference="Obando-Ceron et al. 2024",
    replaces={"mlp": "moe-mlp"},
)
