"""From a configuration to a plan: data set, stream, transition, and the source of every method."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pliant.errors import UserError, unknown_name
from pliant.methods import find, retarget
from pliant.networks import NETWORKS, takes_texts
from pliant.settings import options
from pliant.specs import NO_OBJECTS, Objects, name_of, users_code
from pliant.streams import TRANSITIONS, Dataset, augmented, load_dataset
from pliant.supervised._check import check
from pliant.supervised._config import RunConfig
from pliant.supervised._pace import micro_steps
from pliant.supervised._record import record
from pliant.supervised._source import source_of
from pliant.supervised._stream import made_stream, stream_factory
from pliant.training import (
    MethodPlan,
    Plan,
    check_names,
    network_factory,
    of_names,
    parse_grid,
    parse_settings,
    plan_method,
    with_options,
)
from pliant.types import Method, Source, Stream, Text


def make_plan(config: RunConfig, data_dir: str | None = None, objects: Objects = NO_OBJECTS) -> Plan:
    """Checks a configuration and makes what it names; nothing is trained.

    Args:
      config: what to run.
      data_dir: see `pliant.streams.load_dataset`.
      objects: what some of its names stand for.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    plan, _ = _make_plan(config, data_dir, objects, is_strict=True)
    return plan


def plan_suited(
    config: RunConfig, data_dir: str | None = None, objects: Objects = NO_OBJECTS
) -> tuple[Plan, dict[str, str]]:
    """Makes the plan of those methods that can do a configuration's run.

    Args:
      config: what to run.
      data_dir: see `make_plan`.
      objects: see `make_plan`.

    Returns:
      The plan, and for every method left out the reason.

    Raises:
      UserError: as `make_plan` if no method suits: the reason of the last.
    """
    return _make_plan(config, data_dir, objects, is_strict=False)


def _make_plan(
    config: RunConfig, data_dir: str | None, objects: Objects, *, is_strict: bool
) -> tuple[Plan, dict[str, str]]:
    """Data are loaded, once, when the rest of the configuration has been checked."""
    check(config)
    methods = [find(objects.spec("method", spec)) for spec in config.methods]
    names, others = [method.name for method in methods], [name_of(config.stream), name_of(config.network)]
    check_names(names, others)
    settings = parse_settings(config, [*names, *others])
    grid = parse_grid(config, names)
    network_factory(objects.spec("network", config.network))
    words = [word for words in config.diagnostics for word in words.split(",")]
    specs = {
        "stream": [objects.spec("stream", config.stream)],
        "dataset": [objects.spec("dataset", config.dataset)] if config.dataset else [],
        "diagnostic": [objects.spec("diagnostic", word) for word in words],
    }
    with users_code(specs):
        dataset = _dataset(config, stream_factory(*specs["stream"]), data_dir, objects)
        stream, stream_options = make_stream(config, dataset, settings[name_of(config.stream)], *specs["stream"])
    _check_inputs(config, stream, objects)
    sources: dict[int, tuple[Stream, Source]] = {}

    def pose(method: Method, static: Mapping[str, Any]) -> Source:
        posed = retarget(method, stream, static)
        return sources.setdefault(id(posed), (posed, source_of(posed, config)))[1]

    plans: list[MethodPlan] = []
    reasons: dict[str, str] = {}
    for spec, method in zip(config.methods, methods, strict=True):
        try:
            plans.append(plan_method(config, spec, method, pose, settings, grid, plans, objects, specs))
        except UserError as error:
            reasons[spec] = str(error)
            if is_strict or len(reasons) == len(methods):
                raise
    config = dataclasses.replace(config, methods=tuple(each.spec for each in plans))
    config = config if is_strict else _in_use(config, objects)
    recorded = record(config, stream, stream_options, dataset, specs)
    return Plan(config, stream.name, stream.dataset, recorded, tuple(plans), specs), reasons


def _in_use(config: RunConfig, objects: Objects) -> RunConfig:
    """Without the settings and grids of methods that are left out."""
    used = {find(objects.spec("method", spec)).name for spec in config.methods}
    used |= {name_of(config.stream), name_of(config.network)}
    settings, grid = (of_names(given, used) for given in (config.settings, config.grid))
    return dataclasses.replace(config, settings=settings, grid=grid)


def make_stream(
    config: RunConfig, dataset: Dataset | None, settings: Mapping[str, str], spec: Any = None
) -> tuple[Stream, dict[str, Any]]:
    """The stream of a configuration with its transition, and the options that it was made with.

    Args:
      config: the configuration.
      dataset: for a stream with a data set.
      settings: options of the stream, as texts.
      spec: the stream, if it is not what the configuration names.
    """
    name, factory = name_of(config.stream), stream_factory(config.stream if spec is None else spec)
    chosen = with_options(factory, name, settings, skip=("num_tasks",))
    data = [] if dataset is None else [dataset]
    stream = made_stream(factory, *data, num_tasks=config.tasks, **chosen)
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
    if config.weights_at_end == "best-validation" and stream.validation is None:
        raise UserError(
            got=f"weights_at_end='best-validation' for {stream.name!r}, which holds out no examples",
            wanted="a stream with validation examples",
            do="Use class-incremental with --set class-incremental.validation_per_class=50, or leave it out.",
        )
    return stream, chosen


def _headline(config: RunConfig, stream: Stream) -> str:
    """The metric asked for, if the stream has it."""
    score = stream.objective.score
    known = {stream.headline, f"online_{score}", f"train_{score}"} | ({f"test_{score}"} if stream.test else set())
    if config.headline is not None and config.headline not in known:
        raise unknown_name(f"headline of {stream.name}", config.headline, known, do=f"By default {stream.headline}.")
    return config.headline or stream.headline


def _check_inputs(config: RunConfig, stream: Stream, objects: Objects) -> None:
    """Texts and arrays require different networks; a user's own network is traced instead."""
    is_text = isinstance(stream.inputs, Text)
    network = objects.spec("network", config.network)
    if network in tuple(NETWORKS) and is_text != takes_texts(NETWORKS[network]):
        suited = sorted(name for name, factory in NETWORKS.items() if takes_texts(factory) == is_text)
        raise UserError(
            got=f"the network {config.network!r} for {stream.name}",
            wanted=f"one of {', '.join(suited)}",
            do=f"Add --network {suited[0]}.",
        )


def _dataset(
    config: RunConfig, factory: Callable[..., Stream], data_dir: str | None, objects: Objects
) -> Dataset | None:
    """Loads the data set, if the stream has one."""
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
        "digits" if config.dataset is None else objects.spec("dataset", config.dataset),
        data_dir=data_dir,
        train_size=config.train_size,
        test_size=config.test_size,
        standardize=config.standardize,
    )
