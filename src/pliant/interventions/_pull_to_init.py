"""Decoupled L2 Init: a pull towards the initial parameters after every update."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import require_range
from pliant.masks import Mask, select
from pliant.types import (
    ALL_BUT_NORMS,
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Part,
    Signals,
    State,
)
from pliant.xla.squares import total_norm


def pull_to_init(*, learning_rate: Number, strength: Number = 0.1, mask: Mask = None) -> Intervention:
    r"""Pulls parameters back towards their initial values after every update, past the optimizer's moments.

    Use it when the penalty `pliant.penalties.l2_init` is distorted by Adam's moments.

    .. math:: \theta \leftarrow \theta - 2 \eta \lambda (\theta - \theta_0)

    It is to `pliant.penalties.l2_init` what AdamW is to L2: the pull is not divided by the root of the second moment,
    so it is the same share of the distance for all weights, whatever their gradients. It works with any optimizer.
    θ₀ is no part of the optimizer's state, so it survives a reset of that.

    Args:
      learning_rate: η ≥ 0.
      strength: λ ≥ 0; a share 2ηλ of the distance is taken back at each update, at most all of it. 0 does nothing.
      mask: True at the parameters to pull: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `l2-init-decoupled` leaves norms out.

    Returns:
      An `Intervention`; its state is the copy θ₀ made by `init` and must be checkpointed. `info` has `norm_moved`,
      the L2 norm of the pull. Moments are left alone.

    Raises:
      UserError: for numbers out of range or a mask that selects nothing.

    Example:
      >>> from pliant.types import Learned
      >>> method = pull_to_init(learning_rate=0.1, strength=0.5)
      >>> state = method.init(Learned(jnp.array([1.0, 2.0]), {}, ()))
      >>> learned = Learned(jnp.array([1.0, 7.0]), {}, ())
      >>> after, _, info = method.update(jax.random.key(0), 1, learned, state, None)
      >>> after.params.tolist(), float(info["norm_moved"])
      ([1.0, 6.5], 0.5)

    References:
      Kumar, Marklund, Van Roy, `Maintaining Plasticity in Continual Learning via Regenerative Regularization
      <https://arxiv.org/abs/2308.11958>`_, 2023, section 4, decoupled in the sense of Loshchilov and Hutter 2019,
      algorithm 2.

    Differs from:
      AdamW's decay, which is computed from the weights before the update: here it is from those after it. Plasticine
      calls this shrink and perturb. The default λ is ours: the published 0.01 is too weak without Adam's division.
    """
    require_range("learning_rate", learning_rate, 0, do="Use the optimizer's.")
    require_range("strength", strength, 0, do="Use 0 to switch the pull off.")

    def init(learned: Learned) -> State:
        select(mask, learned.params)
        return jax.tree.map(jnp.copy, learned.params)

    def update(
        key: Key, step: Any, learned: Learned, state: State, signals: Signals | None
    ) -> tuple[Learned, State, Info]:
        del key, step, signals
        share = jnp.minimum(2.0 * learning_rate * strength, 1.0)

        def pull(selected: bool, now: Array, start: Array) -> Array:
            wide = jnp.promote_types(now.dtype, jnp.float32)
            return share.astype(wide) * (now.astype(wide) - start.astype(wide)) if selected else jnp.zeros((), wide)

        pulls = jax.tree.map(pull, select(mask, learned.params), learned.params, state)
        params = jax.tree.map(
            lambda now, pull: jnp.where(share > 0, (now - pull).astype(now.dtype), now), learned.params, pulls
        )
        return learned._replace(params=params), state, {"norm_moved": total_norm(pulls)}

    return Intervention(init, update)


L2_INIT_DECOUPLED = Method(
    name="l2-init-decoupled",
    summary="Adam with a pull towards the initial weights after every update, past the moments",
    reference="Kumar et al. 2023, section 4; decoupled as in Loshchilov and Hutter 2019, algorithm 2",
    intervention=Part(pull_to_init, roles=ALL_BUT_NORMS),
    space={"strength": LogUniform(1e-3, 10.0)},
    off={"strength": 0.0},
    remembers="the initial weights",
)
