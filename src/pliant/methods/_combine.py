"""Several methods as one: `redo+layernorm`, `adamo+l2-init`."""

import functools
import inspect
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from pliant.errors import UserError
from pliant.methods._builders import adam_optimizer
from pliant.settings import options
from pliant.types import Forward, Info, Intervention, Key, Learned, Method, Params, Penalty, Scalar, State

_PARTS = ("penalty", "intervention", "schedule", "wrap", "targets")


def combine(*methods: Method) -> Method:
    """Makes one method of several: their changes to the network, penalties, optimizer and interventions together.

    Penalties are added up; interventions run one after the other, in the order given; schedules multiply. At most one
    of the methods may bring an optimizer of its own, the others' is Adam. Hyperparameters keep their names; those that
    several members have get the member's name in front, such as `l2_init_strength`, but the optimizer's.

    Args:
      methods: at least one, each with another name.

    Returns:
      A `Method` whose name joins theirs with "+"; one method alone is returned as it is.

    Raises:
      UserError: for methods that cannot go together: a name twice, two optimizers, two values for one option of the
        network, two that pose the tasks anew, two that are evaluated by another network than the trained one, one that
        draws the network anew beside one that remembers something of the old one.

    Example:
      >>> from pliant.methods import METHODS, defaults
      >>> both = combine(METHODS["redo"], METHODS["l2-init"])
      >>> both.name, defaults(both)["strength"], defaults(both)["threshold"]
      ('redo+l2-init', 0.01, 0.025)

    References:
      The definition is ours.

    Differs from:
      Plasticine, whose branches exclude one another, and whose run names keep the first method only.
    """
    if len(methods) == 1:
        return methods[0]
    _check(methods)
    renamed = _hyperparameter_names(methods)

    def members(part: str) -> list["_Member"]:
        found = zip(methods, renamed, strict=True)
        return [_Member(m.name, getattr(m, part), names) for m, names in found if getattr(m, part)]

    joins: dict[str, Callable[..., Any]] = {"penalty": _sum, "intervention": _chain, "schedule": _product}
    parts: dict[str, Any] = {part: _joined(members(part), join) for part, join in joins.items() if members(part)}
    parts |= {part: _successive(members(part)) for part in ("wrap", "targets") if members(part)}
    return Method(
        name="+".join(method.name for method in methods),
        summary="; ".join(method.summary for method in methods),
        reference="; ".join(method.reference for method in methods),
        optimizer=next((m.optimizer for m in methods if m.optimizer is not adam_optimizer), adam_optimizer),
        network={name: value for method in methods for name, value in method.network.items()},
        replaces={name: value for method in methods for name, value in method.replaces.items()},
        off={names[key]: off for m, names in zip(methods, renamed, strict=True) for key, off in m.off.items()},
        base=next((m.base if m.off else m.name for m in methods if m.optimizer is not adam_optimizer), "adam"),
        boundary_aware=any(method.boundary_aware for method in methods),
        redraws=any(method.redraws for method in methods),
        remembers=" and ".join(method.remembers for method in methods if method.remembers),
        alone=next((method.alone for method in methods if method.alone), ""),
        **parts,
    )


class _Member(NamedTuple):
    """A builder of one of the methods, with the names that its hyperparameters have in the combination."""

    method: str
    builder: Callable[..., Any]
    names: Mapping[str, str]

    def build(self, first: Any, values: Mapping[str, Any]) -> Any:
        return self.builder(first, **{name: values[self.names[name]] for name in options(self.builder)})

    def parameters(self) -> list[inspect.Parameter]:
        return [option.replace(name=self.names[name]) for name, option in options(self.builder).items()]


def _check(methods: Sequence[Method]) -> None:
    name = "+".join(method.name for method in methods)
    own = {"optimizer": [m.name for m in methods if m.optimizer is not adam_optimizer]}
    own |= {part: [m.name for m in methods if getattr(m, part)] for part in ("targets", "replaces")}
    own["name"] = [method.name for method in methods if name.split("+").count(method.name) > 1]
    for option in {option for method in methods for option in method.network}:
        having = [method for method in methods if option in method.network]
        if len({having[0].network[option]} | {method.network[option] for method in having}) > 1:
            own[f"{option} of the network"] = [method.name for method in having]
    wanted = {
        "optimizer": "at most one with an optimizer of its own",
        "targets": "at most one that poses the tasks anew",
        "replaces": "at most one that replaces the network",
        "name": "every method once",
    }
    for what, names in own.items():
        if len(names) > 1:
            raise UserError(
                got=f"the combination {name!r}: {' and '.join(names)} both bring the {what}",
                wanted=wanted.get(what, "at most one that changes it"),
                do="Leave one of them out.",
            )
    _check_memory(name, methods)
    _check_alone(name, methods)


def _check_memory(name: str, methods: Sequence[Method]) -> None:
    redrawing = next((method.name for method in methods if method.redraws), None)
    remembering = next((method for method in methods if method.remembers), None)
    if redrawing and remembering:
        raise UserError(
            got=f"the combination {name!r}: {redrawing} draws a new network for every task, and {remembering.name} "
            f"remembers {remembering.remembers} of the old one",
            wanted="a new network only beside what remembers nothing",
            do="Leave one of them out, or reset less, as with 'head-reset'.",
        )


def _check_alone(name: str, methods: Sequence[Method]) -> None:
    alone = next((method for method in methods if method.alone), None)
    others = [method.name for method in methods if method is not alone and (method.intervention or method.remembers)]
    if alone and others:
        raise UserError(
            got=f"the combination {name!r}: {alone.name} {alone.alone}, and {others[0]} rewrites or remembers weights",
            wanted=f"{alone.name} beside optimizers, networks and penalties without a memory",
            do="Leave one of them out.",
        )


def _hyperparameter_names(methods: Sequence[Method]) -> list[dict[str, str]]:
    """For every method, from its own names to those in the combination."""
    own = [
        {name for part in _PARTS if getattr(method, part) for name in options(getattr(method, part))}
        for method in methods
    ]
    optimizers = [set(options(method.optimizer)) for method in methods]
    shared = set(options(adam_optimizer))
    extra = [names - shared for names in optimizers]
    number = Counter(name for a, b in zip(own, extra, strict=True) for name in a | b)
    result = []
    for method, names, of_optimizer in zip(methods, own, optimizers, strict=True):
        prefixed = {name: f"{_prefix(method.name)}_{name}" if number[name] > 1 else name for name in names}
        result.append({name: name for name in of_optimizer} | prefixed)
    return result


def _joined(members: Sequence[_Member], join: Callable[[Sequence[str], Sequence[Any]], Any]) -> Callable[..., Any]:
    def builder(wiring: Any, **values: Any) -> Any:
        return join([member.method for member in members], [member.build(wiring, values) for member in members])

    return _signed(builder, members)


def _successive(members: Sequence[_Member]) -> Callable[..., Any]:
    """Each gets what the one before it returned."""

    def builder(first: Any, **values: Any) -> Any:
        return functools.reduce(lambda so_far, member: member.build(so_far, values), members, first)

    return _signed(builder, members)


def _signed(builder: Callable[..., Any], members: Sequence[_Member]) -> Callable[..., Any]:
    first = inspect.Parameter("first", inspect.Parameter.POSITIONAL_ONLY)
    named = [parameter for member in members for parameter in member.parameters()]
    builder.__signature__ = inspect.Signature([first, *named])  # type: ignore[attr-defined]
    return builder


def _sum(names: Sequence[str], penalties: Sequence[Penalty]) -> Penalty:
    del names

    def init(params: Params) -> State:
        return tuple(penalty.init(params) for penalty in penalties)

    def loss(params: Params, states: State, forward: Forward | None) -> tuple[Scalar, State]:
        found = [penalty.loss(params, state, forward) for penalty, state in zip(penalties, states, strict=True)]
        return functools.reduce(lambda total, one: total + one, [value for value, _ in found]), tuple(
            s for _, s in found
        )

    def switch(params: Params, states: State) -> State:
        pairs = zip(penalties, states, strict=True)
        return tuple(penalty.switch(params, state) if penalty.switch else state for penalty, state in pairs)

    return Penalty(init, loss, switch if any(penalty.switch for penalty in penalties) else None)


def _chain(names: Sequence[str], parts: Sequence[Intervention]) -> Intervention:
    reporting = [part for part in parts if part.reported]
    if len(reporting) > 1:
        raise UserError(
            got=f"{' and '.join(names)}, two of which are evaluated by another network than the trained one",
            wanted="at most one",
            do="Leave one of them out.",
        )

    def init(learned: Learned) -> State:
        return tuple(part.init(learned) for part in parts)

    def run(hook: str, key: Key, when: Any, learned: Learned, states: State, seen: Any) -> tuple[Learned, State, Info]:
        after, told = list(states), dict[str, Any]()
        for i, (name, part) in enumerate(zip(names, parts, strict=True)):
            function = getattr(part, hook)
            if function:
                learned, after[i], info = function(jax.random.fold_in(key, i), when, learned, states[i], seen)
                told |= {f"{_prefix(name)}_{what}" if what in told else what: value for what, value in info.items()}
        return learned, tuple(after), told

    def hook(name: str) -> Callable[..., Any] | None:
        return functools.partial(run, name) if any(getattr(part, name) for part in parts) else None

    def reported(learned: Learned, states: State) -> tuple[Params, State]:
        found = [part.reported(learned, state) for part, state in zip(parts, states, strict=True) if part.reported]
        return found[0]

    return Intervention(init, hook("update"), hook("switch"), reported if reporting else None)


def _product(names: Sequence[str], schedules: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    del names
    return lambda fraction: functools.reduce(operator.mul, [schedule(fraction) for schedule in schedules])


def _prefix(method: str) -> str:
    return method.replace("-", "_")
