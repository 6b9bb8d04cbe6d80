"""One update, for one seed: a pure function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.keys import Draw, SeedKeys, draw_key
from pliant.methods import Parts, TrainState, apply_gradients, forward_pass
from pliant.training._sums import together
from pliant.types import (
    Features,
    Info,
    Learned,
    Lesson,
    Network,
    Objective,
    Params,
    Scalar,
    State,
    Update,
)
from pliant.xla.rounding import rounded, with_rounded_gradient
from pliant.xla.squares import total_norm


class Stepped(NamedTuple):
    """What `train_step` returns."""

    state: TrainState
    info: Info
    update: Callable[[], Update]
    """What the optimizer did, for diagnostics that follow training. Call it inside the branch that needs it: as an
    operand of the branch, the change of all parameters would be stored at every update."""


class _Pass(NamedTuple):
    """What a forward pass leaves beside the total loss."""

    loss: Scalar
    """Of the task, without the penalty."""
    penalty: Any
    output: Any
    features: Features
    statistics: State
    penalty_state: State


def train_step(
    network: Network,
    parts: Parts,
    objective: Objective,
    state: TrainState,
    lesson: Lesson,
    step: Int[Array, ""],
    keys: SeedKeys,
    clip: Callable[[Params], Params] = lambda gradients: gradients,
) -> Stepped:
    """Gradients of loss and penalty → optimizer → apply → intervention.

    Args:
      network: what learns.
      parts: the method, built.
      objective: the loss.
      state: before the update.
      lesson: the batch, and the task that it belongs to.
      step: the number of this update, from 1; the same for all seeds.
      keys: of the seed.
      clip: what is done to the gradients before the optimizer gets them.

    Returns:
      The state after the update; scalars of it: the online score and `loss` before the update, what the objective
      reports, the global norm of the gradient of loss and penalty before it is clipped, the `penalty`, and what
      optimizer and intervention report; and the update itself.
    """
    batch, task = lesson.batch, lesson.task
    noise = jax.random.fold_in(keys.noise, step)

    def total_loss(params: Params) -> tuple[Scalar, _Pass]:
        output, features, statistics = network.apply(
            with_rounded_gradient(params, step), state.statistics, batch.inputs, train=True, key=noise
        )
        loss = objective.losses(output, batch.targets, task).mean()
        penalty: Any = 0.0
        penalty_state: State = ()
        if parts.penalty:
            forward = forward_pass(network, state.statistics, lesson, output, features, loss, step, keys.method)
            penalty, penalty_state = parts.penalty.loss(with_rounded_gradient(params, step), state.penalty, forward)
        return loss + penalty, _Pass(loss, penalty, output, features, statistics, penalty_state)

    gradients, found = jax.grad(total_loss, has_aux=True)(state.params)
    gradients = rounded(gradients, step)
    learned = Learned(state.params, found.statistics, state.optimizer)
    applied = apply_gradients(
        network, parts, clip(gradients), learned, state.intervention, lesson, found.features, step, keys.method
    )

    info: dict[str, Any] = dict(applied.optimizer_info)
    if objective.scores:
        info[f"online_{objective.score}"] = objective.scores(found.output, batch.targets, task).mean()
    info |= {"loss": found.loss, "gradient_norm": total_norm(gradients)}
    if objective.reports:
        info = together(info, objective.reports(found.output, batch.targets, task))
    if parts.penalty:
        info["penalty"] = found.penalty

    def loss_after() -> Scalar:
        after, _, _ = network.apply(applied.params, state.statistics, batch.inputs, train=True, key=noise)
        return objective.losses(after, batch.targets, task).mean()

    def update() -> Update:
        change = jax.tree.map(jnp.subtract, applied.params, state.params)
        key = draw_key(keys.method, Draw.DIAGNOSTIC, step)
        return Update(key, state.params, applied.updates, change, found.loss, loss_after)

    info |= applied.intervention_info
    return Stepped(TrainState(*applied.learned, found.penalty_state, applied.intervention), info, update)
