"""Revival: dead units that fire again, and units that have died."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._dead import firing_rates, magnitudes_of_silenced
from pliant.diagnostics._layer_fractions import LayerFractions, named, require_features
from pliant.errors import UserError
from pliant.types import Diagnostic, Features, Scalar, Subject


class Revival(NamedTuple):
    """What `revival` returns."""

    revived: LayerFractions
    """Of the units that were dead, those that fire now."""
    newly_dead: LayerFractions
    """Of the units that fired, those that are dead now."""


def revival(before: Features, after: Features, num_units: Mapping[str, int] | None = None) -> Revival:
    r"""Measures the share of dead units that fire again, and the share of the others that died.

    Use it to tell a fixed set of dead units from one that units leave and join.

    .. math:: \frac{\#(D_0 \setminus D_1)}{\# D_0}, \qquad \frac{\#(D_1 \setminus D_0)}{N - \# D_0}

    with :math:`D_0` and :math:`D_1` the units that never fire before and after, and N the number of all units. A dead
    ReLU unit has no gradient: it is revived by a change in the layers before it, or by something other than the loss.

    Args:
      before: post-activation arrays by hidden layer, (batch, …, width), at an earlier moment of the network.
      after: the same now. Use the same examples, so that units change and not what they are shown.
      num_units: units by layer where the width holds each several times, see `firing_rates`.

    Returns:
      `Revival`, shares in [0, 1]. NaN where there is nothing to take a share of: no unit was dead before, or none was
      alive; so the second is NaN where all features before are 0. Features that are not finite give NaN.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured, and for different networks.

    Example:
      >>> before, after = jnp.array([[0.0, 0.0, 1.0, 2.0, 3.0]]), jnp.array([[1.0, 0.0, 0.0, 5.0, 1.0]])
      >>> found = revival({"dense_0": before}, {"dense_0": after})
      >>> float(found.revived.pooled), round(float(found.newly_dead.pooled), 4)
      (0.5, 0.3333)

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Section 4.3: dead units come back with an isometry step.

    Differs from:
      Net counts of dead units, which hide that as many die as come back.
    """
    require_features(before)
    require_features(after)
    if {name: layer.shape[1:] for name, layer in before.items()} != {
        name: layer.shape[1:] for name, layer in after.items()
    }:
        raise UserError(
            got="features of two different networks",
            wanted="the same layers with the same units at both moments",
            do="Pass the features of one network at two moments.",
        )
    units = num_units or {}
    was = {name: firing_rates(layer, units.get(name)) == 0 for name, layer in before.items()}
    now = {name: firing_rates(layer, units.get(name)) == 0 for name, layer in after.items()}
    valid = {name: jnp.isfinite(before[name]).all() & jnp.isfinite(after[name]).all() for name in before}
    revived = {name: was[name] & ~now[name] for name in was}
    died = {name: ~was[name] & now[name] for name in was}
    alive = {name: ~flags for name, flags in was.items()}
    return Revival(_shares(revived, was, valid), _shares(died, alive, valid))


def _shares(
    part: Mapping[str, Bool[Array, " units"]], whole: Mapping[str, Bool[Array, " units"]], valid: Mapping[str, Array]
) -> LayerFractions:
    """By layer and of all together."""

    def share(names: list[str]) -> Scalar:
        counts = [jnp.stack([flags[name].sum() for name in names]).sum() for flags in (part, whole)]
        is_valid = jnp.stack([valid[name] for name in names]).all()
        return jnp.where(is_valid, counts[0] / counts[1], jnp.nan)  # 0/0 is NaN, as it should be

    return LayerFractions(share(list(part)), {name: share([name]) for name in part})


def _measure(subject: Subject) -> Mapping[str, Array]:
    """NaN where the activation is hardly ever 0."""
    after, num_units = magnitudes_of_silenced(subject)
    before, _ = magnitudes_of_silenced(subject, at=subject.previous)
    if not after:
        return named("revival_rate", None) | named("newly_dead_fraction", None)
    found = revival(before, after, num_units)
    return named("revival_rate", found.revived) | named("newly_dead_fraction", found.newly_dead)


REVIVAL = Diagnostic(
    name="revival",
    summary="share of the units dead one task ago that fire again, and of the others that have died",
    cost="cheap",
    measure=_measure,
    summarize=as_measured,
    needs=("previous",),
)
