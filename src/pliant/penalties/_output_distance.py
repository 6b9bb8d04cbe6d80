"""How far two sets of outputs are apart: of classes, of values, or of several named outputs."""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError
from pliant.types import Scalar

Distance = Literal["squared", "kl"]


def output_distance(distance: Distance, before: PyTree[Array], now: PyTree[Array]) -> Scalar:
    """The mean distance of outputs, in float32 or wider.

    Args:
      distance: "squared", the mean squared difference; or "kl", from the earlier softmax to the present one, the mean
        over examples and positions. Of several named outputs the distances are added; there "kl" compares those of size
        1, which are values, by "squared".
      before: an output, or several by name.
      now: likewise.

    Raises:
      UserError: for "kl" between single outputs of size 1.

    Example:
      >>> policy, value = jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([[2.0]])
      >>> before, now = {"policy": policy, "value": value}, {"policy": 0 * policy, "value": 0 * value}
      >>> [round(float(output_distance(kind, before, now)), 4) for kind in ("squared", "kl")]
      [4.6035, 4.1308]
    """
    if not isinstance(now, Mapping):
        return _of_one(distance, before, now)
    kinds: dict[str, Distance] = {name: "squared" if each.shape[-1] == 1 else distance for name, each in now.items()}
    return functools.reduce(jnp.add, [_of_one(kinds[name], before[name], each) for name, each in now.items()])


def _of_one(distance: Distance, before: Array, now: Array) -> Scalar:
    wide = jnp.promote_types(now.dtype, jnp.float32)
    before, now = before.astype(wide), now.astype(wide)
    if distance == "squared":
        return jnp.square(now - before).mean()
    if now.shape[-1] == 1:
        raise UserError(
            got="distance='kl' between outputs of size 1, whose softmax is always 1",
            wanted="logits of several classes",
            do="Use distance='squared' for values.",
        )
    p, q = jax.nn.log_softmax(before), jax.nn.log_softmax(now)
    return (jnp.exp(p) * (p - q)).sum(axis=-1).mean()
