"""Dormant units: hidden units whose activations are small compared with those of their layer."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._layer_fractions import LayerFractions, layer_fractions, named, require_features
from pliant.diagnostics._subject import unit_features, widened
from pliant.errors import require_range
from pliant.types import Diagnostic, Features, Number, Subject


def dormancy_scores(
    activations: Float[Array, "batch *space features"], num_units: int | None = None, *, relative: bool = True
) -> Float[Array, " width"]:
    r"""Scores units by their mean absolute activation relative to their layer's.

    Use it to rank the units of a layer, for instance to choose which ones to reset.

    .. math:: s_i = \frac{\mathbb E_x |h_i(x)|}{\frac1N \sum_k \mathbb E_x |h_k(x)| + 10^{-9}}

    Sums are in float32 or wider: in float16 10⁻⁹ is 0.

    Args:
      activations: post-activation features; all axes but the last are averaged over, after the absolute value.
      num_units: N, if the last axis holds each unit several times, unit index fastest (CReLU); by default its length.
      relative: False leaves out the denominator: the score is the unit's own mean absolute activation.

    Returns:
      One score ≥ 0 a unit. Relative ones average to 1, or are all 0 in a silent layer.

    Example:
      >>> dormancy_scores(jnp.array([[0.0, 1.0, -3.0]])).tolist()
      [0.0, 0.75, 2.25]

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Equation 1.

    Differs from:
      Nothing known. (The comment in Dopamine's code says that scores sum to one; its code divides by the mean, as
      here.)
    """
    means = jnp.abs(widened(activations)).mean(axis=tuple(range(activations.ndim - 1)))
    means = means.reshape(-1, num_units or means.size).mean(axis=0)
    return means / (means.mean() + 1e-9) if relative else means


def is_dormant(
    activations: Float[Array, "batch *space features"],
    threshold: Number = 0.025,
    num_units: int | None = None,
) -> Bool[Array, " width"]:
    """True at units whose `dormancy_scores` are at most `threshold`.

    Use it to see which units are dormant; `dormant` counts them.

    Args:
      activations: as in `dormancy_scores`.
      threshold: τ; 0 selects units that are exactly silent, a negative one selects none.
      num_units: as in `dormancy_scores`.

    Example:
      >>> is_dormant(jnp.array([[0.0, 1.0, -3.0]])).tolist()
      [True, False, False]

    References:
      See `dormancy_scores`; definition 3.1 there.

    Differs from:
      Nothing known.
    """
    return dormancy_scores(activations, num_units) <= threshold


def dormant(
    features: Features, threshold: Number = 0.025, num_units: Mapping[str, int] | None = None
) -> LayerFractions:
    """Measures the fraction of dormant units.

    Use it as the first and cheapest sign that a network stops using its units.

    Scores are relative to their layer: a layer in which all units shrink together shows none, one that is entirely
    silent shows all. Not meaningful where features mix units and are never near 0 (MaxMin).

    Args:
      features: post-activation arrays by hidden layer, (batch, …, width).
      threshold: τ ≥ 0; 0.025 is the authors' for DQN.
      num_units: units by layer where the width holds each several times, see `dormancy_scores`.

    Returns:
      `LayerFractions`, in [0, 1]. NaN features give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured, and for a negative threshold.

    Example:
      >>> found = dormant({"dense_0": jnp.array([[0.0, 1.0, 3.0]])})
      >>> round(float(found.pooled), 4)
      0.3333

    References:
      See `dormancy_scores`; definitions 3.1 and 3.2 there.

    Differs from:
      Libraries that publish the unweighted mean over layers under this name; that is the mean of `by_layer`.
    """
    require_features(features)
    require_range("threshold", threshold, 0, do="0.025 is usual; 0 counts units that are exactly silent.")
    units = num_units or {}
    flags = {name: is_dormant(layer, threshold, units.get(name)) for name, layer in features.items()}
    return layer_fractions(flags, features)


def _measure(subject: Subject) -> Mapping[str, Array]:
    """Of the layers in which a unit owns its output and can be silent; NaN if there are none."""
    found, num_units = unit_features(subject)
    pooled = {
        metric: dormant(found, threshold, num_units).pooled if found else jnp.full((), jnp.nan)
        for metric, threshold in (("dormant_exact_fraction", 0.0), ("dormant_loose_fraction", 0.1))
    }
    return named("dormant_fraction", dormant(found, num_units=num_units) if found else None) | pooled


DORMANT = Diagnostic(
    name="dormant",
    summary="fraction of hidden units with almost no activation (Sokar et al., τ = 0.025; also 0 and 0.1)",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
)
