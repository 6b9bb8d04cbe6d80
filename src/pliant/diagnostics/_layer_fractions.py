"""Fractions of units, by layer and over all layers."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from pliant.errors import UserError
from pliant.types import Features, Scalar


class LayerFractions(NamedTuple):
    """A fraction of the hidden units: what diagnostics of units return."""

    pooled: Scalar
    """Over all units of all layers together, in [0, 1]."""
    by_layer: Mapping[str, Scalar]
    """In each layer."""


def require_features(features: Features) -> None:
    """Raises unless there is a hidden layer, and every layer has units and examples.

    Raises:
      UserError: otherwise, since nothing was measured.

    Example:
      >>> require_features({"dense_0": jnp.zeros((1, 2))})
    """
    if not features or any(layer.size == 0 for layer in features.values()):
        raise UserError(
            got=f"features of {len(features)} layers, or an empty batch",
            wanted="at least one hidden layer and one example",
            do="Pass the features that the network's `apply` returns on a probe batch.",
        )


def layer_fractions(flags: Mapping[str, Bool[Array, "..."]], measured: Mapping[str, Array]) -> LayerFractions:
    """The fraction of flags that are True; NaN in layers with values that are not finite, and then over all layers.

    Args:
      flags: by hidden layer, (…, units); axes before the last are averaged over.
      measured: what each layer's flags were made of.

    Example:
      >>> found = layer_fractions({"a": jnp.array([True, False, False])}, {"a": jnp.zeros(3)})
      >>> round(float(found.pooled), 4)
      0.3333
    """
    by_layer = {
        name: jnp.where(jnp.isfinite(measured[name]).all(), flag.mean(), jnp.nan) for name, flag in flags.items()
    }
    sizes = jnp.array([flag.shape[-1] for flag in flags.values()])
    pooled = (jnp.stack(list(by_layer.values())) * sizes).sum() / sizes.sum()
    return LayerFractions(pooled, by_layer)


def named(metric: str, found: LayerFractions | None) -> dict[str, Scalar]:
    """The fractions as metric and metric/layer; NaN if no layer could be measured.

    Example:
      >>> {name: float(value) for name, value in named("dead_fraction", None).items()}
      {'dead_fraction': nan}
    """
    if found is None:
        return {metric: jnp.full((), jnp.nan)}
    return {metric: found.pooled} | {f"{metric}/{layer}": value for layer, value in found.by_layer.items()}
