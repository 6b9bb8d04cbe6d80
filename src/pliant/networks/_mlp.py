"""The multilayer perceptron."""

import math
from collections.abc import Sequence
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from pliant.errors import require_choice
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


class MLP(nnx.Module):
    """Hidden layers `dense_i` (→ `norm_i`) → `activation_i`, and a linear `head`; see `mlp`."""

    def __init__(
        self, input_size: int, num_outputs: int, hidden: Sequence[HiddenUnits], *, use_bias: bool, rngs: nnx.Rngs
    ):
        self.hidden = tuple(units.modules for units in hidden)
        for units in hidden:
            units.add_to(self, rngs)
        size = hidden[-1].num_outputs if hidden else input_size
        self.head = nnx.Linear(size, num_outputs, use_bias=use_bias, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "batch ..."], *, train: bool, key: Key | None
    ) -> tuple[Float[Array, "batch out"], Features]:
        """The head's output and the post-activation features of every hidden layer."""
        next_key = key_stream(key, train=train)
        x = inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))
        features = {}
        for modules in self.hidden:
            x = features[modules.linear] = apply_units(self, modules, x, next_key, train=train)
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
    input_size = size = math.prod(input_shape)
    hidden: list[HiddenUnits] = []
    for i, width in enumerate(widths):
        modules = Modules(f"dense_{i}", f"norm_{i}" if norm == "layer" else "", f"activation_{i}")
        hidden.append(HiddenUnits(modules, (size, width), linears[i], activation))
        size = hidden[-1].num_outputs
    names = [units.modules.linear for units in hidden]
    pieces = [units.piece([reader]) for units, reader in zip(hidden, [*names[1:], "head"], strict=False)]

    def make(rngs: nnx.Rngs) -> MLP:
        return MLP(input_size, num_outputs, hidden, use_bias=use_bias, rngs=rngs)

    return from_nnx(make, wiring_of(pieces, names[-1] if names else None, use_bias=use_bias))
