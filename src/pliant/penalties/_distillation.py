"""Distillation: the network before a task change teaches the one after it."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from pliant.errors import require_range, require_whole, unknown_name
from pliant.finite import all_finite
from pliant.penalties._output_distance import Distance, output_distance
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, Number, Params, Penalty, Scalar
from pliant.xla.branches import anywhere


class DistillationState(NamedTuple):
    """State of `distillation`."""

    teacher: Params
    """The parameters before the last switch that was due."""
    taught: Int[Array, ""]
    """Updates since then; −1 before the first."""
    switches: Int[Array, ""]
    """Switches of tasks so far."""


def distillation(
    strength: Number = 1.0, *, distill_steps: Number = 500, distance: Distance = "kl", every_tasks: Number = 1
) -> Penalty:
    r"""Pulls the outputs towards those of the network before the task changed, for some updates (kickstarting).

    Use it with a reset of the network, as in `reset-distill`: the old network teaches the new one.

    .. math:: \lambda \max\!\Big(0,\, 1 - \frac{n}{N}\Big)\; \mathbb E_x\, D\big(f_{\theta_T}(x), f_\theta(x)\big)

    on the inputs of the training batch, with θ_T the parameters before the switch, n the updates since, N =
    `distill_steps`, and

    - "kl": :math:`D = \sum_c p_c \log (p_c / q_c)`, with p and q the softmax of teacher and student;
    - "squared": the mean squared difference of the outputs.

    Of several named outputs, such as a policy and a value, the distances are added; there "kl" compares outputs of size
    1, which are no logits, by "squared".

    The penalty and its gradient are exactly 0 before the first switch, and from N updates after each switch on.
    Parameters that are not all finite never become the teacher. With a reset of the network at the switch this is the
    method `reset-distill`.

    Args:
      strength: λ ≥ 0, the weight at the switch; 0 does nothing.
      distill_steps: N ≥ 1, in updates.
      distance: "kl" for classification, "squared" for regression.
      every_tasks: n ≥ 1, the teacher is the network after tasks n, 2n, …; 0 never has one.

    Returns:
      A `Penalty` with a `switch`. Its `loss` needs the `Forward`. The state is a `DistillationState`; memory: one copy
      of the parameters. The teacher's forward pass is computed only while it counts; for vmapped seeds, while it counts
      for any of them.

    Raises:
      UserError: for numbers out of range, an unknown distance, and for "kl" between outputs of size 1, which is 0.

    Example:
      >>> outputs = lambda params, inputs: (inputs * params[None], {})
      >>> penalty = distillation(0.5, distill_steps=2, distance="squared")
      >>> state = penalty.switch(jnp.array([3.0]), penalty.init(jnp.array([0.0])))
      >>> x, student = jnp.array([[2.0]]), jnp.array([1.0])
      >>> forward = Forward(x, x * student[None], {}, jnp.float32(0.0), outputs, lambda _: x)
      >>> for _ in range(3):
      ...     value, state = penalty.loss(student, state, forward)
      ...     print(float(value))
      8.0
      4.0
      0.0

    References:
      Schmitt et al., `Kickstarting Deep Reinforcement Learning <https://arxiv.org/abs/1803.03835>`_, 2018. The
      auxiliary loss of the student.
      Igl et al., `Transient Non-stationarity and Generalisation in Deep Reinforcement Learning
      <https://arxiv.org/abs/2006.05826>`_, 2021: the teacher is the network itself, before its reset.

    Differs from:
      Kickstarting, which has the cross-entropy (the gradients are the same) and tunes the weight by a population. ITER,
      which teaches a student beside the teacher and then swaps them. The teacher runs in evaluation mode with the
      student's current running statistics, since a penalty does not see earlier ones. With BatchNorm and a full reset
      it is therefore not exactly the old network.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_whole("distill_steps", distill_steps, 1, do="Use the number of updates that the teacher is listened to.")
    require_whole("every_tasks", every_tasks, 0, do="Use 1 for every switch, 0 for none.")
    if distance not in get_args(Distance):
        raise unknown_name("distance", distance, get_args(Distance), do="Use 'kl' for classes, 'squared' for values.")

    def init(params: Params) -> DistillationState:
        return DistillationState(jax.tree.map(jnp.copy, params), jnp.int32(-1), jnp.int32(0))

    def loss(params: Params, state: DistillationState, forward: Forward) -> tuple[Scalar, DistillationState]:
        del params
        share = jnp.maximum(0.0, 1.0 - state.taught / jnp.float32(distill_steps))
        weight = jnp.where(state.taught >= 0, strength * share, 0.0)

        def compared(output: PyTree[Array]) -> Scalar:
            teacher, _ = forward.evaluate(state.teacher, forward.inputs)
            return scaled(weight, output_distance(distance, teacher, heard(weight, output)))

        def silent(output: PyTree[Array]) -> Scalar:
            return jnp.zeros((), jnp.result_type(jnp.float32, *jax.tree.leaves(output)))

        value = jax.lax.cond(anywhere(weight > 0), compared, silent, forward.output)
        taught = jnp.where(state.taught >= 0, optax.safe_increment(state.taught), state.taught)
        return value, state._replace(taught=taught)

    def switch(params: Params, state: DistillationState) -> DistillationState:
        switches = optax.safe_increment(state.switches)
        is_due = (every_tasks > 0) & (switches % jnp.maximum(every_tasks, 1) == 0) & all_finite(params)
        teacher = jax.tree.map(lambda now, before: jnp.where(is_due, now, before), params, state.teacher)
        return DistillationState(teacher, jnp.where(is_due, 0, state.taught), switches)

    return Penalty(init, loss, switch)
