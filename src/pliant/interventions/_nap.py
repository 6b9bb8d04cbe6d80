"""Normalize-and-Project: layer normalisation, with weights that keep their norms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError, require_range
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._projection import toward, wide
from pliant.types import (
    HiddenLayer,
    Info,
    Intervention,
    Key,
    Learned,
    Number,
    Params,
    Role,
    Scalar,
    Signals,
    State,
    Wiring,
)


class NaPState(NamedTuple):
    """State of `nap`: what is brought back."""

    radii: PyTree
    """The Frobenius norm of every matrix at the start; 0 for other leaves."""
    norms: PyTree
    """The scales and offsets of norms at the start; 0 for other leaves."""


def nap(wiring: Wiring, *, every: Number = 1000, strength: Number = 1.0) -> Intervention:
    r"""Projects weights to their initial norms, behind which a layer norm makes up for it (Normalize-and-Project).

    .. math:: W_l \leftarrow \rho_l \frac{W_l}{\lVert W_l \rVert_F}, \qquad \rho_l = \lVert W_l(0) \rVert_F

    at updates K, 2K, … for every hidden matrix; the head stays as it is, since nothing makes up for it. After every
    update scales and offsets of norms go back to where they started, 1 and 0. So in front of every activation there
    are pre-activations with mean 0 and variance 1, whatever ρ is: the projection changes no output (but for the norms'
    ε, where variances are as small), only the gradient, which it multiplies by ‖W‖/ρ. That undoes the slow fall of the
    effective learning rate as weights grow.

    A matrix of zeros stays. The optimizer's state is kept: its moments are of the gradients before.

    Args:
      wiring: the network's layer graph, with a norm in front of every activation and no biases before it.
      every: K ≥ 1, a period in updates.
      strength: the share of the way to the projected weights and to the norms' start, in [0, 1]. 0 does nothing.

    Returns:
      An `Intervention`; `info` has `norm_moved`, the L2 norm of what the projection changed the weights by.

    Raises:
      UserError: for numbers out of range, and for networks without a norm in front of every activation or with biases
        before it.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(2,), norm="layer", use_bias=False, gain=1.0)
      >>> params, state = network.init(jax.random.key(0))
      >>> method = nap(network.wiring, every=1)
      >>> start = method.init(Learned(params, state, ()))
      >>> grown = Learned(jax.tree.map(lambda leaf: 3.0 * leaf, params), state, ())
      >>> after, _, info = method.update(jax.random.key(1), 1, grown, start, None)
      >>> round(float(jnp.linalg.norm(after.params["dense_0"]["kernel"])), 4), round(float(info["norm_moved"]), 4)
      (1.4142, 2.8284)

    References:
      Lyle et al., `Normalization and effective learning rates in reinforcement learning
      <https://arxiv.org/abs/2407.01800>`_, 2024. Algorithm 1.

    Differs from:
      The paper by the period, 1 there (Rosseau et al. 2026 find no difference between 1,000 and 10,000), and by norms
      that stay, where the paper also lets them learn with a norm of their own. Whether the paper projects the head is
      ambiguous. Plasticine, which holds learned scales and offsets at a norm of √2 instead of the stored one. rejax,
      which leaves convolutions out. Pair it with a falling schedule of the learning rate: weights that do not grow no
      longer lower it.
    """
    require_range("every", every, 1, do="Use the period in updates, 1000 by default.")
    require_range("strength", strength, 0, 1, do="Use 1 for the projection, 0 for none.")
    _check(wiring)

    def init(learned: Learned) -> NaPState:
        params = learned.params
        return NaPState(
            radii=_where(wiring.mask(params, "matrix"), lambda leaf: jnp.linalg.norm(wide(leaf)), params),
            norms=_where(wiring.mask(params, "norm"), jnp.copy, params),
        )

    def project(params: Params, radii: PyTree) -> tuple[Params, Scalar]:
        def to_radius(chosen: bool, leaf: Array, radius: Array) -> Array:
            if not chosen:
                return leaf
            norm = jnp.linalg.norm(wide(leaf))
            return toward(leaf, wide(leaf) * (radius / jnp.where(norm > 0, norm, 1.0)), strength)

        after = jax.tree.map(to_radius, wiring.mask(params, "matrix"), params, radii)
        return after, norm_moved(params, after)

    def update(
        key: Key, step: Any, learned: Learned, state: NaPState, signals: Signals | None
    ) -> tuple[Learned, State, Info]:
        del key, signals
        params, moved = jax.lax.cond(
            step % every == 0, project, lambda params, _: (params, jnp.float32(0)), learned.params, state.radii
        )
        params = jax.tree.map(
            lambda chosen, leaf, start: toward(leaf, start, strength) if chosen else leaf,
            wiring.mask(params, "norm"),
            params,
            state.norms,
        )
        return learned._replace(params=params), state, {"norm_moved": moved}

    return Intervention(init, update)


def _where(mask: PyTree[bool], make: Callable[[Array], Array], params: Params) -> PyTree:
    """`make(leaf)` where the mask is True, else a 0."""
    return jax.tree.map(lambda chosen, leaf: make(leaf) if chosen else jnp.zeros(()), mask, params)


def _check(wiring: Wiring) -> None:
    without = [layer.name for layer in wiring.layers if "norm" not in _roles(wiring, layer)]
    biased = [layer.name for layer in wiring.layers if "bias" in _roles(wiring, layer)]
    if without or not wiring.layers:
        raise UserError(
            got=f"Normalize-and-Project on {', '.join(without)} without a norm of its own"
            if without
            else "Normalize-and-Project on a network without hidden layers",
            wanted="hidden layers with a norm in front of every activation: it makes up for the projection",
            do="Use for example mlp or cnn with norm='layer' and use_bias=False.",
        )
    if biased:
        raise UserError(
            got=f"Normalize-and-Project on {', '.join(biased)} with a bias in front of the norm",
            wanted="no biases there: the norm makes up for weights that are projected, not for biases that are not",
            do="Use the network with use_bias=False.",
        )


def _roles(wiring: Wiring, layer: HiddenLayer) -> set[Role]:
    return {wiring.roles[feed.slot.path] for feed in layer.feeds}
