"""One method's learning as compiled functions over all seeds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pliant.diagnostics import choose
from pliant.methods import build
from pliant.training._best import better, no_epoch
from pliant.training._config import RunConfig
from pliant.training._diagnose import followed, has_twin
from pliant.training._observe import Program, observe
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Batching, SeedAxis, seed_axis
from pliant.training._step import SeedSlot, init_state, seed_keys, train_chunk
from pliant.training._switch import switch_task


class Learner(NamedTuple):
    """Compiled functions; their first argument has a slot axis, their second is shared by all slots."""

    axis: SeedAxis
    init: Program
    """((seeds, own hyperparameters), traced) -> state, slot"""
    make_task: Program
    """(slot, task index) -> task"""
    switch: Program
    """((state, slot), (traced, task index)) -> state, what the method reports"""
    train: Program
    """((state, slot, task, indices), (traced, data, pace)) -> state, metrics of every step"""
    no_epoch: Program
    """(state, ()) -> best"""
    better: Program
    """((best, state, task), (data, number of validation examples)) -> best"""
    evaluate: Program
    """See `Observers`, as the next."""
    measure: Mapping[tuple[str, ...], Program]


def make_learner(
    method: MethodPlan,
    num_slots: int,
    batching: Batching | None = None,
    *,
    config: RunConfig | None = None,
    programs: dict[Any, Program] | None = None,
) -> Learner:
    """Compiles (on first use) what one method needs. Hyperparameters are arguments, so other values reuse the programs.

    Args:
      method: the method with its network and tasks.
      num_slots: ≥ 1: seeds, or points of a grid with as many seeds each.
      batching: see `seed_axis`.
      config: what happens when the task changes, by default nothing, and the size of a batch.
      programs: those that depend on the network and the stream alone; methods that have these in common share them.
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
        ), SeedSlot(keys, own)

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

        return train_chunk(
            network, now, stream, state, slot.keys, data, task, indices, pace, followed(method.diagnostics)
        )

    def improve(item: Any, shared: Any) -> Any:
        (best, state, task), (data, number) = item, shared
        return better(network, stream, best, state, data, task, number)

    axis = seed_axis(num_slots, network, batching)
    observed = observe(method, axis, parts, config.batch_size, {} if programs is None else programs)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda slot, index: stream.task(slot.keys.tasks, index)),
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train),
        no_epoch=axis.over_seeds(lambda state, _: no_epoch(state)),
        better=axis.over_seeds(improve),
        evaluate=observed.evaluate,
        measure=observed.measure,
    )
