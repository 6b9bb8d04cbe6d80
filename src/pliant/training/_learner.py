"""One method's learning as compiled functions over all seeds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pliant.keys import Draw, draw_key, seed_keys
from pliant.training._chunk import Setting, train_chunk
from pliant.training._observe import Observers, Shared, numbers_of, observe
from pliant.training._plan import MethodPlan
from pliant.training._protocol import Protocol
from pliant.training._seeds import Batching, Program, SeedAxis, seed_axis
from pliant.training._selection import Best, better, no_best
from pliant.training._state import Carry, SeedSlot, init_carry
from pliant.training._switch import switch_task
from pliant.types import Fed, Scene, State


class Begun(NamedTuple):
    """A learner in its task, with a slot axis."""

    carry: Carry
    slot: SeedSlot
    task: Any
    fed: Any = ()
    """What each seed is fed."""


class Learner(NamedTuple):
    """Compiled functions; their first argument has a slot axis, their second is shared by all slots."""

    axis: SeedAxis
    init: Program
    """((seeds, own hyperparameters), `Shared`) -> carry, slot"""
    make_task: Program
    """(slot, task index) -> task"""
    init_source: Program | None
    """(`Begun`, `Shared`) -> the source's state"""
    switch_source: Program | None
    """((the source's state, `Begun`), `Shared`) -> the source's state, which is donated"""
    switch: Program
    """((carry, slot), `Shared`) -> carry, what the method reports"""
    train: Program
    """((the source's state, `Begun`), `Shared`) -> the source's state, which is donated, carry, info of every update"""
    no_best: Program
    """(carry, ()) -> `Best`"""
    better: Program
    """((best, `Begun`, the source's state), `Shared`) -> `Best`"""
    observers: Observers


def make_learner(
    method: MethodPlan,
    num_slots: int,
    batching: Batching | None = None,
    *,
    protocol: Protocol | None = None,
    programs: dict[Any, Program] | None = None,
) -> Learner:
    """Compiles (on first use) what one method needs. Hyperparameters are arguments, so other values reuse the programs.

    Args:
      method: the method with its network, source and diagnostics.
      num_slots: ≥ 1: seeds, or points of a grid with as many seeds each.
      batching: see `seed_axis`.
      protocol: what happens when the task changes, by default nothing, and the size of a batch.
      programs: those that depend on the network and the source alone; methods that have these in common share them.
    """
    network, source = method.network, method.source
    protocol = protocol or Protocol()
    following = [each for each in method.diagnostics if each.follow]

    def parts(traced: Any, **moment: Any) -> Any:
        return method.parts(traced, **moment)

    def init(item: tuple[Any, Mapping[str, Any]], shared: Shared) -> tuple[Carry, SeedSlot]:
        seed, own = item
        keys = seed_keys(seed)
        return init_carry(network, parts(shared.traced | own), keys.network, following), SeedSlot(keys, dict(own))

    def numbers(begun: Begun, shared: Shared) -> dict[str, Any]:
        return numbers_of(source, shared.numbers, begun.slot.own)

    def scene(begun: Begun, shared: Shared) -> Scene:
        key = draw_key(begun.slot.keys.noise, Draw.SOURCE, shared.index)
        return Scene(key, shared.data, begun.task, shared.facts, numbers(begun, shared))

    def init_source(begun: Begun, shared: Shared) -> State:
        assert source.init
        return source.init(network, scene(begun, shared), begun.carry.learner.learned())

    def switch_source(item: tuple[State, Begun], shared: Shared) -> tuple[State]:
        source_state, begun = item
        assert source.switch
        return (source.switch(network, scene(begun, shared), source_state, begun.carry.learner.learned()),)

    def switch(item: tuple[Carry, SeedSlot], shared: Shared) -> Any:
        carry, slot = item
        learner, info = switch_task(
            network,
            parts(shared.traced | slot.own),
            carry.learner,
            slot.keys,
            shared.index,
            optimizer=protocol.optimizer_at_switch,
            head=protocol.head_at_switch,
        )
        return carry._replace(learner=learner), info

    def train(item: tuple[State, Begun], shared: Shared) -> Any:
        source_state, begun = item

        def parts_at(rate: Any, fraction: Any) -> Any:
            return parts(shared.traced | begun.slot.own, rate=rate, fraction=fraction)

        fed = Fed(begun.fed, shared.fed)
        setting = Setting(
            begun.slot.keys, shared.data, begun.task, shared.facts, numbers(begun, shared), fed, shared.pace
        )
        return train_chunk(network, parts_at, source, source_state, begun.carry, setting, following)

    def improve(item: tuple[Best, Begun, State], shared: Shared) -> Best:
        best, begun, source_state = item
        assert source.selection is not None
        key = draw_key(begun.slot.keys.probe, Draw.EVALUATION, shared.index)
        seen = Scene(key, shared.data, begun.task, shared.facts, numbers(begun, shared))
        return better(network, source.selection, best, begun.carry.learner, seen, source_state)

    axis = seed_axis(num_slots, network, batching)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda slot, index: source.task(slot.keys.tasks, index)),
        init_source=axis.over_seeds(init_source) if source.init else None,
        switch_source=axis.over_seeds(switch_source, consumes=True) if source.switch else None,
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train, consumes=True),
        no_best=axis.over_seeds(lambda carry, _: no_best(carry.learner)),
        better=axis.over_seeds(improve),
        observers=observe(method, axis, parts, protocol.batch_size, {} if programs is None else programs),
    )
