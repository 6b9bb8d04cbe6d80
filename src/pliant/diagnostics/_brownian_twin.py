"""The Brownian twin: where random steps would have led that were as long as the optimizer's."""

import jax
import numpy as np
import optax
from jaxtyping import Array

from pliant.errors import UserError
from pliant.types import Diagnostic, Key, Measured, Number, Params, Subject


def random_step(key: Key, params: Params, length: Number) -> Params:
    r"""Moves parameters by a given distance in a random direction.

    .. math:: \theta' = \theta + \rho\, z / \lVert z \rVert, \qquad z \sim \mathcal N(0, I)

    with the norm over all leaves together.

    Args:
      key: for the direction.
      params: θ, at least one floating-point leaf.
      length: ρ ≥ 0, such as the norm of an optimizer's update.

    Raises:
      UserError: if there are no parameters.

    Example:
      >>> moved = random_step(jax.random.key(0), {"w": jnp.zeros(3), "b": jnp.zeros(2)}, 5.0)
      >>> round(float(optax.tree.norm(moved)), 4)
      5.0

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 3.2.

    Differs from:
      Nothing known.
    """
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        raise UserError(got="no parameters", wanted="at least one array", do="Pass the network's parameters.")
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    scale = length / optax.tree.norm(noise)
    moved = [leaf + (scale * z).astype(leaf.dtype) for leaf, z in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(structure, moved)


def _measure(subject: Subject) -> dict[str, Array]:
    assert subject.twin is not None
    return {"twin_weight_norm": optax.tree.norm(subject.twin)}


def _summarize(values: dict[str, np.ndarray]) -> Measured:
    return Measured({name: float(value) for name, value in values.items()})


BROWNIAN_TWIN = Diagnostic(
    name="brownian-twin",
    summary="the same measurements after random steps of equal length",
    cost="rare",
    measure=_measure,
    summarize=_summarize,
    needs=("twin",),
)
