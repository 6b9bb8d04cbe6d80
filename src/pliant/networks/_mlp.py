"""The multilayer perceptron."""

import math
from collections.abc import Sequence
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import require_choice
from pliant.networks._activations import Activation
from pliant.networks._functional import from_nnx
from pliant.networks._layer_activation import LayerActivation, activation_roles, key_stream
from pliant.networks._linear import Linear, LinearKind, linear_layers, through
from pliant.networks._norms import LayerNorm
from pliant.networks._orthogonal import orthogonal
from pliant.networks._wiring import activation_for, multiplied, output_head, require_sizes
from pliant.types import Features, HiddenLayer, Key, Network, Role, Slot, Wiring


class MLP(nnx.Module):
    """Hidden layers `dense_i` (→ `norm_i`) → `activation_i`, and a linear `head`; see `mlp`."""

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        widths: Sequence[int],
        *,
        activation: Activation,
        norm: Literal["none", "layer"],
        linears: Sequence[Linear],
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.depth = len(widths)
        for i, width in enumerate(widths):
            setattr(self, f"dense_{i}", linears[i].dense(input_size, width, rngs=rngs))
            if norm == "layer":
                setattr(self, f"norm_{i}", LayerNorm(width, rngs=rngs))
            setattr(self, f"activation_{i}", LayerActivation(activation))
            input_size = width * activation.expansion
        self.head = nnx.Linear(input_size, num_outputs, use_bias=use_bias, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch ..."], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output and the post-activation features of every hidden layer."""
        next_key = key_stream(key, train=train)
        x = inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))
        features = {}
        for i in range(self.depth):
            x = through(getattr(self, f"dense_{i}"), x, train=train)
            if hasattr(self, f"norm_{i}"):
                x = getattr(self, f"norm_{i}")(x)
            x = features[f"dense_{i}"] = getattr(self, f"activation_{i}")(x, next_key)
        return self.head(x), features


def mlp(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    widths: Sequence[int] = (128, 128, 128, 128),
    width_multiplier: float = 1.0,
    activation: str = "relu",
    norm: Literal["none", "layer"] = "none",
    use_bias: bool = True,
    gain: float | None = None,
    linear: LinearKind = "plain",
    linear_iterations: int = 7,
) -> Network:
    r"""Builds a multilayer perceptron with orthogonal initialisation.

    .. math:: h_l = \phi(\mathrm{norm}(h_{l-1} W_l + b_l)), \qquad f(x) = h_L W_{head} + b_{head}

    Args:
      input_shape: shape of one example; flattened.
      num_outputs: size of the output, ≥ 1.
      widths: units of each hidden layer, each ≥ 1; empty for a linear model.
      width_multiplier: > 0, what the units of all hidden layers are multiplied by, rounded; for activations that make
        two features of a unit, in a network of the size of another.
      activation: a name in `pliant.networks.ACTIVATIONS`. "maxmin" requires even widths; "crelu" and "fourier" double
        the inputs of the next layer; "rational" has parameters in every layer; "aid" requires a key in training.
      norm: "layer" puts a LayerNorm with scale and offset before every activation.
      use_bias: whether dense layers and head have biases (initialised to 0).
      gain: singular values of the hidden kernels at the start, > 0; by default what keeps the activation's scale
        (√2 for ReLU, 1 for MaxMin). The head starts with 1. With an orthogonal `linear` all singular values stay
        equal to the gain; with "spectral-norm" only the largest does. There the default is 1, as is the weights' start.
      linear: "plain"; or another way for hidden layers to make their maps of their weights. "newton-schulz" or "cans":
        orthogonalised, see `OrthogonalDense`. "spectral-norm": divided by their spectral norm, see `SpectralNorm`, and
        "spectral-norm-first": in the first hidden layer only. "weight-norm": with the norm of each unit's weights as a
        parameter, see `WeightNorm`. "scaled": with a scale behind each unit, see `Scaled`. The last two start as the
        plain network. "delta-orthogonal" is "plain" here, see `cnn`. The head is always plain.
      linear_iterations: ≥ 1, how many steps the orthogonalisation has.

    Returns:
      A `Network`; the features are the post-activation arrays of the hidden layers, (batch, width). Its state has the
      singular vectors of "newton-schulz" and "spectral-norm", and is {} otherwise. There, and with "cans", a unit's
      feeds have a share in the layer's other units too, as with LayerNorm: all columns are normalised together.

    Raises:
      UserError: for an unknown activation, norm or linear layer, widths that do not suit them, or numbers out of range.

    Example:
      >>> network = mlp((8, 8, 1), 10, widths=(32, 16))
      >>> params, state = network.init(jax.random.key(0))
      >>> output, features, _ = network.apply(params, state, jnp.zeros((5, 8, 8, 1)), train=False, key=None)
      >>> output.shape, features["dense_1"].shape, params["head"]["kernel"].shape
      ((5, 10), (5, 16), (16, 10))

    References:
      Rosseau et al. 2026 (arXiv 2606.09762), appendix B.1: depth 4, orthogonal initialisation.

    Differs from:
      The PyTorch baselines of the field, which start from uniform Kaiming weights and non-zero biases.
    """
    require_choice("norm", norm, "none", "layer")
    require_sizes(input_shape, num_outputs)
    widths = multiplied(widths, width_multiplier)
    chosen = activation_for(activation, widths, gain)
    linears = linear_layers(
        linear,
        len(widths),
        gain=gain,
        default_gain=chosen.gain,
        iterations=linear_iterations,
        use_bias=use_bias,
    )
    input_size = math.prod(input_shape)

    def make(rngs: nnx.Rngs) -> MLP:
        return MLP(
            input_size,
            num_outputs,
            widths,
            activation=chosen,
            norm=norm,
            linears=linears,
            use_bias=use_bias,
            rngs=rngs,
        )

    wiring = _wiring(input_size, widths, activation, chosen, linears, has_norm=norm == "layer", use_bias=use_bias)
    return from_nnx(make, wiring)


def _wiring(
    fan_in: int,
    widths: Sequence[int],
    name: str,
    chosen: Activation,
    linears: Sequence[Linear],
    *,
    has_norm: bool,
    use_bias: bool,
) -> Wiring:
    roles: dict[str, Role] = {"head/kernel": "head"}
    layers = []
    for i, width in enumerate(widths):
        norm = f"norm_{i}" if has_norm else None
        own = linears[i].owned(f"dense_{i}", fan_in, norm=norm)
        roles |= own.roles | activation_roles(f"activation_{i}", chosen)
        fan_in = width * chosen.expansion
        reader = f"dense_{i + 1}/kernel" if i + 1 < len(widths) else "head/kernel"
        layers.append(
            HiddenLayer(
                name=f"dense_{i}",
                width=width,
                feeds=own.feeds,
                readers=(Slot(reader, axis=-2, tiles=chosen.expansion),),
                activation=name,
                elementwise=chosen.elementwise,
                statistics=own.statistics,
                state=own.state,
            )
        )
    heads, of_head = output_head(layers[-1].name if layers else None, use_bias=use_bias)
    roles |= of_head
    indirect = frozenset(f"dense_{i}/kernel" for i, linear in enumerate(linears) if not linear.is_plain)
    return Wiring(tuple(layers), roles, heads, indirect)
