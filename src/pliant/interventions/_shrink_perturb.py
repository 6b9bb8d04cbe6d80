"""Shrink and perturb: old weights are made smaller, and new ones added."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import UserError, require_range, unknown_name
from pliant.interventions._at_switch import at_switch, drawn, norm_moved
from pliant.masks import Mask, select
from pliant.types import (
    ALL_BUT_NORMS,
    Fresh,
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
    Uniform,
)

Mode = Literal["fresh-init", "to-init", "per-step-fresh", "gaussian"]
_AT_SWITCH: tuple[Mode, ...] = ("fresh-init", "to-init")


def shrink_perturb(
    *,
    mode: Mode = "fresh-init",
    shrink: Number = 0.4,
    perturb: Number = 0.1,
    every_tasks: Number = 1,
    mask: Mask = None,
) -> Intervention:
    r"""Shrinks weights and adds new ones to them (Shrink & Perturb).

    Use it for a warm start on more data.

    .. math:: \theta \leftarrow a\,\theta + p\,\xi

    Four methods of the literature have this name. `mode` says what ξ is, and when it is added:

    - "fresh-init": ξ is a new draw of the network, at the switch of tasks. As proposed.
    - "to-init": ξ is the θ₀ that training began with, at the switch of tasks; a = 1 − c, p = c, both to be given.
    - "per-step-fresh": ξ is a new draw of the network, after every update, which costs an initialisation each time.
    - "gaussian": ξ ~ N(0, 1) for every weight, after every update.

    The optimizer's state is kept.

    Args:
      mode: see above.
      shrink: a, in [0, 1]; after every update in [0.9, 1]. 1 does not shrink.
      perturb: p, in [0, 1]; after every update in [0, 0.05]. 0 adds nothing.
      every_tasks: n ≥ 1, act after tasks n, 2n, …; 0 never acts. Modes that act after every update ignore it.
      mask: True at the parameters to change: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `shrink-perturb` leaves norms out, whose scale would go from γ to aγ + p.

    Returns:
      An `Intervention`. The state is a copy of θ₀ in the mode "to-init", else (). `info` has `norm_moved`.

    Raises:
      UserError: for an unknown mode, numbers out of range (the defaults are those of "fresh-init" and would wipe out a
        network that shrinks after every update), a + p other than 1 with "to-init", and a mask that selects nothing.

    Example:
      >>> fresh = Fresh(init_network=lambda key: (jnp.array([10.0]), {}), init_optimizer=lambda params: ())
      >>> learned = Learned(jnp.array([2.0]), {}, ())
      >>> method = shrink_perturb(shrink=0.5, perturb=0.1)
      >>> after, _, info = method.switch(jax.random.key(0), 1, learned, method.init(learned), fresh)
      >>> float(after.params[0]), float(info["norm_moved"])
      (2.0, 0.0)

    References:
      Ash, Adams, `On Warm-Starting Neural Network Training <https://arxiv.org/abs/1910.08475>`_, 2020. The section
      "Shrink, Perturb, Repeat".

    Differs from:
      Nothing known of "fresh-init" but that norms stay. Kumar et al. 2023 write 1 − a for the strength of
      "per-step-fresh" (their best: 10⁻³ or 10⁻⁴ with p = 10⁻²). Dohare et al. 2024, "gaussian", shrink by weight decay
      inside the update (p from 10⁻⁶ to 10⁻⁴). Lee et al. 2024 use "to-init" with c = 0.8; Plasticine calls the same
      after every update, with c = 10⁻⁶, shrink and perturb: a decoupled L2 Init.
    """
    _check(mode, shrink, perturb)

    def init(learned: Learned) -> State:
        select(mask, learned.params)
        return jax.tree.map(jnp.copy, learned.params) if mode == "to-init" else ()

    def changed(learned: Learned, others: Params) -> Learned:
        def mix(selected: bool, old: Array, other: Array) -> Array:
            if not selected:
                return old
            wide = jnp.promote_types(old.dtype, jnp.float32)
            return (shrink * old.astype(wide) + perturb * other.astype(wide)).astype(old.dtype)

        chosen = select(mask, learned.params)
        return learned._replace(params=jax.tree.map(mix, chosen, learned.params, others))

    def change(key: Key, learned: Learned, state: State, fresh: Fresh) -> Learned:
        return changed(learned, state if mode == "to-init" else drawn(key, learned.params, fresh)[0])

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        del step
        is_gaussian = mode == "gaussian"
        others = _gaussian(key, learned.params) if is_gaussian else drawn(key, learned.params, signals.fresh)[0]
        after = changed(learned, others)
        return after, state, {"norm_moved": norm_moved(learned.params, after.params)}

    if mode in _AT_SWITCH:
        acts = jnp.logical_or(jnp.asarray(shrink) < 1, jnp.asarray(perturb) > 0)  # otherwise −0 would become 0
        return Intervention(init, switch=at_switch(change, jnp.where(acts, every_tasks, 0)))
    return Intervention(init, update)


def _gaussian(key: Key, params: Params) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def _check(mode: str, shrink: Number, perturb: Number) -> None:
    modes = get_args(Mode)
    if mode not in modes:
        raise unknown_name("mode", mode, modes, do="Leave it out for 'fresh-init'.")
    is_gentle = mode not in _AT_SWITCH
    do = f"{mode!r} acts after every update: shrink=0.9999 with perturb=1e-5 is gentle."
    require_range("shrink", shrink, 0.9 if is_gentle else 0, 1, do=do if is_gentle else "0.4 is usual; 1 shrinks not.")
    require_range("perturb", perturb, 0, 0.05 if is_gentle else 1, do=do if is_gentle else "0.1 is usual; 0 for none.")
    if mode == "to-init" and isinstance(shrink, int | float) and isinstance(perturb, int | float):
        _check_mean(shrink, perturb)


def _check_mean(shrink: float, perturb: float) -> None:
    if abs(shrink + perturb - 1) > 1e-6:
        raise UserError(
            got=f"shrink={shrink} and perturb={perturb} with mode='to-init'",
            wanted="the shares of a mean, such as 1 − c and c",
            do="Use shrink=0.2 and perturb=0.8, as published.",
        )


SHRINK_PERTURB = Method(
    name="shrink-perturb",
    summary="Adam; when the task changes, weights are shrunk and fresh ones added",
    reference="Ash and Adams 2020, Shrink, Perturb, Repeat",
    intervention=Part(shrink_perturb, roles=ALL_BUT_NORMS),
    space={"shrink": Uniform(0.2, 0.95), "perturb": LogUniform(1e-3, 0.5)},
    off={"shrink": 1.0, "perturb": 0.0},
    boundary_aware=True,
)
