"""Dead units: hidden units that never, or hardly ever, fire."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._layer_fractions import LayerFractions, layer_fractions, named, require_features
from pliant.diagnostics._subject import unit_features
from pliant.errors import UserError, require_range
from pliant.types import Diagnostic, Features, Number, Params, State, Subject


def firing_rates(
    activations: Float[Array, "batch *space features"], num_units: int | None = None
) -> Float[Array, " width"]:
    r"""Measures how often each unit fires.

    Use it to choose your own definition of a dead unit, or to follow single units.

    .. math:: r_i = \mathbb E_x \, \mathbb 1[h_i(x) > 0]

    Args:
      activations: post-activation features; all axes but the last are averaged over. Positions of an image are examples
        too.
      num_units: N, if the last axis holds each unit several times, unit index fastest (CReLU): then a unit fires where
        one of its copies does. By default the axis' length.

    Returns:
      One rate in [0, 1] a unit; 0 for zeros, NaN for a unit with a NaN.

    Raises:
      UserError: for an empty batch, since nothing was measured.

    Example:
      >>> firing_rates(jnp.array([[0.0, 1.0, -3.0], [0.0, 0.0, 1e6]])).tolist()
      [0.0, 0.5, 0.5]

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://www.nature.com/articles/s41586-024-07711-7>`_, 2024. Methods: how dead units are counted.

    Differs from:
      Dohare et al.'s code, where on incremental CIFAR a unit fires if h ≠ 0: the same behind ReLU. For activations with
      two signs give |h| to count that.
    """
    if activations.size == 0:
        raise UserError(
            got=f"activations of shape {activations.shape}",
            wanted="at least one example and one unit",
            do="Pass the features of a probe batch.",
        )
    copies = activations.reshape(*activations.shape[:-1], -1, num_units or activations.shape[-1])
    examples = tuple(range(activations.ndim - 1))
    rates = (copies > 0).any(axis=-2).mean(axis=examples)
    return jnp.where(jnp.isnan(copies).any(axis=(*examples, -2)), jnp.nan, rates)


def dead(features: Features, min_rate: Number = 0.01, num_units: Mapping[str, int] | None = None) -> LayerFractions:
    r"""Measures the fraction of dead units: those that fire on a share `min_rate` of the examples or less.

    Use it for ReLU networks, where a unit that never fires gets no gradient and cannot recover by itself.

    .. math:: \frac1N \#\{i : r_i \le r_{min}\}, \qquad r_i = \mathbb E_x \, \mathbb 1[h_i(x) > 0]

    Unlike `dormant` it does not ask how loud a unit is: one that fires once in a thousand examples is dead however
    large its value, and one that always fires is alive however small. Not meaningful for activations that are hardly
    ever 0 (tanh, MaxMin).

    Args:
      features: post-activation arrays by hidden layer, (batch, …, width).
      min_rate: in [0, 1]; 0 counts the units that never fire.
      num_units: units by layer where the width holds each several times, see `firing_rates`.

    Returns:
      `LayerFractions`, in [0, 1]; 1 for features that are 0. Features that are not finite give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured, and for a rate out of range.

    Example:
      >>> fires = jnp.zeros((200, 3)).at[0, 1].set(1e6).at[:100, 2].set(1.0)  # at rates of 0, 0.005 and 0.5
      >>> [round(float(dead({"dense_0": fires}, min_rate).pooled), 4) for min_rate in (0.0, 0.01)]
      [0.3333, 0.6667]

    References:
      Dohare et al. 2024, see `firing_rates`. On permuted MNIST `min_rate` is 0 with 2000 examples, on incremental CIFAR
      0.01 with 1000.

    Differs from:
      Dohare et al.'s code in reinforcement learning, which counts over the last 1000 steps instead of a probe batch.
      `Do Neural Networks Lose Plasticity in a Gradually Changing World?`, 2026, appendix C, which calls units that fire
      on less than `min_rate` dormant; `dormant` compares a unit with its layer. Plasticine's active units are entries
      that are not 0, not units.
    """
    require_features(features)
    require_range("min_rate", min_rate, 0, 1, do="Use 0.01, or 0 for units that never fire.")
    units = num_units or {}
    flags = {name: firing_rates(layer, units.get(name)) <= min_rate for name, layer in features.items()}
    return layer_fractions(flags, features)


def magnitudes_of_silenced(
    subject: Subject, at: tuple[Params, State] | None = None
) -> tuple[Features, Mapping[str, int]]:
    """|h| of the layers whose units can be exactly 0, and their numbers of units.

    Magnitudes, since a gated unit is 0 where its gate is shut and may have any sign elsewhere.
    """
    found, num_units = unit_features(subject, at)
    names = [layer.name for layer in subject.network.wiring.layers if layer.traits.silences]
    return {name: jnp.abs(found[name]) for name in names if name in found}, num_units


def _measure(subject: Subject) -> Mapping[str, Array]:
    found, num_units = magnitudes_of_silenced(subject)
    if not found:
        return named("dead_fraction", None) | named("never_active_fraction", None)
    never = dead(found, 0.0, num_units).pooled
    return named("dead_fraction", dead(found, num_units=num_units)) | {"never_active_fraction": never}


DEAD = Diagnostic(
    name="dead",
    summary="fraction of ReLU units that fire on at most 1 % of the examples, and on none (Dohare et al.)",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
)
