"""Soft resets: SGD with a drift back to the initial parameters."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from pliant.errors import UserError, require_choice, require_range
from pliant.masks import Mask, select
from pliant.types import ALL_BUT_NORMS, Choice, Info, LogUniform, Method, Number, Params, Part, Schedule, Uniform
from pliant.xla.squares import total_norm


class SoftResetState(NamedTuple):
    """State of `soft_reset`."""

    start: Params
    """The point of the drift, μ₀: a copy of the parameters, or () for 0."""
    count: Array  # type: ignore[assignment] # optax's name; tuples have a method of that name
    """Number of updates so far."""
    info: Info
    """`drift_norm`: the L2 norm of the drift in the last update."""


def soft_reset(
    learning_rate: Number | Schedule,
    *,
    gamma: Number = 0.999,
    spread: Number = 0.5,
    toward: Literal["start", "zero"] = "start",
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD whose parameters drift back to their initial values, with larger steps the faster they drift.

    Use it to compare with a drift towards the start under plain SGD. It is experimental: the drift rate is fixed.

    .. math:: \theta \leftarrow \gamma\theta + (1 - \gamma)\mu_0
              - \eta \Big(\gamma^2 + \frac{1 - \gamma^2}{s^2}\Big) g

    Changes of the task are modelled as a drift of the best parameters. The drift widens the belief in them from the
    deviation σ = s σ₀ to √(γ²σ² + (1 − γ²)σ₀²), and the learning rate grows with its square.

    Args:
      learning_rate: η ≥ 0, or an optax schedule.
      gamma: γ in [0, 1], a fixed number; 1 is plain SGD, 0 forgets all but the last gradient.
      spread: s in (0, 1], the deviation of the belief relative to the initial one; 1 keeps the learning rate.
      toward: μ₀: "start" for the initial parameters, or "zero" for the mean of their distribution.
      mask: True at the parameters that drift: a pytree of booleans or a function of the parameters that makes one; by
        default all. Others get plain SGD. The method `soft-reset` leaves norms out.

    Returns:
      An optimizer whose `update` needs `params`. Memory: one copy of the parameters. The state's `info` has the
      `drift_norm`.

    Raises:
      UserError: for numbers out of range, an unknown `toward`, a mask that selects nothing, and if `params` is missing.

    Example:
      >>> tx = soft_reset(0.1, gamma=0.5, spread=0.5)
      >>> state = tx.init(jnp.array([1.0]))
      >>> updates, _ = tx.update(jnp.array([1.0]), state, jnp.array([3.0]))
      >>> round(float(updates[0]), 4)  # halfway back, and 0.1 · (0.25 + 0.75 · 4) down the gradient
      -1.325

    References:
      Galashov et al., `Non-Stationary Learning of Neural Networks with Automatic Soft Parameter Reset
      <https://arxiv.org/abs/2411.04034>`_, 2024. The drift model and the update of the parameters.

    Differs from:
      The paper, which estimates γ of every layer or weight at every update, by how well the parameters after the drift
      predict the next batch; and which takes the gradient at that point, not before the drift. γ = 0.999 and s = 0.5
      are ours: the authors' numbers could not be verified.
    """
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 0.01.")
    require_range("gamma", gamma, 0, 1, do="Use 1 for plain SGD, or a number just below it.")
    require_range("spread", spread, 1e-6, 1, do="Use 1 to leave the learning rate as it is.")
    require_choice("toward", toward, "start", "zero")

    def init_fn(params: Params) -> SoftResetState:
        select(mask, params)
        start = jax.tree.map(jnp.copy, params) if toward == "start" else ()
        return SoftResetState(start, jnp.zeros((), jnp.int32), {"drift_norm": jnp.float32(0)})

    def update_fn(
        updates: Params, state: SoftResetState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SoftResetState]:
        del extra
        if params is None:
            raise UserError(
                got="update(gradients, state)",
                wanted="update(gradients, state, params)",
                do="Pass the parameters: the drift is computed from them.",
            )
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        boosted = rate * (gamma**2 + (1 - gamma**2) / spread**2)

        def drift(now: Array, start: Array) -> Array:
            wide = jnp.promote_types(now.dtype, jnp.float32)
            return (gamma - 1) * (now.astype(wide) - start.astype(wide))

        def move(selected: bool, gradient: Array, now: Array, start: Array) -> Array:
            moved = -rate * gradient
            if selected:
                moved = jnp.where(gamma < 1, drift(now, start) - boosted * gradient, moved)
            return moved.astype(gradient.dtype)

        start = state.start if toward == "start" else jax.tree.map(jnp.zeros_like, params)
        selected = select(mask, params)
        updates = jax.tree.map(move, selected, updates, params, start)
        drifts = jax.tree.map(lambda chosen, *pair: drift(*pair) if chosen else None, selected, params, start)
        info = {"drift_norm": jnp.where(gamma < 1, total_norm(drifts), 0.0).astype(jnp.float32)}
        return updates, SoftResetState(state.start, optax.safe_increment(state.count), info)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


SOFT_RESET = Method(
    name="soft-reset",
    summary="SGD whose weights drift back to the start; experimental, the drift is fixed",
    reference="Galashov et al. 2024, the drift model",
    optimizer=Part(soft_reset, roles=ALL_BUT_NORMS),
    space={
        "learning_rate": LogUniform(1e-3, 1.0),
        "gamma": Choice((0.99, 0.999, 0.9999)),
        "spread": Uniform(0.1, 0.9),
    },
    off={"gamma": 1.0},
    base="sgd",
)
