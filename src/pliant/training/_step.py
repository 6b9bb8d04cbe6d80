"""One update, for one seed: a pure function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from pliant.keys import Draw, SeedKeys, draw_key
from pliant.methods import Parts
from pliant.optimizers import optimizer_info
from pliant.training._state import TrainState
from pliant.training._sums import together
from pliant.types import (
    Features,
    Forward,
    Fresh,
    Info,
    Inputs,
    Key,
    Learned,
    Lesson,
    Network,
    Objective,
    Params,
    Probe,
    Scalar,
    Signals,
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
            forward = _forward(network, state.statistics, lesson, output, features, loss, keys, step)
            penalty, penalty_state = parts.penalty.loss(with_rounded_gradient(params, step), state.penalty, forward)
        return loss + penalty, _Pass(loss, penalty, output, features, statistics, penalty_state)

    gradients, found = jax.grad(total_loss, has_aux=True)(state.params)
    gradients = rounded(gradients, step)
    clipped = clip(gradients)
    updates, optimizer = parts.optimizer.update(
        clipped, state.optimizer, state.params, step=step, key=draw_key(keys.method, Draw.OPTIMIZER, step)
    )
    updates = rounded(updates, step)
    params = optax.apply_updates(state.params, updates)

    info: dict[str, Any] = dict(optimizer_info(optimizer))
    if objective.scores:
        info[f"online_{objective.score}"] = objective.scores(found.output, batch.targets, task).mean()
    info |= {"loss": found.loss, "gradient_norm": total_norm(gradients)}
    if objective.reports:
        info = together(info, objective.reports(found.output, batch.targets, task))
    if parts.penalty:
        info["penalty"] = found.penalty

    def loss_after() -> Scalar:
        after, _, _ = network.apply(params, state.statistics, batch.inputs, train=True, key=noise)
        return objective.losses(after, batch.targets, task).mean()

    def update() -> Update:
        change = jax.tree.map(jnp.subtract, params, state.params)
        key = draw_key(keys.method, Draw.DIAGNOSTIC, step)
        return Update(key, state.params, updates, change, found.loss, loss_after)

    learned, intervention = Learned(params, found.statistics, optimizer), state.intervention
    if parts.intervention and parts.intervention.update:
        signals = Signals(clipped, found.features, _probe(network, lesson), Fresh(network.init, parts.optimizer.init))
        key = jax.random.fold_in(keys.method, step)
        learned, intervention, told = parts.intervention.update(key, step, learned, intervention, signals)
        info |= told
    return Stepped(TrainState(*learned, found.penalty_state, intervention), info, update)


def _forward(
    network: Network,
    statistics: State,
    lesson: Lesson,
    output: Any,
    features: Features,
    loss: Scalar,
    keys: SeedKeys,
    step: Int[Array, ""],
) -> Forward:
    def evaluate(params: Params, inputs: Inputs) -> tuple[Any, Features]:
        return network.apply(params, statistics, inputs, train=False, key=draw_key(keys.method, Draw.PENALTY, step))[:2]

    def sample(num_examples: int) -> Inputs:
        return lesson.examples(draw_key(keys.method, Draw.PENALTY, step), num_examples).inputs

    return Forward(lesson.batch.inputs, output, features, loss, evaluate, sample)


def _probe(network: Network, lesson: Lesson) -> Probe:
    def probe(learned: Learned, key: Key, num_examples: int) -> Features:
        of_examples, noise = jax.random.split(key)
        batch = lesson.examples(of_examples, num_examples)
        _, features, _ = network.apply(learned.params, learned.statistics, batch.inputs, train=False, key=noise)
        return features

    return probe
