"""One method's learning as compiled functions over all seeds."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from pliant.diagnostics import DIAGNOSTICS, choose, measure
from pliant.methods import build
from pliant.training._best import better, no_epoch
from pliant.training._config import RunConfig
from pliant.training._diagnose import ALWAYS, followed, has_twin, make_subject
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
    no_epoch: Callable[[Any, Any], Any]
    """(state, ()) -> best"""
    better: Callable[[Any, Any], Any]
    """((best, state, task), (data, number of validation examples)) -> best"""
    evaluate: Callable[[Any, Any], Any]
    """((states, slot, task), (traced, data, probe indices, task index, numbers of examples)) -> scores, and the
    diagnostics that are measured after every task; states are of now, of the start, and of the end of the task before
    """
    measure: Mapping[str, Callable[[Any, Any], Any]]
    """The other diagnostics, each by itself, with the same arguments."""


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
      config: what happens when the task changes, by default nothing, and the size of a batch.
    """
    network, stream = method.network, method.stream
    config = config or RunConfig()

    def parts(traced: Any, **moment: Any) -> Any:
        return build(method.method, network.wiring, method.static | traced, **moment)

    def init(item: Any, traced: Any) -> Any:
        seed, own = item
        keys = seed_keys(seed)
        return init_state(
            network, parts(traced | own), keys.network, has_twin=has_twin(choose(config.diagnostics))
        ), Slot(keys, own)

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

        return train_chunk(network, now, stream, state, slot.keys, data, task, indices, pace, followed(names))

    def improve(item: Any, shared: Any) -> Any:
        (best, state, task), (data, number) = item, shared
        return better(network, stream, best, state, data, task, number)

    def subject_of(item: Any, shared: Any) -> Any:
        states, slot, task = item
        traced, data, probe, index, _ = shared
        now, key = parts(traced | slot.own), jax.random.fold_in(slot.keys.probe, index)
        return make_subject(network, now, stream, states, key, data, task, probe, config.batch_size)

    def score(item: Any, shared: Any) -> Any:
        (_, data, _, _, sizes), subject = shared, subject_of(item, shared)
        return evaluate(stream, subject, data, item[2], sizes), measure(subject, always)

    def measure_one(name: str) -> Any:
        return axis.over_seeds(lambda item, shared: measure(subject_of(item, shared), (name,)))

    names = method.diagnostics
    measured = [name for name in names if DIAGNOSTICS[name].measure]
    always = [name for name in measured if DIAGNOSTICS[name].cost in ALWAYS]
    axis = seed_axis(num_slots, network, batching)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda slot, index: stream.task(slot.keys.tasks, index)),
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train),
        no_epoch=axis.over_seeds(lambda state, _: no_epoch(state)),
        better=axis.over_seeds(improve),
        evaluate=axis.over_seeds(score),
        measure={name: measure_one(name) for name in measured if name not in always},
    )
