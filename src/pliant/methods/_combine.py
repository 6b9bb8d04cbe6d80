"""Combinations of methods, such as `redo+layernorm` and `adamo+l2-init`."""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from pliant.errors import UserError
from pliant.methods._parts import Joined, Member, parameters
from pliant.optimizers import adam
from pliant.types import Forward, Info, Intervention, Key, Learned, Method, Network, Params, Penalty, Scalar, State

_RATE = "learning_rate"  # one for all parts that ask for it


def combine(*methods: Method) -> Method:
    """Combines several methods into one: their network changes, penalties, optimizer and interventions.

    Use it through names joined by "+" on the command line, or directly for methods of your own.

    Penalties are added up; interventions run one after the other, in the order given; schedules multiply. At most one
    of the methods may bring an optimizer of its own, the others' is Adam. Hyperparameters keep their names; those that
    several members have get the member's name in front, such as `l2_init_strength`, but the optimizer's do not.

    Args:
      methods: at least one, each with another name.

    Returns:
      A `Method` whose name joins theirs with "+"; one method alone is returned as it is.

    Raises:
      UserError: for methods that cannot go together: a name twice, two optimizers, two values for one option of the
        network, two that change the targets, two that are evaluated by another network than the trained one, one that
        draws a new network beside one that remembers something of the old one, and for hyperparameters that would
        have one name.

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

    def joined(part: str, join: Callable[..., Any]) -> Any:
        pairs = zip(methods, renamed, strict=True)
        found = tuple(Member(m.name, getattr(m, part), names) for m, names in pairs if getattr(m, part))
        return Joined(found, join) if found else None

    parts = {part: joined(part, join) for part, join in _JOINS.items()}
    return Method(
        name="+".join(method.name for method in methods),
        summary="; ".join(method.summary for method in methods),
        reference="; ".join(method.reference for method in methods),
        optimizer=next((method.optimizer for method in methods if method.optimizer), None),
        network={name: value for method in methods for name, value in method.network.items()},
        replaces={name: value for method in methods for name, value in method.replaces.items()},
        space={names[key]: each for m, names in zip(methods, renamed, strict=True) for key, each in m.space.items()},
        off={names[key]: off for m, names in zip(methods, renamed, strict=True) for key, off in m.off.items()},
        base=next((m.base if m.off else m.name for m in methods if m.optimizer), "adam"),
        boundary_aware=any(method.boundary_aware for method in methods),
        redraws=any(method.redraws for method in methods),
        remembers=" and ".join(method.remembers for method in methods if method.remembers),
        alone=next((method.alone for method in methods if method.alone), ""),
        **parts,
    )


def _check(methods: Sequence[Method]) -> None:
    name = "+".join(method.name for method in methods)
    own = {"optimizer": [method.name for method in methods if method.optimizer]}
    own |= {part: [m.name for m in methods if getattr(m, part)] for part in ("targets", "replaces")}
    own["name"] = [method.name for method in methods if name.split("+").count(method.name) > 1]
    for option in {option for method in methods for option in method.network}:
        having = [method for method in methods if option in method.network]
        if len({having[0].network[option]} | {method.network[option] for method in having}) > 1:
            own[f"{option} of the network"] = [method.name for method in having]
    wanted = {
        "optimizer": "at most one with an optimizer of its own",
        "targets": "at most one that changes them",
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
    """For every method, from its own names to those in the combination.

    What several have gets the method's name in front, and so does what would then have the name of another: the
    `l2_strength` of effective-rank beside the `strength` of l2.
    """
    optimizers = [set(parameters(method.optimizer or adam)) for method in methods]
    extra = [names - set(parameters(adam)) for names in optimizers]
    own = [
        {name for part in _JOINS if getattr(method, part) for name in parameters(getattr(method, part))} - {_RATE}
        for method in methods
    ]
    number = Counter(name for a, b in zip(own, extra, strict=True) for name in a | b)
    long = [
        {name: f"{_prefix(method.name)}_{name}" for name in names} for method, names in zip(methods, own, strict=True)
    ]
    taken = {new for names in long for name, new in names.items() if number[name] > 1}
    renamed = [
        {name: new if number[name] > 1 or name in taken else name for name, new in names.items()} for names in long
    ]
    _check_names(methods, [*(names.values() for names in renamed), *(a - b for a, b in zip(extra, own, strict=True))])
    return [{name: name for name in a | {_RATE}} | b for a, b in zip(optimizers, renamed, strict=True)]


def _check_names(methods: Sequence[Method], names: Sequence[Collection[str]]) -> None:
    (name, times), *_ = Counter(name for some in names for name in some).most_common(1) or [("", 0)]
    if times > 1:
        raise UserError(
            got=f"the combination {'+'.join(method.name for method in methods)!r}, with two hyperparameters {name!r}",
            wanted="another name for each",
            do="Leave one of the methods out, or rename your own.",
        )


def _only(members: Sequence[Member], values: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    (member,) = members
    return member.make(values, **given)


def _successive(members: Sequence[Member], values: Mapping[str, Any], given: Mapping[str, Any]) -> Network:
    """Each gets the network that the one before it returned."""
    network: Network = given["network"]
    for member in members:
        network = member.make(values, network=network)
    return network


def _sum(members: Sequence[Member], values: Mapping[str, Any], given: Mapping[str, Any]) -> Penalty:
    penalties: list[Penalty] = [member.make(values, **given) for member in members]

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


def _chain(members: Sequence[Member], values: Mapping[str, Any], given: Mapping[str, Any]) -> Intervention:
    names = [member.method for member in members]
    parts: list[Intervention] = [member.make(values, **given) for member in members]
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


def _product(members: Sequence[Member], values: Mapping[str, Any], given: Mapping[str, Any]) -> Callable[[Any], Any]:
    schedules = [member.make(values, **given) for member in members]
    return lambda fraction: functools.reduce(operator.mul, [schedule(fraction) for schedule in schedules])


def _prefix(method: str) -> str:
    return method.replace("-", "_")


_JOINS: Mapping[str, Callable[..., Any]] = {
    "penalty": _sum,
    "intervention": _chain,
    "schedule": _product,
    "wrap": _successive,
    "targets": _only,
}
