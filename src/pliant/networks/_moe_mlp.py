"""The multilayer perceptron with a mixture of experts."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import require_choice, require_whole
from pliant.networks._activations import Activation
from pliant.networks._functional import from_nnx
from pliant.networks._layer_activation import LayerActivation, NextKey, activation_roles, key_stream
from pliant.networks._norms import LayerNorm
from pliant.networks._orthogonal import orthogonal
from pliant.networks._wiring import activation_for, multiplied, output_head, owned, require_sizes
from pliant.types import Features, Feed, HiddenLayer, Key, Method, Network, Role, Slot, Wiring


class MoEMLP(nnx.Module):
    """Hidden layers `dense_i`, then a `router` and pairs `expert_i`, `expert_i_out`, and a `head`; see `moe_mlp`.

    The norm of a layer x is `x_norm`, its activation `x_activation`.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        widths: Sequence[int],
        *,
        num_experts: int,
        top_k: int,
        expert_width: int,
        mixture_width: int,
        activation: Activation,
        norm: Literal["none", "layer"],
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.depth = len(widths)
        self.num_experts = num_experts
        self.top_k = top_k

        def linear(size: int, width: int, gain: float, use_bias: bool = use_bias) -> nnx.Linear:
            return nnx.Linear(size, width, use_bias=use_bias, kernel_init=orthogonal(gain), rngs=rngs)

        def add_units(name: str, size: int, width: int) -> None:
            setattr(self, name, linear(size, width, activation.gain))
            if norm == "layer":
                setattr(self, f"{name}_norm", LayerNorm(width, rngs=rngs))
            setattr(self, f"{name}_activation", LayerActivation(activation))

        for i, width in enumerate(widths):
            add_units(f"dense_{i}", input_size, width)
            input_size = width * activation.expansion
        self.router = linear(input_size, num_experts, 1.0, use_bias=False)
        for i in range(num_experts):
            add_units(f"expert_{i}", input_size, expert_width)
            out = linear(expert_width * activation.expansion, mixture_width, activation.gain)
            setattr(self, f"expert_{i}_out", out)
        if norm == "layer":
            self.mixture_norm = LayerNorm(mixture_width, rngs=rngs)
        self.mixture_activation = LayerActivation(activation)
        self.head = linear(mixture_width * activation.expansion, num_outputs, 1.0)

    def __call__(
        self, inputs: Float[Array, "batch ..."], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output, and the features of hidden layers, of experts (times their gate) and of the mixture."""
        next_key = key_stream(key, train=train)
        x = inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))
        features = {}
        for i in range(self.depth):
            name = f"dense_{i}"
            x = features[name] = self._activate(name, getattr(self, name)(x), next_key)
        gates = top_k_gates(self.router(x), self.top_k)
        terms = []
        for i in range(self.num_experts):
            name, gate = f"expert_{i}", gates[:, i : i + 1]
            hidden = self._activate(name, getattr(self, name)(x), next_key)
            features[name] = gate * hidden
            terms.append(gate * getattr(self, f"{name}_out")(hidden))
        features["mixture"] = self._activate("mixture", jnp.stack(terms).sum(axis=0), next_key)
        return self.head(features["mixture"]), features

    def _activate(self, name: str, x: Array, next_key: NextKey) -> Array:
        norm = getattr(self, f"{name}_norm", lambda x: x)
        activate: LayerActivation = getattr(self, f"{name}_activation")
        return activate(norm(x), next_key)


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

    def make(rngs: nnx.Rngs) -> MoEMLP:
        return MoEMLP(
            input_size,
            num_outputs,
            widths,
            num_experts=num_experts,
            top_k=top_k,
            expert_width=expert_width,
            mixture_width=mixture_width,
            activation=chosen,
            norm=norm,
            use_bias=use_bias,
            rngs=rngs,
        )

    wiring = _wiring(
        widths,
        num_experts,
        expert_width,
        mixture_width,
        activation,
        chosen,
        has_norm=norm == "layer",
        use_bias=use_bias,
    )
    return from_nnx(make, wiring)


def _wiring(
    widths: Sequence[int],
    num_experts: int,
    expert_width: int,
    mixture_width: int,
    name: str,
    chosen: Activation,
    *,
    has_norm: bool,
    use_bias: bool,
) -> Wiring:
    dense = [f"dense_{i}" for i in range(len(widths))]
    experts = [f"expert_{i}" for i in range(num_experts)]
    outs = [f"{expert}_out" for expert in experts]
    heads, of_head = output_head("mixture", use_bias=use_bias)
    roles: dict[str, Role] = {"router/kernel": "other", **of_head}
    biases: dict[str, str] = {}

    def layer(units: str, width: int, modules: Sequence[str], readers: Sequence[str]) -> HiddenLayer:
        feeds: tuple[Feed, ...] = ()
        for module in modules:
            norm = f"{units}_norm" if has_norm and module == modules[-1] else None
            own = owned(module, orthogonal(chosen.gain), use_bias=use_bias, norm=norm)
            feeds += own.feeds
            roles.update(own.roles)
            biases.update(own.biases)
        roles.update(activation_roles(f"{units}_activation", chosen))
        slots = tuple(Slot(f"{reader}/kernel", axis=-2, tiles=chosen.expansion) for reader in readers)
        return HiddenLayer(units, width, feeds, slots, name, chosen.elementwise, statistics=())

    behind = [[module] for module in dense[1:]] + [["router", *experts]]
    layers = [
        layer(module, width, [module], behind[i]) for i, (module, width) in enumerate(zip(dense, widths, strict=True))
    ]
    layers += [layer(expert, expert_width, [expert], [out]) for expert, out in zip(experts, outs, strict=True)]
    layers.append(layer("mixture", mixture_width, outs, ["head"]))
    return Wiring(tuple(layers), roles, heads, biases=biases)


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
