"""Environments of the user's own: objects of ours, of gymnax or of Gymnasium, and functions that make them."""

import copy
import inspect
from typing import Any

from pliant.rl.environments._gymnasium import from_gymnasium
from pliant.rl.environments._gymnax import from_gymnax
from pliant.types import Environment, EnvironmentStream


def is_environment(found: Any) -> bool:
    """Whether an object can be made environments of, without being told anything: see `own_environments`."""
    return isinstance(found, EnvironmentStream | Environment) or _is_gymnax(found) or _is_gymnasium(found)


def own_environments(found: Any, num_tasks: int) -> EnvironmentStream | None:
    """Makes environments of an object.

    Args:
      found: environments or an environment of ours; an environment of gymnax, alone or in a pair with its parameters;
        an environment of Gymnasium, of which every copy is another; or a function or class that makes one of these
        without arguments.
      num_tasks: of the environments that are returned.

    Returns:
      The environments: of a single one, as many equal tasks. None for anything else.

    Example:
      >>> import gymnax
      >>> environments = own_environments(gymnax.make("CartPole-v1"), num_tasks=3)
      >>> environments.name, environments.num_tasks, environments.num_actions
      ('CartPole-v1', 3, 2)
    """
    if isinstance(found, EnvironmentStream):
        return found._replace(num_tasks=num_tasks)
    if isinstance(found, Environment):
        return EnvironmentStream(found.name, num_tasks, (found,), which=lambda _: 0)
    if _is_gymnax(found):
        return own_environments(from_gymnax(*(found if isinstance(found, tuple) else (found,))), num_tasks)
    if _is_gymnasium(found):
        return own_environments(from_gymnasium(lambda: copy.deepcopy(found)), num_tasks)
    if not callable(found) or any(each.default is each.empty for each in _required(found)):
        return None
    made = found()
    return own_environments(from_gymnasium(found) if _is_gymnasium(made) else made, num_tasks)


def _required(maker: Any) -> list[inspect.Parameter]:
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [each for each in inspect.signature(maker).parameters.values() if each.kind not in variadic]


def _is_gymnax(found: Any) -> bool:
    alone = found[0] if type(found) is tuple and len(found) == 2 else found
    return hasattr(alone, "step_env") and hasattr(alone, "reset_env") and not inspect.isclass(alone)


def _is_gymnasium(found: Any) -> bool:
    names = ("action_space", "observation_space", "reset", "step")
    return not inspect.isclass(found) and not _is_gymnax(found) and all(hasattr(found, name) for name in names)
