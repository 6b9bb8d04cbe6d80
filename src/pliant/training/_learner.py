"""One method's learning as compiled functions over all seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pliant.methods import build
from pliant.training._config import RunConfig
from pliant.training._evaluate import evaluate
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Batching, SeedAxis, seed_axis
from pliant.training._step import SeedKeys, init_state, seed_keys, train_chunk
from pliant.training._switch import switch_task


class Slot(NamedTuple):
    """What tells one learner from the next: its random streams, and its point of a grid."""

    keys: SeedKeys
    own: dict[str, Any]
    """Hyperparameters that replace the shared ones."""


class Learner(NamedTuple):
    """Compiled functions; their first argument has a slot axis, their second is shared by all slots."""

    axis: SeedAxis
    init: Callable[[Any, Any], Any]
    """((seeds, own hyperparameters), traced) -> state, slot"""
    make_task: Callable[[Any, Any], Any]
    """(slot, task index) -> task"""
    switch: Callable[[Any, Any], Any]
    """((state, slot), (traced, task index)) -> state, what the method reports"""
    train: Callable[[Any, Any], Any]
    """((state, slot, task, indices), (traced, data, pace)) -> state, metrics of every step"""
    evaluate: Callable[[Any, Any], Any]
    """((state, slot, task), (traced, data, probe indices, task index, numbers of examples)) -> results"""


def make_learner(
    method: MethodPlan,
    num_slots: int,
    batching: Batching | None = None,
    *,
    config: RunConfig | None = None,
) -> Learner:
    """Compiles (on first use) what one method needs. Hyperparameters are arguments, so other values reuse the programs.

    Args:
      method: the method with its network and tasks.
      num_slots: ≥ 1: seeds, or points of a grid with as many seeds each.
      batching: see `seed_axis`.
      config: what happens when the task changes; by default nothing.
    """
    network, stream = method.network, method.stream
    config = config or RunConfig()

    def parts(traced: Any, **moment: Any) -> Any:
        return build(method.method, network.wiring, method.static | traced, **moment)

    def init(item: Any, traced: Any) -> Any:
        seed, own = item
        keys = seed_keys(seed)
        return init_state(network, parts(traced | own), keys.network), Slot(keys, own)

    def switch(item: Any, shared: Any) -> Any:
        state, slot = item
        traced, index = shared
        now, optimizer, head = parts(traced | slot.own), config.optimizer_at_switch, config.head_at_switch
        return switch_task(network, now, state, slot.keys, index, optimizer=optimizer, head=head)

    def train(item: Any, shared: Any) -> Any:
        state, slot, task, indices = item
        traced, data, pace = shared

        def now(rate: Any, fraction: Any) -> Any:
            return parts(traced | slot.own, rate=rate, fraction=fraction)

        return train_chunk(network, now, stream, state, slot.keys, data, task, indices, pace)

    def measure(item: Any, shared: Any) -> Any:
        state, slot, task = item
        traced, data, probe, index, sizes = shared
        intervention = parts(traced | slot.own).intervention
        if intervention and intervention.reported:
            params, network_state = intervention.reported(state.learned(), state.intervention)
            state = state._replace(params=params, network=network_state)
        return evaluate(network, stream, state, jax.random.fold_in(slot.keys.probe, index), data, task, probe, sizes)

    axis = seed_axis(num_slots, network, batching)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda slot, index: stream.task(slot.keys.tasks, index)),
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train),
        evaluate=axis.over_seeds(measure),
    )
