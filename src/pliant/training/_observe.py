"""What is seen of a learner at the end of a task: scores and diagnostics, over all seeds."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pliant.diagnostics import measure
from pliant.keys import Draw, draw_key
from pliant.methods import Parts, TrainState, View, view
from pliant.training._diagnose import ALWAYS, make_subject
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Program, SeedAxis
from pliant.training._state import SeedSlot
from pliant.types import Diagnostic, Rule, Scene, Source, State


class Shared(NamedTuple):
    """What programs are given once for all slots."""

    traced: Any
    """Hyperparameters of the method."""
    data: Any
    """The source's, as the next."""
    facts: Any = ()
    index: Any = 0
    """Of the task."""
    point: Any = np.int32(0)
    """Updates of the run before a point of a learning curve that is evaluated; 0 at the end of a task."""
    pace: Any = ()
    fed: Any = ()
    """What all seeds are fed."""
    numbers: Mapping[str, Any] = {}
    """Hyperparameters of the source."""


def numbers_of(source: Source, shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a source, with those that a point of a grid replaces; these have its name before them."""
    return {name: own.get(f"{source.name}.{name}", value) for name, value in shared.items()}


class Observed(NamedTuple):
    """What is looked at, with a slot axis."""

    views: Any
    """A `View`, or `Views` for diagnostics."""
    slot: SeedSlot
    source_state: State
    task: Any


class Group(NamedTuple):
    """Diagnostics that are measured by one program."""

    diagnostics: tuple[Diagnostic, ...]
    program: Program
    """(`Observed`, `Shared`) -> what they found, by name"""


class Observers(NamedTuple):
    """Evaluation and diagnostics, compiled. Programs depend on network and source, so methods share them."""

    look: Callable[[TrainState, SeedSlot, Any], View]
    """(state, slot, traced) -> the network that the method reports; no program if nothing is to be computed"""
    evaluate: Program
    """(`Observed`, `Shared`) -> scores"""
    groups: Sequence[Group]
    """For each moment one of all diagnostics that are measured in every task; one of each other diagnostic, or of
    those that share a device part"""


def observe(
    method: MethodPlan, axis: SeedAxis, parts: Callable[[Any], Parts], batch_size: int, programs: dict[Any, Program]
) -> Observers:
    """Makes what looks at one method's learning.

    Args:
      method: the method with its network, source and diagnostics.
      axis: of its slots.
      parts: `parts(hyperparameters) -> the method, built`.
      batch_size: of training.
      programs: those that earlier methods have compiled; where network and source are the same they are used again.
    """
    network, source = method.network, method.source

    def sharing(*names: str) -> Callable[[Program], Program]:
        """Compiles a function of the network and the source alone, if no earlier method has."""

        def compiled(f: Program) -> Program:
            program = programs.setdefault((names, id(network), id(source), axis.num_slots), axis.over_seeds(f))

            def of_source(item: Observed, shared: Shared) -> Any:
                own = {name: value for name, value in item.slot.own.items() if name.startswith(f"{source.name}.")}
                return program(item._replace(slot=item.slot._replace(own=own)), shared._replace(traced=()))

            return of_source

        return compiled

    reported = axis.over_seeds(lambda item, traced: view(parts(traced | item[1].own), item[0]))

    def look(state: TrainState, slot: SeedSlot, traced: Any) -> View:
        made = parts(method.traced)
        if made.intervention and made.intervention.reported:
            seen: View = reported((state, slot), traced)
            return seen
        return view(made, state)

    def scene(item: Observed, shared: Shared, draw: Draw) -> Scene:
        key = draw_key(item.slot.keys.probe, draw, shared.index)
        return Scene(key, shared.data, item.task, shared.facts, numbers_of(source, shared.numbers, item.slot.own))

    def score(item: Observed, shared: Shared) -> Any:
        of_point = draw_key(item.slot.keys.probe, Draw.POINT, shared.point)
        seen = scene(item, shared, Draw.EVALUATION)
        seen = seen._replace(key=jnp.where(shared.point > 0, of_point, seen.key))
        return source.evaluate(network, item.views, seen, item.source_state)

    def measure_views(group: Sequence[Diagnostic], has_rule: bool, item: Observed, shared: Shared) -> Any:
        key = jax.random.fold_in(item.slot.keys.probe, shared.index)
        rule = Rule(parts(shared.traced | item.slot.own).optimizer, batch_size) if has_rule else None
        seen = scene(item, shared, Draw.EXAMPLES)
        subject = make_subject(network, source, item.views, key, seen, item.source_state, rule)
        return measure(subject, group)

    def grouped(diagnostics: tuple[Diagnostic, ...]) -> Group:
        has_rule = any("rule" in each.needs for each in diagnostics)
        compiling = axis.over_seeds if has_rule else sharing(*(each.name for each in diagnostics))
        return Group(diagnostics, compiling(functools.partial(measure_views, diagnostics, has_rule)))

    groups: dict[Any, tuple[Diagnostic, ...]] = {}
    for each in method.diagnostics:
        if each.measure:
            kind = (each.moment, "always" if each.cost in ALWAYS else (each.cost, id(each.measure)))
            groups[kind] = (*groups.get(kind, ()), each)
    in_order = sorted(groups.values(), key=lambda group: group[0].cost not in ALWAYS)
    return Observers(look, sharing()(score), [grouped(group) for group in in_order])
