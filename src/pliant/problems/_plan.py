"""From the configuration of any problem to a plan."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pliant import rl, supervised
from pliant.methods import find
from pliant.rl import AgentConfig
from pliant.specs import NO_OBJECTS, Objects, name_of
from pliant.streams import reads_folder
from pliant.supervised import RunConfig
from pliant.training import Plan, of_names

Config: TypeAlias = RunConfig | AgentConfig


def kind_of(config: Config | type[Config]) -> Literal["stream", "environment"]:
    """The field of a configuration that names its problem.

    Example:
      >>> kind_of(RunConfig()), kind_of(AgentConfig)
      ('stream', 'environment')
    """
    kind = config if isinstance(config, type) else type(config)
    return "environment" if issubclass(kind, AgentConfig) else "stream"


def make_plan(config: Config, data_dir: str | None = None, objects: Objects = NO_OBJECTS) -> Plan:
    """Checks a configuration and makes what it names; nothing is trained.

    Args:
      config: what to run.
      data_dir: see `pliant.streams.load_dataset`.
      objects: what some of its names stand for.

    Raises:
      UserError: for unknown names, numbers out of range, and combinations that make no sense.
    """
    if isinstance(config, AgentConfig):
        return rl.make_plan(config, data_dir, objects)
    return supervised.make_plan(config, data_dir, objects)


def folder_for(config: Config, data_dir: str | None) -> str | None:
    """The folder that is given for the data of several runs, if this one has data that are read from it.

    Args:
      config: of the run.
      data_dir: see `make_plan`, which refuses a folder for other data.

    Example:
      >>> folder_for(RunConfig(dataset="mnist"), "images"), folder_for(RunConfig(), "images")
      ('images', None)
    """
    return data_dir if config.dataset is not None and reads_folder(config.dataset) else None


def plan_suited(
    config: Config, data_dir: str | None = None, objects: Objects = NO_OBJECTS
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
    if isinstance(config, AgentConfig):
        return rl.plan_suited(config, data_dir, objects)
    return supervised.plan_suited(config, data_dir, objects)


def settings_in_use(settings: Sequence[str], config: Config, objects: Objects = NO_OBJECTS) -> tuple[str, ...]:
    """Those settings that are of a method, the problem or the network of a configuration, or of all methods.

    Example:
      >>> settings_in_use(("redo.every=9", "adam.b1=0.8", "b2=0.9"), RunConfig(methods=("adam",)))
      ('adam.b1=0.8', 'b2=0.9')
    """
    used = {find(objects.spec("method", spec)).name for spec in config.methods}
    used |= {name_of(getattr(config, kind_of(config))), name_of(config.network)}
    return of_names(settings, used | ({config.agent} if isinstance(config, AgentConfig) else set()))


def config_of(stored: Mapping[str, Any]) -> type[Config]:
    """The class of the configuration that the record of a run was made of."""
    return AgentConfig if "agent" in stored else RunConfig
