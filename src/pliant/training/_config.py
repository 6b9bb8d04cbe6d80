"""What to run: the configuration, checked and written out in full."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pliant.errors import UserError, require_range, unknown_name
from pliant.methods import build, find, split_static, users_code, with_settings
from pliant.networks import NETWORKS
from pliant.settings import Value, cast, options
from pliant.streams import STREAMS, load_dataset
from pliant.types import Method, Network, Stream


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A supervised run: methods that learn the same stream of tasks, each with several seeds."""

    dataset: str = "digits"
    """Data set; see `pliant list datasets`."""
    methods: tuple[str, ...] = ("adam", "l2-init", "redo", "adamo", "adamo-maxmin")
    """Methods; see `pliant list methods`. Your own is path/to/file.py:name."""
    seeds: int = 4
    """Number of seeds: 0, 1, 2, …"""
    tasks: int = 20
    """Number of tasks."""
    epochs: int = 15
    """Passes over the training data in each task."""
    batch_size: int = 32
    """Examples in a batch."""
    network: str = "mlp"
    """Network; see `pliant list networks`."""
    widths: tuple[int, ...] = (128, 128, 128, 128)
    """Units of the hidden layers."""
    use_bias: bool = False
    """Whether layers have biases. Without, as in the code of AdamO's authors, isometric kernels say all of a layer."""
    learning_rate: float = 1e-3
    """Learning rate of every method that is not given its own with --set."""
    train_size: int | None = None
    """Balanced subset of the training images."""
    test_size: int | None = None
    """Balanced subset of the test images."""
    probe_size: int = 512
    """Training examples on which dormant units and ranks are measured at the end of a task."""
    stream: str = "random-labels"
    """Stream of tasks; see `pliant list streams`."""
    settings: tuple[str, ...] = ()
    """NAME.OPTION=VALUE for any option of a method, of the stream or of the network, such as
    adamo.isometry_strength=0.03, random-labels.labels=iid or mlp.norm=layer."""


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


def record(plan: Plan) -> dict[str, Any]:
    """The whole configuration, expanded, as JSON data: what a run's id hashes."""
    return {
        "config": {key: list(v) if isinstance(v, tuple) else v for key, v in vars(plan.config).items()},
        "stream": {
            "name": plan.stream.name,
            "options": plan.stream_options,
            "headline": plan.stream.headline,
            "num_classes": plan.stream.num_classes,
            "num_train": plan.stream.num_train,
            "num_test": plan.stream.num_test,
            "input_shape": list(plan.stream.input_shape),
            "data_sha256": _data_hash(plan.stream),
        },
        "methods": {
            item.method.name: {
                "source": item.source,
                "source_sha256": _file_hash(item.source),
                "reference": item.method.reference,
                "boundary_aware": item.method.boundary_aware,
                "hyperparameters": item.static | item.traced,
                "network": item.network_options,
            }
            for item in plan.methods
        },
        "protocol": {
            "optimizer_at_task_switch": "kept",
            "batches": "run on across the ends of epochs; what is left at the end of a task is dropped",
            "images": "standardised over the training images in use, per channel (digits: per pixel)",
            "online_accuracy": "on each batch before its update, averaged over the task",
            "train_and_test_accuracy": "at the end of the task, over all examples; non-finite outputs count as wrong",
            "seeds": "network, tasks, data order and method noise draw from separate streams of each seed",
        },
    }


def fingerprint(recorded: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a recorded configuration.

    Example:
      >>> fingerprint({"tasks": 1}) == fingerprint({"tasks": 2})
      False
    """
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()[:12]


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


def _data_hash(stream: Stream) -> str:
    """The hash of the data, so that a run is not continued on other images of the same name."""
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(stream.data):
        content.update(np.ascontiguousarray(leaf).data)
    return content.hexdigest()


def _file_hash(source: str) -> str | None:
    """The hash of a user's file, so that an edited method is another configuration."""
    file = Path(source.rpartition(":")[0])
    return hashlib.sha256(file.read_bytes()).hexdigest() if ".py:" in source else None
