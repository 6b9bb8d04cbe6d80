"""What is seen of a learner at the end of a task: scores and diagnostics, over all seeds."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

from pliant.diagnostics import DIAGNOSTICS, measure
from pliant.methods import Parts
from pliant.training._diagnose import ALWAYS, View, make_subject, view
from pliant.training._evaluate import evaluate
from pliant.training._plan import MethodPlan
from pliant.training._seeds import SeedAxis
from pliant.training._step import SeedSlot, TrainState
from pliant.types import Rule

Program: TypeAlias = Callable[[Any, Any], Any]
"""A compiled function: its first argument has a slot axis, its second is shared by all slots."""


class Observers(NamedTuple):
    """Functions of states of training. What they compile knows the network that the method reports, not the method."""

    evaluate: Program
    """((state, slot, task), (traced, data, numbers of examples)) -> scores"""
    measure: Mapping[tuple[str, ...], Program]
    """((states, slot, task), (traced, data, probe indices, task index)) -> what diagnostics found: of those that are
    measured after every task together, and of each other one; states are of now, of the start, and of the end of the
    task before"""


def observe(
    method: MethodPlan, axis: SeedAxis, parts: Callable[[Any], Parts], batch_size: int, programs: dict[Any, Program]
) -> Observers:
    """Makes what looks at one method's learning.

    Args:
      method: the method with its network, tasks and diagnostics.
      axis: of its slots.
      parts: `parts(hyperparameters) -> the method, built`.
      batch_size: of training.
      programs: those that earlier methods have compiled; where network and stream are the same they are used again.
    """
    network, stream = method.network, method.stream

    def sharing(*names: str) -> Callable[[Program], Program]:
        """Compiles a function of the network and the stream alone, if no earlier method has."""
        return lambda f: programs.setdefault((names, id(network), id(stream), axis.num_slots), axis.over_seeds(f))

    reported = axis.over_seeds(lambda item, traced: view(parts(traced | item[1].own), item[0]))
    score_view = sharing("evaluate")(
        lambda item, shared: evaluate(stream, network, item[0][:2], shared[0], item[1], shared[1])
    )

    def look(state: TrainState, slot: SeedSlot, traced: Any) -> View:
        """Without a program if nothing is to be computed."""
        made = parts(method.traced)
        if made.intervention and made.intervention.reported:
            seen: View = reported((state, slot), traced)
            return seen
        return view(made, state)

    def score(item: Any, shared: Any) -> Any:
        (state, slot, task), (traced, *rest) = item, shared
        return score_view((look(state, slot, traced)._replace(twin=()), task), rest)

    def measure_views(group: tuple[str, ...], has_rule: bool, item: Any, shared: Any) -> Any:
        (views, slot, task), (traced, data, probe, index) = item, shared
        key = jax.random.fold_in(slot.keys.probe, index)
        rule = Rule(parts(traced | slot.own).optimizer, batch_size) if has_rule else None
        return measure(make_subject(network, stream, views, key, data, task, probe, rule), group)

    def measuring(group: tuple[str, ...]) -> Program:
        has_rule = any("rule" in DIAGNOSTICS[name].needs for name in group)
        compiling = axis.over_seeds if has_rule else sharing(*group)
        program = compiling(functools.partial(measure_views, group, has_rule))

        def measure_states(item: Any, shared: Any) -> Any:
            (states, slot, task), (traced, *rest) = item, shared
            views = tuple(look(state, slot, traced) for state in states)
            return program((views, slot, task), (traced if has_rule else {}, *rest))

        return measure_states

    measured = [name for name in method.diagnostics if DIAGNOSTICS[name].measure]
    always = tuple(name for name in measured if DIAGNOSTICS[name].cost in ALWAYS)
    groups = [*([always] if always else []), *((name,) for name in measured if name not in always)]
    return Observers(score, {group: measuring(group) for group in groups})
