"""Hare and Tortoise: a network that learns fast, and its slow average, to which it is set back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import require_range, require_whole
from pliant.finite import keep_finite
from pliant.interventions._at_switch import norm_moved
from pliant.types import (
    Choice,
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Params,
    Scalar,
    Signals,
    State,
)


class HareTortoiseState(NamedTuple):
    """State of `hare_tortoise`: the tortoise."""

    params: Params
    """In float32 or wider: narrower types would not notice steps of a thousandth."""
    statistics: State
    """Running statistics; {} without."""


def hare_tortoise(*, momentum: Number = 0.999, reset_every: Number = 2000) -> Intervention:
    r"""Averages the network over its updates, and sets it back to the average at intervals (Hare & Tortoise).

    Use it when the evaluated network should change slowly.

    .. math:: \tau \leftarrow m\,\tau + (1 - m)\,\theta \quad \text{after every update}, \qquad
              \theta \leftarrow \tau \quad \text{at updates } R, 2R, \dots

    The hare θ is trained; the tortoise τ, which starts equal to it, is evaluated. Running statistics are averaged like
    parameters; state that is not floating-point is the hare's. If the hare is not finite, the tortoise stays. The
    optimizer's state is not changed.

    Args:
      momentum: m, in [0, 1); 0 makes the tortoise the hare itself, and so does nothing.
      reset_every: R ≥ 1, a period in updates. Published are 10 epochs.

    Returns:
      An `Intervention`; its state is a `HareTortoiseState`, and `reported` gives the tortoise. `info` has
      `norm_moved`, the distance by which the hare was set back.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> method = hare_tortoise(momentum=0.75, reset_every=2)
      >>> state = method.init(Learned(jnp.array(0.0), {}, ()))
      >>> hare = Learned(jnp.array(1.0), {}, ())
      >>> hare, state, _ = method.update(jax.random.key(0), 1, hare, state, None)
      >>> float(hare.params), float(method.reported(hare, state)[0])
      (1.0, 0.25)
      >>> hare, state, info = method.update(jax.random.key(0), 2, hare, state, None)
      >>> float(hare.params), float(info["norm_moved"])
      (0.4375, 0.5625)

    References:
      Lee et al., `Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise Networks
      <https://arxiv.org/abs/2406.02596>`_, 2024. The section on Hare & Tortoise.

    Differs from:
      The authors' code, which also sets back at epoch 0, builds a new optimizer for every task (choose
      optimizer_at_switch="reset"), and after a reset shares the memory of both networks for one step, so that the
      tortoise takes the hare's next update in full. The protocol choice `head_at_switch` changes the hare's head only.
      The paper evaluates both; here only the tortoise is evaluated.
    """
    require_range("momentum", momentum, 0, 0.999999, do="0.999 is usual; 0 does nothing.")
    require_whole("reset_every", reset_every, 1, do="Use a period in updates, such as those of 10 epochs.")

    def init(learned: Learned) -> HareTortoiseState:
        return jax.tree.map(_wide, HareTortoiseState(learned.params, learned.statistics))

    def average(slow: Array, fast: Array) -> Array:
        if not jnp.issubdtype(fast.dtype, jnp.floating):
            return fast
        now = fast.astype(slow.dtype)
        fast = keep_finite(now, slow)
        return jnp.where(momentum > 0, momentum * slow + (1 - momentum) * fast, now)

    def reported(learned: Learned, state: HareTortoiseState) -> tuple[Params, State]:
        narrow = jax.tree.map(
            lambda slow, fast: slow.astype(fast.dtype), state, HareTortoiseState(learned.params, learned.statistics)
        )
        return narrow.params, narrow.statistics

    def set_back(learned: Learned, state: HareTortoiseState) -> tuple[Learned, Scalar]:
        params, statistics = reported(learned, state)
        return Learned(params, statistics, learned.optimizer), norm_moved(learned.params, params)

    def update(
        key: Key, step: Any, learned: Learned, state: HareTortoiseState, signals: Signals | None
    ) -> tuple[Learned, HareTortoiseState, Info]:
        del key, signals
        state = jax.tree.map(average, state, HareTortoiseState(learned.params, learned.statistics))
        learned, moved = jax.lax.cond(
            step % reset_every == 0, set_back, lambda learned, _: (learned, jnp.float32(0)), learned, state
        )
        return learned, state, {"norm_moved": moved}

    return Intervention(init, update, reported=reported)


def _wide(leaf: Array) -> Array:
    """A copy, in float32 at least if it is a floating-point number."""
    is_number = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32) if is_number else leaf.dtype, copy=True)


HARE_TORTOISE = Method(
    name="hare-tortoise",
    summary="Adam set back to its slow average at intervals; the average is evaluated",
    reference="Lee et al. 2024, Hare & Tortoise",
    intervention=hare_tortoise,
    space={"momentum": Choice((0.9, 0.99, 0.999)), "reset_every": LogUniform(100, 5000, is_whole=True)},
    off={"momentum": 0.0},
    remembers="a slow average of the weights",
)
