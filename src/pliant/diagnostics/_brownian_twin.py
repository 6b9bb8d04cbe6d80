"""The Brownian twin: a copy of the network that takes random steps as long as the optimizer's."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from pliant.diagnostics._distance import distance
from pliant.diagnostics._gradient_cosine import gradient_cosine, gradient_gram, several
from pliant.diagnostics._hessian import probe_targets, top_eigenvalues, top_tridiagonal
from pliant.diagnostics._subject import outputs_in_blocks
from pliant.errors import UserError
from pliant.types import Batch, Diagnostic, Info, Key, Measured, Number, Params, Scalar, Subject, Update
from pliant.xla.squares import total_norm

_NAME = "brownian-twin"


def random_step(key: Key, params: Params, length: Number) -> Params:
    r"""Moves parameters by a given distance in a random direction.

    Use it to compare an optimizer's path with a random walk of the same step lengths.

    .. math:: \theta' = \theta + \rho\, z / \lVert z \rVert, \qquad z \sim \mathcal N(0, I)

    with the norm over all leaves together.

    Args:
      key: for the direction.
      params: θ, at least one floating-point leaf.
      length: ρ ≥ 0, such as the norm of an optimizer's update. NaN gives NaN.

    Returns:
      θ′, of the structure and types of `params`. After n steps of length ρ the expected squared distance is n ρ², and
      each leaf's share of it is its share of the numbers.

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


class _Landscape(NamedTuple):
    """Curvature and gradients of the loss around one network."""

    alphas: Array
    betas: Array
    gram: Array


def _landscape(subject: Subject, params: Params) -> _Landscape:
    """Curvature and gradients of a regression of the network to its own output plus noise.

    That is the `probe_loss`, taken apart into examples. Noise and start are the same whichever parameters it is of.
    The noise is symmetric and decides the signs of the cosines: whatever the network, over many examples their mean is
    about 0 and half of them are negative. How strongly examples interfere is in the mean absolute cosine.
    """
    apply = outputs_in_blocks(subject)
    noise, start = jax.random.split(subject.key)
    inputs = several(subject).inputs
    batch = Batch(inputs, probe_targets(apply(params, inputs), noise))

    def loss(params: Params, batch: Batch) -> Scalar:
        return jnp.square(apply(params, batch.inputs) - batch.targets).mean()

    tridiagonal = top_tridiagonal(lambda params: loss(params, batch), params, start)
    return _Landscape(*tridiagonal, gradient_gram(loss, params, batch))


def _measure(subject: Subject) -> tuple[Mapping[str, Scalar], Mapping[str, _Landscape]]:
    """Scalars of the twin, and what the loss is like around it and the network, with the network's running statistics.

    Both are measured under a loss of the same kind: those that they were and were not trained on differ trivially.
    """
    assert subject.followed is not None
    twin = subject.followed[_NAME]
    assert subject.initial is not None
    scalars = {
        "twin_distance_from_init": distance(twin, subject.initial[0]).total,
        "twin_weight_norm": optax.tree.norm(twin),
    }
    networks = {"probe": subject.params, "twin": twin}
    return scalars, {name: _landscape(subject, params) for name, params in networks.items()}


def _summarize(arrays: tuple[Mapping[str, np.ndarray], Mapping[str, _Landscape]]) -> Measured:
    scalars, landscapes = arrays
    numbers = {name: float(value) for name, value in scalars.items()}
    for name, landscape in landscapes.items():
        cosine = gradient_cosine(np.asarray(landscape.gram))
        top = top_eigenvalues(np.asarray(landscape.alphas), np.asarray(landscape.betas))
        numbers |= {
            f"{name}_hessian_top": top.algebraic,
            f"{name}_gradient_cosine_mean": cosine.mean,
            f"{name}_gradient_cosine_negative_fraction": cosine.negative_fraction,
            f"{name}_gradient_cosine_mean_absolute": cosine.mean_absolute,
        }
    return Measured(numbers)


def _follow(twin: Params, update: Update) -> tuple[Params, Info]:
    return random_step(update.key, twin, total_norm(update.step)), {}


BROWNIAN_TWIN = Diagnostic(
    name=_NAME,
    summary="curvature and gradient cosines of a probe loss, beside those after random steps of equal length",
    cost="rare",
    measure=_measure,
    summarize=_summarize,
    needs=("followed", "initial"),
    init=lambda params: params,
    follow=_follow,
)
