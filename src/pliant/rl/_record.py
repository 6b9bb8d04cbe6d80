"""What all methods of an agent's run have in common, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

from pliant.diagnostics import DIAGNOSTICS
from pliant.results import RunRecord, hash_of_arrays
from pliant.rl._config import AgentConfig
from pliant.rl.environments import ENVIRONMENTS
from pliant.specs import name_of
from pliant.streams import Dataset
from pliant.training import as_data, data_source, record_sources, settings_of
from pliant.types import EnvironmentStream, Source

_OF_METHODS = ("methods", "settings", "grid")
_NO_NUMBER_DEPENDS_ON = ("seeds", "first_seed", "tasks", "checkpoints", *_OF_METHODS)
_HEADLINE = "episode_return"


def record(
    config: AgentConfig,
    stream: EnvironmentStream,
    stream_options: Mapping[str, Any],
    agent_options: Mapping[str, Any],
    source: Source,
    dataset: Dataset | None,
    specs: Mapping[str, Sequence[Any]] = {},
) -> RunRecord:
    """What all methods of a run have in common; not the numbers of tasks and seeds, so that runs can be extended.

    Args:
      config: what to run.
      stream: what it names.
      stream_options: those that the environments were made with.
      agent_options: those of the agent.
      source: the agent's, for a method that leaves its targets alone.
      dataset: of environments that show images.
      specs: what was asked for that all methods share, by kind.
    """
    shared = {name: value for name, value in vars(config).items() if name not in _NO_NUMBER_DEPENDS_ON}
    names = name_of(config.environment), config.agent, name_of(config.network)
    diagnostics = record_sources(specs.get("diagnostic", ()), DIAGNOSTICS)
    headline = config.headline or _HEADLINE
    num_updates = source.num_updates(0)
    configuration = {
        "config": shared | {"settings": settings_of(config, *names)},
        "environment": {
            "name": stream.name,
            "environments": [each.name for each in stream.environments],
            "options": stream_options,
            "dataset": stream.dataset,
            "headline": headline,
            "num_actions": stream.num_actions,
            "input_shape": list(stream.inputs.shape),
            "data_sha256": hash_of_arrays(stream.data),
        }
        | ({"tasks": stream.num_tasks} if stream.depends_on_num_tasks else {})
        | ({"classes": list(dataset.classes)} if dataset and dataset.is_renumbered else {})
        | data_source(specs.get("dataset", ()))
        | record_sources(specs.get("environment", ()), ENVIRONMENTS).get(names[0], {}),
        "agent": {"name": config.agent, "options": agent_options},
        "task": {"num_updates": num_updates, "env_steps": round(num_updates * source.env_steps)},
        **({"diagnostics": diagnostics} if diagnostics else {}),
        "protocol": {
            "acts": "the network that is trained",
            "evaluated": "the network that the method reports",
            "episode_return": "of the episodes that ended in training during the task",
            "order_of_environments": "the same for all seeds",
            "seeds": "network, tasks, minibatches, method and exploration draw from separate streams of each seed",
        },
    }
    data = "" if stream.dataset == "generated" else f" on {stream.dataset}"
    on = "" if config.on == "both" else f", methods on the {config.on}"
    title = f"{config.agent} in {stream.name}{data}, {names[2]}{on}"
    return RunRecord(title, headline, None, as_data(configuration))
