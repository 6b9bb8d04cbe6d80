"""Selective weight reinitialisation: the least useful weights are sampled again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from pliant.errors import require_choice, require_range, require_whole
from pliant.interventions._moments import clear_moments
from pliant.interventions._surgery import lowest, num_selected
from pliant.masks import Mask, select
from pliant.types import (
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Params,
    Part,
    Signals,
    State,
    by_path,
    leaf_path,
)


def selective_reinit(
    *,
    fraction: Number = 0.01,
    every: Number = 100,
    utility: str = "gradient",
    source: str = "fresh",
    mask: Mask = None,
) -> Intervention:
    r"""Reinitialises the least useful weights of every kernel, at regular intervals.

    Use it when single weights rather than whole units are idle, or when layers have norms.

    At updates F, 2F, … the n weights with the lowest utility are sampled again in every selected kernel,

    .. math:: u_i = |w_i| \quad \text{or} \quad u_i = |w_i\, g_i|, \qquad n = \lfloor f N + U \rfloor

    of its N weights, where g is the gradient on the current batch and U is uniform in [0, 1), so that small kernels
    lose the fraction f on average. Chance decides between equal ones: the weights of silent units all have the utility
    0, before and after they are redrawn. A weight whose utility is not finite stays. Weights do not belong to units
    here, so this works behind every activation and norm.

    Args:
      fraction: f in [0, 1]; 0 resets none.
      every: F ≥ 1, a period in updates.
      utility: "magnitude" is |w|; "gradient" is |w g|, the first order of what the loss changes by without the weight.
      source: "fresh" takes a weight out of a new draw of its whole kernel; "mean" sets it to 0, the mean of draws.
      mask: True at the kernels: a pytree of booleans or a function of the parameters that makes one; by default all
        leaves with two or more axes. The method `selective-weight-reinit` selects hidden kernels and the head's.

    Returns:
      A stateless `Intervention`; `info` counts the `weights_reset`.

    Raises:
      UserError: for numbers out of range, unknown utilities and sources, and a mask that selects nothing.

    Example:
      >>> params = {"kernel": jnp.array([[0.1, 2.0], [-3.0, 0.01]])}
      >>> signals = Signals(gradients=params, features={}, probe=None, fresh=None)
      >>> method = selective_reinit(fraction=0.5, every=1, source="mean")
      >>> new, _, info = method.update(jax.random.key(0), 1, Learned(params, {}, ()), (), signals)
      >>> new.params["kernel"].tolist(), int(info["weights_reset"])
      ([[0.0, 2.0], [-3.0, 0.0]], 2)

    References:
      Hernandez-Garcia, Dohare, Luo, Sutton, `Reinitializing weights vs units for maintaining plasticity in neural
      networks <https://arxiv.org/abs/2508.00212>`_, 2025.

    Differs from:
      The authors' code, which draws each weight independently from a normal or uniform distribution (here orthogonal
      kernels give weights of the same size that are not independent), can average utilities over updates, and can use a
      threshold instead of a number; there the order in memory may decide between equal utilities. The defaults of f and
      F are ours (with F = 1000 nothing is gained on random labels). So are the choice of kernels without biases and
      norms, and the clearing of Adam's moments, as in `pliant.interventions.reset_units`.
    """
    require_range("fraction", fraction, 0, 1, do="Use 0.01, or 0 for none.")
    require_whole("every", every, 1, do="Use the period in updates, 100 by default.")
    require_choice("utility", utility, "gradient", "magnitude")
    require_choice("source", source, "fresh", "mean")

    def init(learned: Learned) -> State:
        select(mask, learned.params, min_axes=2)
        return ()

    def weakest(key: Key, weight: Array, gradient: Array) -> Bool[Array, "..."]:
        worth = jnp.abs(weight.astype(jnp.float32))
        if utility == "gradient":
            worth = worth * jnp.abs(gradient.astype(jnp.float32))
        number_key, tie_key = jax.random.split(key)
        number = jnp.floor(fraction * worth.size + jax.random.uniform(number_key)).astype(jnp.int32)
        return lowest(worth.reshape(-1), number, key=tie_key).reshape(worth.shape) & jnp.isfinite(worth)

    def replacements(key: Key, params: Params, signals: Signals) -> Params:
        return signals.fresh.init_network(key)[0] if source == "fresh" else jax.tree.map(jnp.zeros_like, params)

    def reinit(key: Key, learned: Learned, signals: Signals) -> tuple[Learned, Info]:
        draw_key, choice_key = jax.random.split(key)
        selected = by_path(select(mask, learned.params, min_axes=2))
        gradients = by_path(signals.gradients)
        weak = {
            path: weakest(jax.random.fold_in(choice_key, i), leaf, gradients[path])
            for i, (path, leaf) in enumerate(by_path(learned.params).items())
            if selected[path]
        }

        def renew(path: Any, leaf: Array, new: Array) -> Array:
            name = leaf_path(path)
            return jnp.where(weak[name], new.astype(leaf.dtype), leaf) if name in weak else leaf

        new = replacements(draw_key, learned.params, signals)
        params = jax.tree_util.tree_map_with_path(renew, learned.params, new)
        learned = learned._replace(params=params, optimizer=clear_moments(learned.optimizer, weak, params=params))
        return learned, {"weights_reset": num_selected(weak)}

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        learned, info = jax.lax.cond(
            step % every == 0,
            lambda learned: reinit(key, learned, signals),
            lambda learned: (learned, {"weights_reset": jnp.int32(0)}),
            learned,
        )
        return learned, state, info

    return Intervention(init, update)


SELECTIVE_WEIGHT_REINIT = Method(
    name="selective-weight-reinit",
    summary="Adam with a periodic reset of the least useful weights of every kernel",
    reference="Hernandez-Garcia et al. 2025 (arXiv 2508.00212)",
    intervention=Part(selective_reinit, roles=("matrix", "head")),
    space={"fraction": LogUniform(1e-3, 0.1), "every": LogUniform(10, 1000, is_whole=True)},
    off={"fraction": 0.0},
)
