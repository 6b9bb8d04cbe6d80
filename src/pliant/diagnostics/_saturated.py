"""Saturated and linearised units: those at a flat end, or on one straight piece, of their activation."""

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._layer_fractions import LayerFractions, layer_fractions, named, require_features
from pliant.diagnostics._subject import unit_features, widened
from pliant.errors import UserError, require_range
from pliant.types import Diagnostic, Features, Number, Subject


def saturated(
    activations: Features, low: Number = -1.0, high: Number = 1.0, tolerance: Number = 0.01
) -> LayerFractions:
    r"""Measures the fraction of activations that are close to a bound of their activation function.

    Use it for bounded activations such as tanh and sigmoid, where `dormant` sees nothing wrong.

    .. math:: \frac{1}{nN} \#\{(x, i) : h_i(x) < l + \epsilon \ \text{or}\ h_i(x) > u - \epsilon\}

    There the function is flat and passes hardly any gradient: for tanh its slope is 1 − h², at most 0.02.

    Args:
      activations: post-activation arrays by hidden layer, (batch, …, width), all behind functions with these bounds.
      low: l, −1 for tanh, 0 for a sigmoid.
      high: u, 1 for both.
      tolerance: ε, from 0 to half the distance between the bounds.

    Returns:
      `LayerFractions` of all examples and units, in [0, 1]; for tanh 0 where features are 0. Features that are not
      finite give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured; for bounds in the wrong order and
        tolerances out of range.

    Example:
      >>> float(saturated({"dense_0": jnp.array([[0.0, 0.995], [-0.5, -1.0]])}).pooled)
      0.5

    References:
      Rakitianskaia, Engelbrecht, `Measuring Saturation in Neural Networks
      <https://doi.org/10.1109/SSCI.2015.202>`_, 2015: why it is told by the distance from the bounds.

    Differs from:
      Their measure, which weighs a histogram of the activations; a share beyond a threshold is what Plasticine counts,
      |h| > 0.99 for tanh. There deep Fourier features are scaled by √2 and count beyond √2 − 0.01; ours are not, so
      their bound is 1 as well. Of a sine whose phase is uniform 0.09 are beyond, and the cosine beside each is steepest
      there.
    """
    require_features(activations)
    if isinstance(low, int | float) and isinstance(high, int | float):
        if not low < high:
            raise UserError(got=f"low={low}, high={high}", wanted="low < high", do="Use -1 and 1 for tanh.")
        require_range("tolerance", tolerance, 0, (high - low) / 2, do="0.01 is usual.")
    wide = {name: widened(layer) for name, layer in activations.items()}
    flags = {name: (layer < low + tolerance) | (layer > high - tolerance) for name, layer in wide.items()}
    return layer_fractions(flags, activations)


def is_linearized(
    activations: Float[Array, "batch *space features"], num_units: int | None = None
) -> Bool[Array, " width"]:
    """True at units whose activations have the same sign, and are never 0, on all examples.

    Use it to see which units are linearised; `linearized` counts them.

    Args:
      activations: post-activation features behind a function with its only kink at 0.
      num_units: if the last axis holds each unit several times, unit index fastest (CReLU): then one of its copies has
        to be active on all examples. By default the axis' length.

    Returns:
      A flag a unit; False for zeros and for a unit with a NaN.

    Raises:
      UserError: for an empty batch, since nothing was measured.

    Example:
      >>> is_linearized(jnp.array([[0.0, 1.0, 3.0], [0.0, 0.0, 2.0]])).tolist()
      [False, False, True]

    References:
      See `linearized`.

    Differs from:
      See `linearized`.
    """
    require_features({"activations": activations})
    copies = activations.reshape(*activations.shape[:-1], -1, num_units or activations.shape[-1])
    examples = tuple(range(activations.ndim - 1))
    # Not `(copies < 0).all()`: behind a ReLU XLA knows that it is false, and spends seconds on a constant of that size.
    is_active = (copies.min(axis=examples) > 0) | (copies.max(axis=examples) < 0)
    return is_active.any(axis=0)


def linearized(activations: Features, num_units: Mapping[str, int] | None = None) -> LayerFractions:
    r"""Measures the fraction of linearised units: those that stay on one side of their activation's kink.

    Use it for activations with a kink, to see how much nonlinearity is left.

    .. math:: \frac1N \#\{i : h_i(x) > 0 \ \forall x \ \text{or}\ h_i(x) < 0 \ \forall x\}

    A ReLU unit that is active on every example is the identity there: it passes gradients, unlike a dead one, but adds
    no nonlinearity. The other side is that of leaky ReLU.

    Args:
      activations: post-activation arrays by hidden layer, (batch, …, width), behind functions that are straight on
        either side of 0 and keep the sign: ReLU, leaky ReLU, CReLU. Positions of an image are examples too; behind
        pooling, the positions that it lets through.
      num_units: units by layer where the width holds each several times, see `is_linearized`.

    Returns:
      `LayerFractions`, in [0, 1]; 0 for features that are 0. Features that are not finite give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured.

    Example:
      >>> round(float(linearized({"dense_0": jnp.array([[0.0, 1.0, 3.0], [0.0, 0.0, 2.0]])}).pooled), 4)
      0.3333

    References:
      Lyle et al., `Disentangling the Causes of Plasticity Loss in Neural Networks
      <https://arxiv.org/abs/2402.18762>`_, 2024: unit linearisation, by a shift of the pre-activations.

    Differs from:
      Measures of the pre-activations' mean and spread, which ask how close units are to this. The more examples, the
      fewer units are linear on all of them: compare at one size of the probe batch.
    """
    require_features(activations)
    units = num_units or {}
    flags = {name: is_linearized(layer, units.get(name)) for name, layer in activations.items()}
    return layer_fractions(flags, activations)


def _measure(subject: Subject) -> Mapping[str, Array]:
    """NaN where the activation has no bounds, or no kink."""
    layers = [each for each in subject.network.wiring.layers if each.traits.bounds or each.traits.is_kinked]
    found, num_units = unit_features(subject, layers=layers)
    bounded = {layer.name: _centred(found[layer.name], *layer.traits.bounds) for layer in layers if layer.traits.bounds}
    kinked = {layer.name: found[layer.name] for layer in layers if layer.traits.is_kinked}
    return named("saturated_fraction", saturated(bounded) if bounded else None) | named(
        "linearized_fraction", linearized(kinked, num_units) if kinked else None
    )


def _centred(layer: Array, low: float, high: float) -> Array:
    """Rescaled to lie between −1 and 1; a sigmoid becomes the tanh of half its input."""
    return (2 * layer - (low + high)) / (high - low)


SATURATED = Diagnostic(
    name="saturated",
    summary="fraction of tanh beyond 0.99, or sigmoids as near a bound, and of ReLU units active on every example",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
)
