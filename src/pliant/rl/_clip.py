"""Clipping of gradients, as agents do it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pliant.errors import require_choice
from pliant.types import Params, Scalar
from pliant.xla.squares import total_norm

Clip = Callable[[Params, Mapping[str, Any]], Params]
"""`clip(gradients, numbers) -> gradients`, see `pliant.types.Source`."""


def clipping(name: str, kind: str) -> Clip | None:
    """How gradients are clipped to the number `max_grad_norm`; None if they are not.

    Args:
      name: of the option, for the message.
      kind: "global" scales the whole gradient down to that norm, "elementwise" clamps each of its entries, "none".

    Raises:
      UserError: for another kind.

    Example:
      >>> gradients, numbers = {"w": jnp.array([3.0, 4.0])}, {"max_grad_norm": 0.5}
      >>> [round(float(entry), 4) for entry in clipping("", "global")(gradients, numbers)["w"]]
      [0.3, 0.4]
      >>> clipping("", "elementwise")(gradients, numbers)["w"].tolist()
      [0.5, 0.5]
    """
    require_choice(name, kind, "global", "elementwise", "none")
    return None if kind == "none" else functools.partial(_clipped, kind)


def _clipped(kind: str, gradients: Params, numbers: Mapping[str, Any]) -> Params:
    most = numbers["max_grad_norm"]
    if kind == "elementwise":
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -most, most), gradients)
    factor: Scalar = most / jnp.maximum(total_norm(gradients), most)
    return jax.tree.map(lambda leaf: leaf * factor, gradients)
