"""From a configuration to what it names: every choice is checked before anything is trained."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pliant.errors import UserError, require_range, unknown_name
from pliant.methods import build, find, split_static, users_code, with_settings
from pliant.networks import NETWORKS
from pliant.settings import Value, cast, options
from pliant.streams import STREAMS, load_dataset
from pliant.training._config import RunConfig
from pliant.types import Method, Network, Stream


class MethodPlan(NamedTuple):
    """A method, its hyperparameters and its network."""

    method: Method
    source: str
    """As it was asked for: a name, or a file and a name."""
    static: dict[str, Value]
    """Hyperparameters that shape the program."""
    traced: dict[str, Value]
    """Hyperparameters that are arguments of the program."""
    network_options: dict[str, Any]
    network: Network


class Plan(NamedTuple):
    """A configuration with everything that it names made."""

    config: RunConfig
    stream: Stream
    stream_options: dict[str, Value]
    methods: tuple[MethodPlan, ...]


def make_plan(config: RunConfig, data_dir: str | None = None) -> Plan:
    """Checks a configuration and makes what it names; nothing is trained.

    Args:
      config: what to run.
      data_dir: see `pliant.streams.load_dataset`.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    _check(config)
    methods = [find(source) for source in config.methods]
    names = [method.name for method in methods]
    _check_names(config, names)
    settings = _parse(config, names)
    dataset = load_dataset(config.dataset, data_dir=data_dir, train_size=config.train_size, test_size=config.test_size)
    stream_options = _with_settings(STREAMS[config.stream], config.stream, settings, skip=("num_tasks",))
    stream = STREAMS[config.stream](dataset, num_tasks=config.tasks, **stream_options)
    if config.batch_size > stream.num_train:
        raise UserError(
            got=f"batch_size={config.batch_size}",
            wanted=f"at most the {stream.num_train} training examples of a task",
            do="Choose a smaller batch.",
        )
    plans = []
    for source, method in zip(config.methods, methods, strict=True):
        with users_code(source):
            plans.append(_plan_method(config, stream, source, method, settings))
    return Plan(config, stream, stream_options, tuple(plans))


def _check(config: RunConfig) -> None:
    for name in ("seeds", "tasks", "epochs", "batch_size", "probe_size"):
        require_range(name, getattr(config, name), 1, do=f"Leave it out for {getattr(RunConfig, name)}.")
    require_range("learning_rate", config.learning_rate, 0, do="Use a step size such as 1e-3.")
    if not config.methods:
        raise UserError(got="no methods", wanted="at least one", do="See `pliant list methods`.")
    if config.stream not in STREAMS:
        raise unknown_name("stream", config.stream, STREAMS, do="See `pliant list streams`.")
    if config.network not in NETWORKS:
        raise unknown_name("network", config.network, NETWORKS, do="See `pliant list networks`.")


def _check_names(config: RunConfig, names: list[str]) -> None:
    """Names of methods are folders, and what settings go by."""
    if len(set(names)) < len(names):
        raise UserError(
            got=f"methods {' '.join(names)}", wanted="every name once", do="Rename or drop the repeated one."
        )
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*", name) or name in (config.stream, config.network):
            raise UserError(
                got=f"a method named {name!r}",
                wanted="letters, digits and _.+- (it names a folder), other than the stream and the network",
                do="Rename the method.",
            )


def _parse(config: RunConfig, methods: list[str]) -> dict[str, dict[str, str]]:
    """Settings by the name of what they set."""
    known = [*methods, config.stream, config.network]
    parsed: dict[str, dict[str, str]] = {name: {} for name in known}
    for setting in config.settings:
        target, _, value = setting.partition("=")
        name, _, option = target.rpartition(".")
        if not (name and option and value):
            raise UserError(
                got=f"--set {setting}",
                wanted="NAME.OPTION=VALUE",
                do="For example adamo.isometry_strength=0.03.",
            )
        if name not in parsed:
            do = "Set options of the methods, the stream and the network of this run."
            raise unknown_name("name", name, known, do)
        parsed[name][option] = value
    return parsed


def _with_settings(
    factory: Any, name: str, settings: Mapping[str, Mapping[str, str]], skip: tuple[str, ...]
) -> dict[str, Value]:
    """The options of a stream's or network's factory, with the settings made."""
    values = {key: option.default for key, option in options(factory).items() if key not in skip}
    for key, text in settings[name].items():
        if key not in values:
            raise unknown_name(f"option of {name!r}", key, values, do="See its documentation.")
        values[key] = cast(f"{name}.{key}", text, values[key])
    return values


def _plan_method(
    config: RunConfig, stream: Stream, source: str, method: Method, settings: Mapping[str, Mapping[str, str]]
) -> MethodPlan:
    factory = NETWORKS[config.network]
    network_options: dict[str, Any] = _with_settings(factory, config.network, settings, skip=("widths", "use_bias"))
    network_options |= {"widths": list(config.widths), "use_bias": config.use_bias} | dict(method.network)
    network = factory(stream.input_shape, stream.num_classes, **network_options)
    values = with_settings(method, settings[method.name], config.learning_rate)
    build(method, network.wiring, values)  # numbers are checked here: inside a compiled program they are traced
    static, traced = split_static(method, values)
    return MethodPlan(method, source, static, traced, network_options, network)
