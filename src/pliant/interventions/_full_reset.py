"""Full reset: a new network when the task changes."""

from pliant.interventions._at_switch import at_switch, drawn
from pliant.penalties import distillation
from pliant.types import Fresh, Intervention, Key, Learned, LogUniform, Method, Number, State


def full_reset(*, every_tasks: Number = 1) -> Intervention:
    r"""Initialises the whole network again when the task changes, and restarts its optimizer.

    Use it as the reference: what a fresh network learns in the same updates.

    .. math:: \theta \leftarrow \theta_0' \sim p_{init}, \qquad (m, v, t) \leftarrow 0

    Running statistics restart as well. Nothing is left of earlier tasks, so methods that keep plasticity should learn
    each task at least as well.

    Args:
      every_tasks: n ≥ 1, reset after tasks n, 2n, …; 0 never resets.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`.

    Raises:
      UserError: if `every_tasks` is negative.

    Example:
      >>> tx = optax.adam(0.1)
      >>> _, used = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
      >>> fresh = Fresh(init_network=lambda key: (jnp.full(2, 0.5), {"mean": jnp.zeros(1)}), init_optimizer=tx.init)
      >>> learned = Learned(jnp.array([3.0, 4.0]), {"mean": jnp.ones(1)}, used)
      >>> after, _, _ = full_reset().switch(jax.random.key(0), 1, learned, (), fresh)
      >>> after.params.tolist(), after.statistics["mean"].tolist(), int(after.optimizer[0].count)
      ([0.5, 0.5], [0.0], 0)

    References:
      Nikishin et al., `The Primacy Bias in Deep Reinforcement Learning <https://arxiv.org/abs/2205.07802>`_, 2022. Of
      their periodic resets the one of SAC, which renews networks and optimizers whole.

    Differs from:
      The authors' code by the moment: they reset after a number of updates and keep the replay buffer. Codes that
      draw new weights but keep Adam's moments, which then belong to weights that are gone.
    """

    def renew(key: Key, learned: Learned, state: State, fresh: Fresh) -> Learned:
        del state
        params, statistics = drawn(key, learned.params, fresh)
        return Learned(params, statistics, fresh.init_optimizer(params))

    return Intervention(lambda _: (), switch=at_switch(renew, every_tasks))


FULL_RESET = Method(
    name="full-reset",
    summary="a new network and a new Adam for every task: what a fresh network learns",
    reference="Nikishin et al. 2022, resets of SAC",
    intervention=full_reset,
    off={"every_tasks": 0},
    boundary_aware=True,
    redraws=True,
)
RESET_DISTILL = Method(
    name="reset-distill",
    summary="a new network for every task, taught by the old one at first",
    reference="Schmitt et al. 2018, the student's auxiliary loss; Igl et al. 2021",
    penalty=distillation,
    intervention=full_reset,
    space={"strength": LogUniform(0.1, 10.0), "distill_steps": LogUniform(50, 1000, is_whole=True)},
    off={"every_tasks": 0, "strength": 0.0},
    boundary_aware=True,
    redraws=True,
)
