"""From the names of a protocol to what they stand for: every choice is checked before anything is trained."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pliant.diagnostics import SETS, choose
from pliant.errors import UserError
from pliant.methods import METHODS, Parts, build, split_spec, split_static, with_settings, wrapped
from pliant.results import RunRecord
from pliant.settings import Value, cast, options
from pliant.specs import Objects, name_of, users_code
from pliant.training._diagnose import unmeasurable
from pliant.training._network import Others, make_network, network_factory
from pliant.training._protocol import Protocol
from pliant.training._record import record_method
from pliant.training._settings import with_options
from pliant.types import Diagnostic, Forward, Method, Network, Source

_BASIC = choose(("basic",))


class MethodPlan(NamedTuple):
    """A method, its hyperparameters, its network and where its batches come from."""

    method: Method
    spec: str
    """What the configuration calls it: a name, or a file and a name."""
    static: dict[str, Value]
    """Hyperparameters that shape the program."""
    traced: dict[str, Value]
    """Hyperparameters that are arguments of the program."""
    network_name: str
    """What the configuration calls it, or what the method has in its place."""
    network_options: dict[str, Any]
    network: Network
    source: Source
    """The problem's, or what the method makes of it."""
    points: tuple[dict[str, Value], ...] = ({},)
    """Of a grid: hyperparameters that replace traced ones, each combination with all seeds."""
    diagnostics: tuple[Diagnostic, ...] = _BASIC
    unmeasured: Mapping[str, str] = {}
    """Diagnostics of a set that this network cannot be measured with, and why."""
    specs: Mapping[str, Sequence[Any]] = {}
    """What was asked for, by kind: names, files and names, or objects."""
    branch: str | None = None
    """The branch of the network that the method acts on; None for all."""
    configuration: Mapping[str, Any] = {}
    """What its numbers depend on beside the configuration of the run, as JSON data."""

    def parts(self, values: Mapping[str, Any], **moment: Any) -> Parts:
        """The method, built for its network; see `pliant.methods.build`.

        Args:
          values: hyperparameters that replace those of the plan, numbers or traced scalars.
          **moment: see `build`.
        """
        own = {**self.static, **self.traced, **values}
        return build(self.method, self.network.wiring, own, branch=self.branch, **moment)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the metrics call the method: its name, with the point of the grid if there is one."""
        texts = [",".join(f"{name}={value}" for name, value in point.items()) for point in self.points]
        return tuple(f"{self.method.name}[{text}]" if text else self.method.name for text in texts)


class Plan(NamedTuple):
    """A run with everything that it names made."""

    protocol: Protocol
    problem: str
    dataset: str
    record: RunRecord
    """What all methods have in common, as it is stored."""
    methods: tuple[MethodPlan, ...]
    specs: Mapping[str, Sequence[Any]] = {}
    """What was asked for that all methods share, by kind."""


def plan_method(
    protocol: Protocol,
    spec: str,
    method: Method,
    pose: Callable[..., Source],
    settings: Mapping[str, Mapping[str, str]],
    grid: Mapping[str, Mapping[str, str]],
    earlier: Sequence[MethodPlan],
    objects: Objects,
    specs: Mapping[str, Sequence[Any]],
    branch: str | None = None,
) -> MethodPlan:
    """Makes what one method needs; a network that an earlier method has is not made again.

    Args:
      protocol: how all methods are trained.
      spec: what the configuration calls the method.
      method: the method.
      pose: `pose(method, static hyperparameters, numbers={}) -> the source`, the same object for the same problem;
        `numbers` replace some of the source's.
      settings: of the method and of the network, by name.
      grid: values to try, of methods and of the source, by name.
      earlier: the methods before.
      objects: given in Python.
      specs: what was asked for that all methods share, by kind: the problem and the diagnostics.
      branch: the branch of the network that the method changes and acts on, such as "actor"; by default all.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    name = method.replaces.get(protocol.network, protocol.network)
    asked = {
        "method": split_spec(objects.spec("method", spec)),
        "network": [objects.spec("network", name)],
    }
    with users_code({**specs, **asked}):
        factory = network_factory(*asked["network"])
        values = with_settings(method, settings[method.name], protocol.learning_rate)
        static, traced = split_static(method, values)
        source = pose(method, static)
        network_options = _network_options(protocol, method, name, factory, settings[name_of(protocol.network)])
        same = [
            other.network
            for other in earlier
            if (other.network_name, other.network_options) == (name, network_options)
            and other.source is source
            and not other.method.wrap
        ]
        others = None
        if branch is not None:
            plain = network_factory(objects.spec("network", protocol.network))
            of_others = _network_options(
                protocol, METHODS["adam"], protocol.network, plain, settings[name_of(protocol.network)]
            )
            others = Others(branch, plain, of_others, lambda network: wrapped(method, network, static))
        network = (
            same[0]
            if same and not (others and method.wrap)
            else make_network(name, factory, network_options, source, others)
        )
        _check_head(protocol, method, network)
        if others is None:
            network = wrapped(method, network, static)
        plan = MethodPlan(
            method, spec, static, traced, name, network_options, network, source, specs=asked, branch=branch
        )
        plan.parts({})  # numbers are checked here: inside a compiled program they are traced
        _check_penalty(plan)
        points = _points(plan, grid, protocol.learning_rate, functools.partial(pose, method, static))
        of_network = {"name": name_of(name)} | network_options
        configuration = record_method(protocol, spec, method, static | traced, points, of_network, asked, source.name)
        plan = plan._replace(points=points, configuration=configuration)
        return _with_diagnostics(protocol, plan, earlier, specs["diagnostic"])


def _check_penalty(plan: MethodPlan) -> None:
    """Lets a penalty refuse the outputs of the network; found by tracing it, nothing is computed."""
    network, source = plan.network, plan.source

    def trace(inputs: Any) -> Any:
        params, statistics = network.init(jax.random.key(0))
        penalty = plan.parts({}).penalty
        assert penalty

        def evaluate(params: Any, inputs: Any) -> tuple[Any, Any]:
            return network.apply(params, statistics, inputs, train=False, key=jax.random.key(0))[:2]

        output, features, _ = network.apply(params, statistics, inputs, train=True, key=jax.random.key(0))
        forward = Forward(inputs, output, features, jnp.zeros(()), evaluate, lambda _: inputs)
        return penalty.loss(params, penalty.init(params), forward)

    if plan.method.penalty:
        jax.eval_shape(
            trace, jax.tree.map(lambda each: jax.ShapeDtypeStruct((2, *each.shape), each.dtype), source.inputs)
        )


def _points(
    plan: MethodPlan, grid: Mapping[str, Mapping[str, str]], learning_rate: float, pose: Callable[..., Source]
) -> tuple[dict[str, Value], ...]:
    """All combinations of values to try, of a method and of its source, each checked as a setting is."""
    name, source = plan.method.name, plan.source
    axes: list[list[dict[str, Value]]] = []
    for option, texts in grid.get(source.name, {}).items():
        if option not in source.numbers:
            raise UserError(
                got=f"--grid {source.name}.{option}",
                wanted=f"numbers of {source.name}: {', '.join(source.numbers) or 'it has none'}",
                do=f"Use --set {source.name}.{option}=VALUE, one run for each, if it is another option.",
            )
        found = [cast(f"{source.name}.{option}", text, source.numbers[option], float) for text in texts.split(",")]
        _check_different(f"{source.name}.{option}={texts}", found)
        for value in found:
            pose({option: value})
        axes.append([{f"{source.name}.{option}": value} for value in found])
    varied = [option for target in grid[name] for option in target.split(":")]
    if len(set(varied)) < len(varied):
        raise UserError(
            got=f"--grid with {max(varied, key=varied.count)} twice for {name}", wanted="each once", do="Drop one."
        )
    axes += [_axis(plan, target, texts, learning_rate) for target, texts in grid[name].items()]
    points = tuple(
        {option: value for part in point for option, value in part.items()} for point in itertools.product(*axes)
    )
    for point in points:
        plan.parts(point)
    return points


def _axis(plan: MethodPlan, target: str, texts: str, learning_rate: float) -> list[dict[str, Value]]:
    """The values of one entry of a grid: of an option, or of several joined by colons, which vary together."""
    name, names = plan.method.name, target.split(":")
    found = []
    for option in names:
        if option in plan.static:
            raise UserError(
                got=f"--grid {name}.{option}, which shapes the compiled program",
                wanted=f"numbers: {', '.join(plan.traced)}",
                do=f"Use --set {name}.{option}=VALUE, one run for each.",
            )
    for text in texts.split(","):
        if text.count(":") != len(names) - 1:
            do = f"Write for example {name}.{target}={':'.join(str(plan.traced.get(each, 1)) for each in names)}."
            raise UserError(
                got=f"--grid {name}.{target}={text}", wanted=f"{len(names)} values with colons between", do=do
            )
        settings = dict(zip(names, text.split(":"), strict=True))
        values = with_settings(plan.method, settings, learning_rate)
        found.append({option: values[option] for option in names})
    _check_different(f"{name}.{target}={texts}", [tuple(each.values()) for each in found])
    return found


def _check_different(entry: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        raise UserError(got=f"--grid {entry}", wanted="every value once", do="Drop the repeated one.")


def _with_diagnostics(
    protocol: Protocol, plan: MethodPlan, earlier: Sequence[MethodPlan], words: Sequence[Any]
) -> MethodPlan:
    """What is measured: of a set what can be, of what is named everything."""
    chosen = choose(words)
    if all(any(each is basic for basic in _BASIC) for each in chosen):  # these fit everywhere
        return plan._replace(diagnostics=chosen)
    same = [other for other in earlier if other.network is plan.network and other.source is plan.source]
    reasons = (
        same[0].unmeasured
        if same
        else unmeasurable(
            chosen,
            plan.network,
            functools.partial(plan.parts, {}),
            plan.source,
            protocol.batch_size,
        )
    )
    of_sets = {each.name for each in choose([word for word in words if word in tuple(SETS)])}
    named = [name for name in reasons if name not in of_sets]
    if named:
        raise UserError(
            got=f"the diagnostic {named[0]!r} for {plan.method.name!r}",
            wanted="one that can measure this network on this stream",
            do=f"Leave it out: {reasons[named[0]]}",
        )
    measured = tuple(each for each in chosen if each.name not in reasons)
    return plan._replace(diagnostics=measured, unmeasured=reasons)


def _network_options(
    protocol: Protocol, method: Method, name: str, factory: Callable[..., Network], settings: Mapping[str, str]
) -> dict[str, Any]:
    """The options that the network is made with: its own, the protocol's flags, the method's changes."""
    own_flags = {"use_bias": protocol.use_bias} | ({"widths": protocol.widths} if protocol.widths is not None else {})
    missing = [flag for flag in own_flags if flag not in options(factory)]
    if "widths" in missing:
        raise UserError(
            got=f"widths for the network {name!r}",
            wanted="a network with dense layers to size",
            do="See `pliant list networks` for its own options (--set).",
        )
    chosen = with_options(factory, name_of(protocol.network), settings, skip=("use_bias",))
    chosen |= {flag: value for flag, value in own_flags.items() if flag not in missing}
    return chosen | _network_changes(method, name, options(factory), chosen)


def _network_changes(method: Method, network: str, known: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The method's changes, which the network must know, to the options given; multipliers of widths multiply."""
    unknown = [name for name in method.network if name not in known]
    if method.replaces and network not in method.replaces.values():
        raise UserError(
            got=f"the method {method.name!r}, which replaces the network, with {network!r}",
            wanted=f"one of {', '.join(method.replaces)}",
            do=f"Add --network {next(iter(method.replaces))}, or leave the method out.",
        )
    if unknown:
        raise UserError(
            got=f"the method {method.name!r}, which changes {', '.join(unknown)}, with the network {network!r}",
            wanted=f"a network with that option; {network} has {', '.join(known)}",
            do="Leave the method out, or choose another --network.",
        )
    changes = dict(method.network)
    if "width_multiplier" in changes:
        changes["width_multiplier"] *= given["width_multiplier"]
    return changes


def _check_head(protocol: Protocol, method: Method, network: Network) -> None:
    """A head that is to change at a switch must be one of its own, and all in the parameters."""
    if protocol.head_at_switch != "keep" and method.alone:
        raise UserError(
            got=f"head_at_switch={protocol.head_at_switch!r} for {method.name!r}, which {method.alone}",
            wanted="the head kept when the task changes",
            do="Leave head_at_switch or the method out.",
        )
    if protocol.head_at_switch != "keep" and not network.wiring.head_leaves:
        raise UserError(
            got=f"head_at_switch={protocol.head_at_switch!r} for the network {protocol.network!r}, whose head is tied",
            wanted="a network with an output layer of its own",
            do=f"Leave it out, or untie the head, such as --set {protocol.network}.tie_embeddings=false.",
        )
