"""From a configuration to a plan: environments, the agent, and the source of every method."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pliant.errors import UserError, require_whole
from pliant.methods import find, posing
from pliant.rl._budget import Budget
from pliant.rl._config import AgentConfig
from pliant.rl._dqn import dqn
from pliant.rl._ppo import ppo
from pliant.rl._record import record
from pliant.rl.environments import ENVIRONMENTS, is_environment, own_environments
from pliant.settings import options
from pliant.specs import NO_OBJECTS, Objects, name_of, users_code
from pliant.specs import find as find_spec
from pliant.streams import Dataset, load_dataset
from pliant.targets import ValueBins
from pliant.training import (
    MethodPlan,
    Plan,
    check_names,
    check_protocol,
    network_factory,
    of_names,
    parse_grid,
    parse_settings,
    plan_method,
    with_options,
)
from pliant.types import EnvironmentStream, Method, Source

AGENTS: Mapping[str, Callable[..., Source]] = {"dqn": dqn, "ppo": ppo}
"""By name: factories `(stream, budget, values=None, *, options) -> Source`; `values` are a method's `ValueBins`."""
_WANTED = (
    "a function (*, num_tasks, options) -> pliant.types.EnvironmentStream, "
    "or an environment of pliant, gymnax or Gymnasium"
)


def make_plan(config: AgentConfig, data_dir: str | None = None, objects: Objects = NO_OBJECTS) -> Plan:
    """Checks a configuration and makes what it names; nothing is trained.

    Args:
      config: what to run.
      data_dir: see `pliant.streams.load_dataset`.
      objects: what some of its names stand for.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    return _make_plan(config, data_dir, objects, is_strict=True)[0]


def plan_suited(
    config: AgentConfig, data_dir: str | None = None, objects: Objects = NO_OBJECTS
) -> tuple[Plan, dict[str, str]]:
    """Makes the plan of those methods that suit; returns it, and for every method left out the reason."""
    return _make_plan(config, data_dir, objects, is_strict=False)


def _make_plan(
    config: AgentConfig, data_dir: str | None, objects: Objects, *, is_strict: bool
) -> tuple[Plan, dict[str, str]]:
    check_protocol(config)
    budget = _budget(config)
    methods = [find(objects.spec("method", spec)) for spec in config.methods]
    names = [method.name for method in methods]
    others = [name_of(config.environment), config.agent, name_of(config.network)]
    check_names(names, others)
    settings = parse_settings(config, [*names, *others])
    grid = parse_grid(config, names, [config.agent])
    network_factory(objects.spec("network", config.network))
    words = [word for words in config.diagnostics for word in words.split(",")]
    specs = {
        "environment": [objects.spec("environment", config.environment)],
        "dataset": [objects.spec("dataset", config.dataset)] if config.dataset else [],
        "diagnostic": [objects.spec("diagnostic", word) for word in words],
    }
    with users_code(specs):
        factory = environment_factory(*specs["environment"])
        dataset = _dataset(config, factory, data_dir, objects)
        stream_options = with_options(factory, others[0], settings[others[0]], skip=("num_tasks",))
        data = [] if dataset is None else [dataset]
        stream = factory(*data, num_tasks=config.tasks, **stream_options)
    agent = AGENTS[config.agent]
    agent_options = with_options(agent, config.agent, settings[config.agent])
    source_of = functools.cache(lambda: agent(stream, budget, **agent_options))
    branch = _branch(config, source_of())

    def pose(method: Method, static: Mapping[str, Any], numbers: Mapping[str, Any] = {}) -> Source:
        values = _bins(method, static)
        if values is None and not numbers:
            return source_of()
        if values is not None and config.on == "actor":
            raise UserError(
                got=f"the method {method.name!r} on the actor; it changes how values are learned",
                wanted="on='critic' or 'both'",
                do="Leave the method out, or on.",
            )
        return agent(stream, budget, values, **{**agent_options, **numbers})

    plans: list[MethodPlan] = []
    reasons: dict[str, str] = {}
    for spec, method in zip(config.methods, methods, strict=True):
        try:
            plans.append(plan_method(config, spec, method, pose, settings, grid, plans, objects, specs, branch))
        except UserError as error:
            reasons[spec] = str(error)
            if is_strict or len(reasons) == len(methods):
                raise
    config = dataclasses.replace(config, methods=tuple(each.spec for each in plans))
    if not is_strict:
        used = {method.method.name for method in plans} | {*others}
        config = dataclasses.replace(config, settings=of_names(config.settings, used), grid=of_names(config.grid, used))
    recorded = record(config, stream, stream_options, agent_options, source_of(), dataset, specs)
    return Plan(config, stream.name, stream.dataset, recorded, tuple(plans), specs), reasons


def environment_factory(spec: Any) -> Callable[..., EnvironmentStream]:
    """Finds the factory of environments.

    Args:
      spec: a registered name, `path/to/file.py:name`, a factory, or what `own_environments` takes.

    Raises:
      UserError: if there is no such name, or nothing that an agent can act in.

    Example:
      >>> environment_factory("probe")(num_tasks=2, kind="action").num_actions
      2
    """
    found: Any = find_spec(
        "environment", spec, ENVIRONMENTS, lambda each: is_environment(each) or callable(each), _WANTED
    )
    if is_environment(found) or "num_tasks" not in inspect.signature(found).parameters:
        return lambda *, num_tasks: _own(found, name_of(spec), num_tasks)
    factory: Callable[..., EnvironmentStream] = found
    return factory


def _own(found: Any, name: str, num_tasks: int) -> EnvironmentStream:
    made = own_environments(found, num_tasks)
    if made is None:
        raise UserError(
            got=f"the environment {name!r}, which is neither an environment nor a factory with num_tasks",
            wanted=_WANTED,
            do="Give an environment, or add `*, num_tasks` to the function.",
        )
    return made


def _branch(config: AgentConfig, source: Source) -> str | None:
    """The branch of the network that methods act on; None for all."""
    if config.on == "both":
        return None
    if source.branches is None:
        is_shared = isinstance(source.num_outputs, Mapping)
        raise UserError(
            got=f"on={config.on!r} for {config.agent}"
            + (" with a shared trunk, which both use" if is_shared else ", which has no actor and critic"),
            wanted="an agent with a network each for actor and critic",
            do=f"Add --set {config.agent}.trunk=separate, or leave it out." if is_shared else "Leave it out.",
        )
    return config.on


def _bins(method: Method, static: Mapping[str, Any]) -> ValueBins | None:
    """The bins over which a method spreads the values that an agent learns, if it does."""
    values = posing(method, static)
    if values is not None and not isinstance(values, ValueBins):
        raise UserError(
            got=f"the method {method.name!r}, whose targets are {type(values).__name__}, for an agent",
            wanted="a method that leaves the targets alone, or whose targets are pliant.targets.ValueBins",
            do="Leave the method out.",
        )
    return values


def _budget(config: AgentConfig) -> Budget:
    for name, low in {"env_steps": 1, "eval_episodes": 0, "curve_points": 1}.items():
        default = getattr(AgentConfig, name)
        require_whole(name, getattr(config, name), low, do=f"Leave it out for {default}.")
    return Budget(config.env_steps, config.batch_size, config.eval_episodes, config.curve_points, config.probe_size)


def _dataset(
    config: AgentConfig, factory: Callable[..., Any], data_dir: str | None, objects: Objects
) -> Dataset | None:
    """Loads the data set, if the environments show images of one."""
    if "dataset" in inspect.signature(factory).parameters:
        spec = "digits" if config.dataset is None else objects.spec("dataset", config.dataset)
        return load_dataset(spec, data_dir=data_dir, train_size=config.train_size, standardize=config.standardize)
    if (config.dataset, config.train_size) != (None, None):
        known = ", ".join(name for name in options(factory) if name != "num_tasks")
        raise UserError(
            got=f"a data set or its size for {config.environment!r}, which shows no images of one",
            wanted="none",
            do=f"Leave --dataset and --train-size out; {config.environment} has {known or 'no options'} (--set).",
        )
    return None
