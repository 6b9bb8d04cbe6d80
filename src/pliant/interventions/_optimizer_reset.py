"""Optimizer reset: its statistics restart, the weights stay."""

from pliant.errors import UserError
from pliant.interventions._at_switch import at_switch
from pliant.interventions._moments import has_counts, reset_counts
from pliant.types import Fresh, Intervention, Key, Learned, Method, Number, State


def optimizer_reset(*, keep_moments: bool = False, every_tasks: Number = 1) -> Intervention:
    r"""Resets the optimizer's state when the task changes; the parameters stay.

    Use it to find out whether stale moments cause the loss of plasticity.

    .. math:: (m, v, t) \leftarrow 0, \qquad \text{or with } \texttt{keep\_moments} \text{ only } t \leftarrow 0

    After a full reset Adam's first step is η long for every weight, as at the start. With `keep_moments` (Adam-Rel) the
    correction for the bias of moments that began at zero is applied to moments that did not: in a steady gradient the
    first step is :math:`\sqrt{1 - b_2}/(1 - b_1) \approx 0.32` η, and where the gradient grew much at the switch it
    stays of the order of η.

    Args:
      keep_moments: whether only the count is reset, of every optimizer in the state that has one beside its moments.
        Counts of learning-rate schedules stay.
      every_tasks: n ≥ 1, reset after tasks n, 2n, …; 0 never resets.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`, which is 0: no weight moves.

    Raises:
      UserError: if `every_tasks` is negative, or if `keep_moments` is used with an optimizer that has no such count.

    Example:
      >>> tx = optax.adam(0.1)
      >>> params = jnp.zeros(1)
      >>> _, used = tx.update(jnp.ones(1), tx.init(params))
      >>> fresh = Fresh(init_network=lambda key: (params, {}), init_optimizer=tx.init)
      >>> learned = Learned(params, {}, used)
      >>> whole, _, _ = optimizer_reset().switch(jax.random.key(0), 1, learned, (), fresh)
      >>> relative, _, _ = optimizer_reset(keep_moments=True).switch(jax.random.key(0), 1, learned, (), fresh)
      >>> [(int(after.optimizer[0].count), round(float(after.optimizer[0].mu[0]), 3)) for after in (whole, relative)]
      [(0, 0.0), (0, 0.1)]

    References:
      Asadi, Fakoor, Sabach, `Resetting the Optimizer in Deep RL: An Empirical Study
      <https://arxiv.org/abs/2306.17833>`_, 2023.
      Ellis et al., `Adam on Local Time: Addressing Nonstationarity in RL with Relative Adam Timesteps
      <https://arxiv.org/abs/2412.17113>`_, 2024: `keep_moments`.

    Differs from:
      Both by the moment: they reset when a target network or a batch of experience changes. The protocol choice
      `optimizer_at_switch`, which does the same as a full reset for all methods of a run.
    """

    def init(learned: Learned) -> State:
        if keep_moments and not has_counts(learned.optimizer):
            raise UserError(
                got="keep_moments=True for an optimizer that counts no updates beside its moments",
                wanted="Adam or a relative",
                do="Leave keep_moments out to reset its whole state.",
            )
        return ()

    def renew(key: Key, learned: Learned, state: State, fresh: Fresh) -> Learned:
        del key, state
        if keep_moments:
            return learned._replace(optimizer=reset_counts(learned.optimizer))
        return learned._replace(optimizer=fresh.init_optimizer(learned.params))

    return Intervention(init, switch=at_switch(renew, every_tasks))


OPTIMIZER_RESET = Method(
    name="optimizer-reset",
    summary="Adam that forgets its moments when the task changes, or only its count (Adam-Rel)",
    reference="Asadi et al. 2023; Ellis et al. 2024",
    intervention=optimizer_reset,
    off={"every_tasks": 0},
    boundary_aware=True,
)
