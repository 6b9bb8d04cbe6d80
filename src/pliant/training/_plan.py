"""From a configuration to what it names: every choice is checked before anything is trained."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pliant.diagnostics import SETS, choose
from pliant.errors import UserError, unknown_name
from pliant.methods import build, find, retarget, split_static, users_code, with_settings, wrapped
from pliant.networks import NETWORKS, takes_texts
from pliant.settings import Value, cast, options
from pliant.streams import STREAMS, TRANSITIONS, Dataset, augmented, load_dataset
from pliant.training._check import check, check_names, parse_grid, parse_settings
from pliant.training._config import RunConfig
from pliant.training._diagnose import unmeasurable
from pliant.training._pace import micro_steps
from pliant.types import Method, Network, Stream, Text


class MethodPlan(NamedTuple):
    """A method, its hyperparameters and its network."""

    method: Method
    source: str
    """As it was asked for: a name, or a file and a name."""
    static: dict[str, Value]
    """Hyperparameters that shape the program."""
    traced: dict[str, Value]
    """Hyperparameters that are arguments of the program."""
    network_name: str
    """As it was asked for, or what the method has in its place."""
    network_options: dict[str, Any]
    network: Network
    stream: Stream
    """The run's, or what the method makes of it."""
    points: tuple[dict[str, Value], ...] = ({},)
    """Of a grid: hyperparameters that replace traced ones, each combination with all seeds."""
    diagnostics: tuple[str, ...] = SETS["basic"]
    unmeasured: Mapping[str, str] = {}
    """Diagnostics of a set that this network cannot be measured with, and why."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the metrics call the method: its name, with the point of the grid if there is one."""
        texts = [",".join(f"{name}={value}" for name, value in point.items()) for point in self.points]
        return tuple(f"{self.method.name}[{text}]" if text else self.method.name for text in texts)


class Plan(NamedTuple):
    """A configuration with everything that it names made."""

    config: RunConfig
    stream: Stream
    stream_options: dict[str, Value]
    methods: tuple[MethodPlan, ...]
    dataset: Dataset | None = None
    """None for a stream whose data are generated."""


def make_plan(config: RunConfig, data_dir: str | None = None) -> Plan:
    """Checks a configuration and makes what it names; nothing is trained.

    Args:
      config: what to run.
      data_dir: see `pliant.streams.load_dataset`.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    return _make_plan(config, lambda: _dataset(config, data_dir))


def _make_plan(config: RunConfig, load: Callable[[], Dataset | None]) -> Plan:
    """Data are loaded when the rest of the configuration has been checked."""
    check(config)
    methods = [find(source) for source in config.methods]
    names = [method.name for method in methods]
    check_names(config, names)
    settings, grid = parse_settings(config, names), parse_grid(config, names)
    dataset = load()
    stream, stream_options = _make_stream(config, dataset, settings)
    plans: list[MethodPlan] = []
    for source, method in zip(config.methods, methods, strict=True):
        with users_code(source):
            planned = _plan_method(config, stream, source, method, settings, plans)
            planned = planned._replace(points=_points(planned, grid[method.name], config.learning_rate))
            plans.append(_with_diagnostics(config, planned, plans))
    return Plan(config, stream, stream_options, tuple(plans), dataset)


def settings_in_use(settings: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """Those settings that are of a method, the stream or the network of a configuration, or of all methods.

    Example:
      >>> settings_in_use(("redo.every=9", "adam.b1=0.8", "b2=0.9"), RunConfig(methods=("adam",)))
      ('adam.b1=0.8', 'b2=0.9')
    """
    used = {find(source).name for source in config.methods} | {config.stream, config.network, ""}
    return tuple(setting for setting in settings if setting.partition("=")[0].rpartition(".")[0] in used)


def fitting(config: RunConfig, data_dir: str | None = None) -> tuple[RunConfig, dict[str, str]]:
    """Leaves out the methods that cannot do a configuration's run.

    Args:
      config: what to run; settings and grids must be of its methods.
      data_dir: see `make_plan`.

    Returns:
      The configuration with the others, and for every method left out the reason.

    Raises:
      UserError: if none can: the reason of the last.
    """
    check(config)
    dataset = _dataset(config, data_dir)  # once for all methods
    chosen, reasons = [], {}
    for source in config.methods:
        one = dataclasses.replace(config, methods=(source,))
        settings, grid = (settings_in_use(given, one) for given in (config.settings, config.grid))
        try:
            _make_plan(dataclasses.replace(one, settings=settings, grid=grid), lambda: dataset)
            chosen.append(source)
        except UserError as error:
            reasons[source] = str(error)
            if len(reasons) == len(config.methods):
                raise
    return dataclasses.replace(config, methods=tuple(chosen)), reasons


def _make_stream(
    config: RunConfig, dataset: Dataset | None, settings: Mapping[str, Mapping[str, str]]
) -> tuple[Stream, dict[str, Value]]:
    """The stream with its transition, and the options that it was made with."""
    factory = STREAMS[config.stream]
    chosen = _with_settings(factory, config.stream, settings, skip=("num_tasks",))
    data = [] if dataset is None else [dataset]
    stream = factory(*data, num_tasks=config.tasks, **chosen)
    stream = TRANSITIONS[config.transition](stream, micro_steps=config.micro_steps)
    if config.transition != "abrupt" and config.micro_steps == 1:
        raise UserError(
            got=f"the transition {config.transition!r} in one micro-step, which is an abrupt change",
            wanted="at least 2 micro-steps",
            do="Add for example --micro-steps 20.",
        )
    stream = augmented(stream, config.augment)
    stream = stream._replace(headline=_headline(config, stream))
    smallest = min(map(stream.train.num, range(config.tasks)))
    if config.batch_size > smallest:
        raise UserError(
            got=f"batch_size={config.batch_size}",
            wanted=f"at most the {smallest} training examples of a task",
            do="Choose a smaller batch.",
        )
    for index in range(config.tasks):
        micro_steps(config, stream, index)
    _check_selection(config, stream)
    return stream, chosen


def _check_selection(config: RunConfig, stream: Stream) -> None:
    """The best epoch can be told if there are examples to tell by."""
    if config.weights_at_end == "best-validation" and stream.validation is None:
        raise UserError(
            got=f"weights_at_end='best-validation' for {stream.name!r}, which holds out no examples",
            wanted="a stream with validation examples",
            do="Use class-incremental with --set class-incremental.validation_per_class=50, or leave it out.",
        )


def _headline(config: RunConfig, stream: Stream) -> str:
    """The metric asked for, if the stream has it."""
    score = stream.objective.score
    known = {stream.headline, f"online_{score}", f"train_{score}"} | ({f"test_{score}"} if stream.test else set())
    if config.headline is not None and config.headline not in known:
        raise unknown_name(f"headline of {stream.name}", config.headline, known, do=f"By default {stream.headline}.")
    return config.headline or stream.headline


def _dataset(config: RunConfig, data_dir: str | None) -> Dataset | None:
    """Loads the data set, if the stream has one."""
    factory = STREAMS[config.stream]
    if "dataset" not in inspect.signature(factory).parameters:
        if (config.dataset, config.train_size, config.test_size) != (None, None, None):
            known = ", ".join(name for name in options(factory) if name != "num_tasks")
            raise UserError(
                got=f"a data set or its size for {config.stream!r}, whose data are generated",
                wanted="none",
                do=f"Leave --dataset, --train-size and --test-size out; {config.stream} has {known} (--set).",
            )
        if data_dir is not None:
            raise UserError(
                got=f"the data folder {data_dir!r} for {config.stream!r}, whose data are generated",
                wanted="a stream with a data set",
                do="Leave --data-dir out, or see `pliant list streams`.",
            )
        return None
    return load_dataset(
        "digits" if config.dataset is None else config.dataset,
        data_dir=data_dir,
        train_size=config.train_size,
        test_size=config.test_size,
        standardize=config.standardize,
    )


def _points(plan: MethodPlan, grid: Mapping[str, str], learning_rate: float) -> tuple[dict[str, Value], ...]:
    """All combinations of a method's values to try, each checked as a setting is."""
    name, axes = plan.method.name, []
    for option, texts in grid.items():
        if option in plan.static:
            raise UserError(
                got=f"--grid {name}.{option}, which shapes the compiled program",
                wanted=f"numbers: {', '.join(plan.traced)}",
                do=f"Use --set {name}.{option}=VALUE, one run for each.",
            )
        values = [with_settings(plan.method, {option: text}, learning_rate)[option] for text in texts.split(",")]
        if len(set(values)) < len(values):
            raise UserError(
                got=f"--grid {name}.{option}={texts}", wanted="every value once", do="Drop the repeated one."
            )
        axes.append([(option, value) for value in values])
    points = tuple(dict(point) for point in itertools.product(*axes))
    for point in points:
        build(plan.method, plan.network.wiring, plan.static | plan.traced | point)
    return points


def _with_diagnostics(config: RunConfig, plan: MethodPlan, earlier: Sequence[MethodPlan]) -> MethodPlan:
    """What is measured: of a set what can be, of what is named everything."""
    chosen = choose(config.diagnostics)
    if set(chosen) <= set(SETS["basic"]):  # these fit everywhere
        return plan._replace(diagnostics=chosen)
    same = [other for other in earlier if other.network is plan.network and other.stream is plan.stream]
    reasons = (
        same[0].unmeasured
        if same
        else unmeasurable(
            chosen,
            plan.network,
            lambda: build(plan.method, plan.network.wiring, plan.static | plan.traced),
            plan.stream,
            probe_size(config, plan.stream),
            config.batch_size,
        )
    )
    named = [name for word in config.diagnostics for name in word.split(",") if name in reasons]
    if named:
        raise UserError(
            got=f"the diagnostic {named[0]!r} for {plan.method.name!r}",
            wanted="one that can measure this network on this stream",
            do=f"Leave it out: {reasons[named[0]]}",
        )
    measured = tuple(name for name in chosen if name not in reasons)
    return plan._replace(diagnostics=measured, unmeasured=reasons)


def probe_size(config: RunConfig, stream: Stream) -> int:
    """The same in all tasks, since it is a shape."""
    return min(config.probe_size, *map(stream.train.num, range(config.tasks)))


def _with_settings(
    factory: Any, name: str, settings: Mapping[str, Mapping[str, str]], skip: tuple[str, ...]
) -> dict[str, Value]:
    """The options of a stream's or network's factory, with the settings made."""
    known = {key: option for key, option in options(factory).items() if key not in skip}
    values = {key: option.default for key, option in known.items()}
    for key, text in settings[name].items():
        if key not in known:
            raise unknown_name(f"option of {name!r}", key, known, do="See its documentation.")
        values[key] = cast(f"{name}.{key}", text, known[key].default, known[key].annotation)
    return values


def _plan_method(
    config: RunConfig,
    stream: Stream,
    source: str,
    method: Method,
    settings: Mapping[str, Mapping[str, str]],
    earlier: Sequence[MethodPlan],
) -> MethodPlan:
    """One method's plan; a network that an earlier method has is not made again."""
    values = with_settings(method, settings[method.name], config.learning_rate)
    static, traced = split_static(method, values)
    stream = retarget(method, stream, static)
    name = method.replaces.get(config.network, config.network)
    factory = NETWORKS[name]
    own_flags = {"use_bias": config.use_bias} | ({"widths": config.widths} if config.widths is not None else {})
    missing = [flag for flag in own_flags if flag not in options(factory)]
    if "widths" in missing:
        raise UserError(
            got=f"widths for the network {name!r}",
            wanted="a network with dense layers to size",
            do="See `pliant list networks` for its own options (--set).",
        )
    network_options: dict[str, Any] = _with_settings(factory, config.network, settings, skip=("use_bias",))
    network_options |= {flag: value for flag, value in own_flags.items() if flag not in missing}
    network_options |= _network_changes(method, name, network_options)
    _check_inputs(config, stream)
    same = [
        other.network
        for other in earlier
        if (other.network_name, other.network_options) == (name, network_options)
        and other.stream is stream
        and not other.method.wrap
    ]
    network = same[0] if same else factory(stream.input_shape, stream.num_outputs, **network_options)
    _check_head(config, method, network)
    network = wrapped(method, network, static)
    build(method, network.wiring, values)  # numbers are checked here: inside a compiled program they are traced
    return MethodPlan(method, source, static, traced, name, network_options, network, stream)


def _network_changes(method: Method, network: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The method's changes, which the network must know, to the options given; multipliers of widths multiply."""
    known = options(NETWORKS[network])
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


def _check_head(config: RunConfig, method: Method, network: Network) -> None:
    """A head that is to change at a switch must be one of its own, and all in the parameters."""
    if config.head_at_switch != "keep" and method.alone:
        raise UserError(
            got=f"head_at_switch={config.head_at_switch!r} for {method.name!r}, which {method.alone}",
            wanted="the head kept when the task changes",
            do="Leave head_at_switch or the method out.",
        )
    if config.head_at_switch != "keep" and "head" not in network.wiring.roles.values():
        raise UserError(
            got=f"head_at_switch={config.head_at_switch!r} for the network {config.network!r}, whose head is tied",
            wanted="a network with an output layer of its own",
            do=f"Leave it out, or untie the head, such as --set {config.network}.tie_embeddings=false.",
        )


def _check_inputs(config: RunConfig, stream: Stream) -> None:
    """Texts and arrays require different networks."""
    is_text = isinstance(stream.inputs, Text)
    if is_text != takes_texts(NETWORKS[config.network]):
        fitting = sorted(name for name, factory in NETWORKS.items() if takes_texts(factory) == is_text)
        raise UserError(
            got=f"the network {config.network!r} for {stream.name}",
            wanted=f"one of {', '.join(fitting)}",
            do=f"Add --network {fitting[0]}.",
        )
