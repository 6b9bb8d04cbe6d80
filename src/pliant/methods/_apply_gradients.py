"""What follows the gradients in an update, and what begins a task: for the engine's loop and for everybody's own."""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int

from pliant.keys import Draw, draw_key
from pliant.methods._parts import Parts
from pliant.methods._train_state import TrainState
from pliant.optimizers import optimizer_info
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
    Params,
    Probe,
    Scalar,
    Signals,
    State,
)
from pliant.xla.rounding import rounded


class Applied(NamedTuple):
    """What `apply_gradients` returns."""

    learned: Learned
    intervention: State
    params: Params
    """After the optimizer's step, before the intervention."""
    updates: Params
    """The optimizer's step."""
    optimizer_info: Info
    intervention_info: Info


def apply_gradients(
    network: Network,
    parts: Parts,
    gradients: Params,
    learned: Learned,
    intervention: State,
    lesson: Lesson,
    features: Features,
    step: Int[Array, ""],
    key: Key,
) -> Applied:
    """Optimizer → apply → intervention: the second half of an update.

    Args:
      network: what learns.
      parts: the method, built.
      gradients: of loss and penalty, clipped if they are.
      learned: before the optimizer's step; running statistics are those after the forward pass.
      intervention: its state.
      lesson: what the update learns from.
      features: of the batch, before the update.
      step: the number of this update, from 1.
      key: of the method.
    """
    updates, optimizer = parts.optimizer.update(
        gradients, learned.optimizer, learned.params, step=step, key=draw_key(key, Draw.OPTIMIZER, step)
    )
    updates = rounded(updates, step)
    params = optax.apply_updates(learned.params, updates)
    after, told = Learned(params, learned.statistics, optimizer), dict[str, Any]()
    if parts.intervention and parts.intervention.update:
        signals = Signals(gradients, features, _probe(network, lesson), Fresh(network.init, parts.optimizer.init))
        after, intervention, found = parts.intervention.update(
            jax.random.fold_in(key, step), step, after, intervention, signals
        )
        told |= found
    return Applied(after, intervention, params, updates, optimizer_info(optimizer), told)


def begin_task(
    network: Network, parts: Parts, state: TrainState, key: Key, index: Int[Array, ""] | int
) -> tuple[TrainState, Info]:
    """Tells the method that task number `index` ≥ 1 begins.

    First the penalty, which may look back at the old parameters, then the intervention.

    Returns:
      The state, and what the intervention reports.
    """
    info: Info = {}
    if parts.penalty and parts.penalty.switch:
        state = state._replace(penalty=parts.penalty.switch(state.params, state.penalty))
    if parts.intervention and parts.intervention.switch:
        fresh = Fresh(network.init, parts.optimizer.init)
        learned, intervention, info = parts.intervention.switch(
            draw_key(key, Draw.SWITCH, index), index, state.learned(), state.intervention, fresh
        )
        state = TrainState(*learned, state.penalty, intervention)
    return state, info


def forward_pass(
    network: Network,
    statistics: State,
    lesson: Lesson,
    output: Any,
    features: Features,
    loss: Scalar,
    step: Int[Array, ""],
    key: Key,
) -> Forward:
    """The forward pass of a batch as penalties see it.

    Args:
      network: what learns.
      statistics: before the forward pass.
      lesson: what the update learns from.
      output: of the network, for the batch.
      features: of the batch.
      loss: of the task.
      step: the number of this update, from 1.
      key: of the method.
    """
    draw = draw_key(key, Draw.PENALTY, step)

    def evaluate(params: Params, inputs: Inputs) -> tuple[Any, Features]:
        return network.apply(params, statistics, inputs, train=False, key=draw)[:2]

    def sample(num_examples: int) -> Inputs:
        return lesson.examples(draw, num_examples).inputs

    return Forward(lesson.batch.inputs, output, features, loss, evaluate, sample)


def _probe(network: Network, lesson: Lesson) -> Probe:
    def probe(learned: Learned, key: Key, num_examples: int) -> Features:
        of_examples, noise = jax.random.split(key)
        batch = lesson.examples(of_examples, num_examples)
        _, features, _ = network.apply(learned.params, learned.statistics, batch.inputs, train=False, key=noise)
        return features

    return probe
