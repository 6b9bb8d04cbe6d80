"""L2 Init, also called regenerative regularisation: a pull towards the initial parameters."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import require_choice, require_range
from pliant.masks import Mask, select
from pliant.penalties._strength import heard, scaled
from pliant.types import ALL_BUT_NORMS, Forward, LogUniform, Method, Number, Params, Part, Penalty, Scalar, State
from pliant.xla.squares import sum_of_squares


def l2_init(strength: Number = 1e-2, *, norm: Literal["l2", "l1"] = "l2", mask: Mask = None) -> Penalty:
    r"""Pulls parameters back towards their initial values (L2 Init).

    Use it as the simplest regulariser that keeps plasticity; it costs next to nothing.

    .. math:: \lambda \sum_l \lVert \theta_l - \theta_{l,0} \rVert^2, \qquad
              \text{gradient } 2 \lambda (\theta - \theta_0)

    With the norm "l1" (L1 Init) it is λ Σ|θ − θ₀| and the gradient λ sign(θ − θ₀), which is 0 at θ₀.

    The pull goes through the optimizer's moments; `pliant.interventions.pull_to_init` is the decoupled form.

    Args:
      strength: λ ≥ 0, in units of 1/weight², or 1/weight for "l1". 0 does nothing.
      norm: "l2", which is squared, or "l1", which is not.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `l2-init` leaves norms out.

    Returns:
      A `Penalty`; its state is the copy θ₀ made by `init` and must be checkpointed. Memory: one copy of the
      parameters.

    Raises:
      UserError: if `strength` is negative, the norm unknown or the mask selects nothing.

    Example:
      >>> start, now = jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])
      >>> penalties = l2_init(0.5), l2_init(0.5, norm="l1")
      >>> [float(penalty.loss(now, penalty.init(start), None)[0]) for penalty in penalties]
      [2.5, 1.5]

    References:
      Kumar, Marklund, Van Roy, `Maintaining Plasticity in Continual Learning via Regenerative Regularization
      <https://arxiv.org/abs/2308.11958>`_, 2023. Section 4, first equation; L1 is an ablation there.

    Differs from:
      The authors' code, which halves the penalty (pass λ/2). Plasticine, which uses the norm and not its square. The
      weight-clipping repository, which takes θ₀ after the first update. parseval_reg, which takes the mean over weights
      in place of the sum. The Hare & Tortoise repository, where only the last tensor counts. The ablation with another
      draw of θ₀ at every update is, decoupled, `pliant.interventions.shrink_perturb` in the mode "per-step-fresh".
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_choice("norm", norm, "l2", "l1")

    def init(params: Params) -> State:
        select(mask, params)
        return jax.tree.map(jnp.copy, params)

    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        del forward
        params = heard(strength, params)

        def distance(selected: bool, now: Array, start: Array) -> Array | float:
            if not selected:
                return 0.0
            wide = jnp.promote_types(now.dtype, jnp.float32)
            moved = now.astype(wide) - start.astype(wide)
            sign = jax.lax.stop_gradient(jnp.sign(moved))  # the gradient of jnp.abs is 1 at 0
            return sum_of_squares(moved) if norm == "l2" else jnp.sum(sign * moved)

        distances = jax.tree.map(distance, select(mask, params), params, state)
        return scaled(strength, sum(jax.tree.leaves(distances))), state

    return Penalty(init, loss)


L2_INIT = Method(
    name="l2-init",
    summary="Adam with a penalty on the squared distance from the initial weights",
    reference="Kumar et al. 2023, section 4",
    penalty=Part(l2_init, roles=ALL_BUT_NORMS),
    space={"strength": LogUniform(1e-5, 1e-1)},
    off={"strength": 0.0},
    lowers="distance_from_init",
    remembers="the initial weights",
)
