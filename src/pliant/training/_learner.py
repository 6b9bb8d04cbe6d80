"""One method's learning as compiled functions over all seeds."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from pliant.diagnostics import DIAGNOSTICS, choose, measure
from pliant.methods import build
from pliant.training._best import better, no_epoch
from pliant.training._config import RunConfig
from pliant.training._diagnose import ALWAYS, View, followed, has_twin, make_subject, view
from pliant.training._evaluate import evaluate
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Batching, SeedAxis, seed_axis
from pliant.training._step import SeedKeys, TrainState, init_state, seed_keys, train_chunk
from pliant.training._switch import switch_task
from pliant.types import Rule


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
    """((state, slot, task), (traced, data, numbers of examples)) -> scores"""
    measure: Mapping[tuple[str, ...], Callable[[Any, Any], Any]]
    """((states, slot, task), (traced, data, probe indices, task index)) -> what diagnostics found, of those that are
    measured after every task together, and of each other one; states are of now, of the start, and of the end of the
    task before"""


def make_learner(
    method: MethodPlan,
    num_slots: int,
    batching: Batching | None = None,
    *,
    config: RunConfig | None = None,
    programs: dict[Any, Callable[[Any, Any], Any]] | None = None,
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
    programs = {} if programs is None else programs

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

        return train_chunk(
            network, now, stream, state, slot.keys, data, task, indices, pace, followed(method.diagnostics)
        )

    def improve(item: Any, shared: Any) -> Any:
        (best, state, task), (data, number) = item, shared
        return better(network, stream, best, state, data, task, number)

    def look(state: TrainState, slot: Slot, traced: Any) -> View:
        """Without a program if nothing is to be computed."""
        made = parts(method.traced)
        if made.intervention and made.intervention.reported:
            seen: View = reported((state, slot), traced)
            return seen
        return view(made, state)

    def score(item: Any, shared: Any) -> Any:
        (state, slot, task), (traced, *rest) = item, shared
        return score_view((look(state, slot, traced)._replace(twin=()), task), rest)

    def measure_group(group: tuple[str, ...], has_rule: bool, item: Any, shared: Any) -> Any:
        (views, slot, task), (traced, data, probe, index) = item, shared
        key = jax.random.fold_in(slot.keys.probe, index)
        rule = Rule(parts(traced | slot.own).optimizer, config.batch_size) if has_rule else None
        return measure(make_subject(network, stream, views, key, data, task, probe, rule), group)

    def measuring(group: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        has_rule = any("rule" in DIAGNOSTICS[name].needs for name in group)
        measure_views = (axis.over_seeds if has_rule else sharing(*group))(
            functools.partial(measure_group, group, has_rule)
        )

        def measure_states(item: Any, shared: Any) -> Any:
            (states, slot, task), (traced, *rest) = item, shared
            views = tuple(look(state, slot, traced) for state in states)
            return measure_views((views, slot, task), (traced if has_rule else {}, *rest))

        return measure_states

    def sharing(*names: str) -> Callable[[Any], Callable[[Any, Any], Any]]:
        """Compiles a function of the network and the stream alone, once for all methods that have these."""
        return lambda f: programs.setdefault((names, id(network), id(stream), num_slots), axis.over_seeds(f))

    axis = seed_axis(num_slots, network, batching)
    reported = axis.over_seeds(lambda item, traced: view(parts(traced | item[1].own), item[0]))
    score_view = sharing("evaluate")(
        lambda item, shared: evaluate(stream, network, item[0][:2], shared[0], item[1], shared[1])
    )
    measured = [name for name in method.diagnostics if DIAGNOSTICS[name].measure]
    always = tuple(name for name in measured if DIAGNOSTICS[name].cost in ALWAYS)
    groups = [*([always] if always else []), *((name,) for name in measured if name not in always)]
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda slot, index: stream.task(slot.keys.tasks, index)),
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train),
        no_epoch=axis.over_seeds(lambda state, _: no_epoch(state)),
        better=axis.over_seeds(improve),
        evaluate=score,
        measure={group: measuring(group) for group in groups},
    )
