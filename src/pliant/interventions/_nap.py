"""Normalize-and-Project: layer normalisation, with weights that keep their norms."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import UserError, require_choice, require_range, require_whole
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._projection import toward, wide
from pliant.types import (
    HiddenLayer,
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Params,
    Role,
    Scalar,
    Signals,
    State,
    Wiring,
    by_path,
    leaf_path,
)


class NaPState(NamedTuple):
    """State of `nap`: the initial norms and norm parameters."""

    radii: dict[str, Scalar]
    """By path: the Frobenius norm of every matrix; of a scale and of an offset that learn, that of both together."""
    norms: PyTree
    """The scales and offsets of norms that are fixed; 0 for other leaves."""


def nap(
    wiring: Wiring, *, every: Number = 1000, strength: Number = 1.0, norms: Literal["fixed", "learned"] = "fixed"
) -> Intervention:
    r"""Projects weights to their initial norms; layer norms make up for it (Normalize-and-Project).

    Use it when you may change the network and want effective learning rates that do not decay.

    .. math:: W_l \leftarrow \rho_l \frac{W_l}{\lVert W_l \rVert_F}, \qquad \rho_l = \lVert W_l(0) \rVert_F

    at updates K, 2K, … for every hidden matrix. The head stays as it is, since no norm follows it. The norm behind a
    matrix cancels its scale: the projection changes no output (except for the norms' ε, if variances are that small),
    only the gradient, which it multiplies by ‖W‖/ρ. That undoes the slow decay of the effective learning rate as
    weights grow. Scales γ and offsets β of the norms could grow instead of the weights. They are

    * "fixed": after every update they go back to where they started, 1 and 0;
    * "learned": they are projected as the matrices are, those of a layer together,
      :math:`(\gamma, \beta) \leftarrow r\, (\gamma, \beta) / \lVert (\gamma, \beta) \rVert` with r their norm at the
      start. Behind ReLU that multiplies all units of the layer alike: the next norm undoes it, the head sees it.

    A matrix of zeros stays. The optimizer's state is kept.

    Args:
      wiring: the network's layer graph, with a norm in front of every activation and no biases before it.
      every: K ≥ 1, a period in updates.
      strength: the share of the way to the projected weights and to the norms' start, in [0, 1]. 0 does nothing.
      norms: "fixed" or "learned".

    Returns:
      An `Intervention`; `info` has `norm_moved`, the L2 norm of what the projection changed the parameters by.

    Raises:
      UserError: for numbers out of range, unknown `norms`, and for networks without a norm in front of every activation
        or with biases before it.

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
      The paper by the period, 1 there, and by norms that are fixed by default: both as Rosseau et al. 2026, who find no
      difference between periods of 1,000 and 10,000. Whether the paper projects the head is ambiguous. Plasticine,
      which holds learned scales and offsets at a norm of √2 instead of the stored one. rejax, which leaves convolutions
      out. Pair it with a falling schedule of the learning rate: weights that do not grow no longer lower it.
    """
    require_whole("every", every, 1, do="Use the period in updates, 1000 by default.")
    require_range("strength", strength, 0, 1, do="Use 1 for the projection, 0 for none.")
    require_choice("norms", norms, "fixed", "learned")
    _check(wiring)
    together: list[tuple[str, ...]] = [(path,) for path, role in wiring.roles.items() if role == "matrix"]
    if norms == "learned":
        together += [_of_role(wiring, layer, "norm") for layer in wiring.layers]
    fixed: tuple[Role, ...] = ("norm",) if norms == "fixed" else ()

    def lengths(params: Params) -> dict[str, Scalar]:
        leaves = by_path(params)
        of_group = {paths: functools.reduce(jnp.hypot, [_length(leaves[path]) for path in paths]) for paths in together}
        return {path: length for paths, length in of_group.items() for path in paths}

    def init(learned: Learned) -> NaPState:
        start = jax.tree.map(
            lambda chosen, leaf: jnp.copy(leaf) if chosen else jnp.zeros(()),
            wiring.mask(learned.params, *fixed),
            learned.params,
        )
        return NaPState(lengths(learned.params), start)

    def project(params: Params, radii: dict[str, Scalar]) -> tuple[Params, Scalar]:
        now = lengths(params)

        def to_radius(path: Any, leaf: Array) -> Array:
            if (name := leaf_path(path)) not in now:
                return leaf
            return toward(leaf, wide(leaf) * (radii[name] / jnp.where(now[name] > 0, now[name], 1.0)), strength)

        after = jax.tree_util.tree_map_with_path(to_radius, params)
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
            wiring.mask(params, *fixed),
            params,
            state.norms,
        )
        return learned._replace(params=params), state, {"norm_moved": moved}

    return keep_frozen(Intervention(init, update), wiring)


def _length(leaf: Array) -> Scalar:
    return jnp.linalg.norm(wide(leaf))


def _check(wiring: Wiring) -> None:
    without = [layer.name for layer in wiring.layers if not _of_role(wiring, layer, "norm")]
    biased = [layer.name for layer in wiring.layers if _of_role(wiring, layer, "bias")]
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


def _of_role(wiring: Wiring, layer: HiddenLayer, role: Role) -> tuple[str, ...]:
    """The parameters of that role that feed a layer's units, by path."""
    return tuple(feed.slot.path for feed in layer.feeds if wiring.roles[feed.slot.path] == role)


NAP = Method(
    name="nap",
    summary="Adam with layer norms, and weights projected to their initial norms (Normalize-and-Project)",
    reference="Lyle et al. 2024, algorithm 1",
    intervention=nap,
    network={"norm": "layer", "use_bias": False},
    space={"every": LogUniform(10, 3000, is_whole=True)},
    off={"strength": 0.0},
    lowers="weight_norm",
)
