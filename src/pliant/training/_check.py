"""What a configuration says, checked before anything that it names is made."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pliant.errors import UserError, require_range, unknown_name
from pliant.training._protocol import Protocol

_WANTED = {
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    str | None: "a text",
    tuple[int, ...]: "a list of whole numbers",
    tuple[int, ...] | None: "a list of whole numbers",
    tuple[float, ...]: "a list of numbers",
    tuple[str, ...]: "a list of texts",
}


def check_protocol(config: Protocol) -> None:
    """Kinds, ranges and names of what the configuration of any problem says.

    Raises:
      UserError: for a field of another kind, or out of range.

    Example:
      >>> check_protocol(Protocol(seeds=2))
    """
    _check_kinds(config)
    for name in ("seeds", "tasks", "batch_size", "probe_size"):
        require_range(name, getattr(config, name), 1, do=f"Leave it out for {getattr(type(config), name)}.")
    require_range("first_seed", config.first_seed, 0, do="Leave it out for 0.")
    require_range("learning_rate", config.learning_rate, 0, do="Use a step size such as 1e-3.")
    require_range("rate_drop_factor", config.rate_drop_factor, 0, do="Use a factor such as 0.2.")
    for drop in config.rate_drops:
        require_range("rate_drops", drop, 0, 1, do="Give fractions of a task, such as 0.3 0.6 0.8.")
    if any(not 1 <= task <= config.tasks for task in config.diagnose_after):
        raise UserError(
            got=f"diagnose_after={config.diagnose_after}",
            wanted=f"tasks from 1 to {config.tasks}",
            do="Leave it out for 1, 2, 5, 10, 20, 50, … and the last.",
        )
    if not config.methods:
        raise UserError(got="no methods", wanted="at least one", do="See `pliant list methods`.")


def _check_kinds(config: Protocol) -> None:
    """The command line checks kinds while it reads; a configuration made in Python comes by here."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, value, do = hints[field.name], getattr(config, field.name), f"Leave it out for {field.default}."
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise unknown_name(field.name, str(value), get_args(hint), do)
        elif not _is_of(hint, value):
            raise UserError(got=f"{field.name}={value!r}", wanted=_WANTED[hint], do=do)


def _is_of(hint: Any, value: Any) -> bool:
    """Whether a value is of a kind; a whole number is a number, but True is none, and a text is no list of letters."""
    if get_origin(hint) is tuple:
        return isinstance(value, tuple | list) and all(_is_of(get_args(hint)[0], each) for each in value)
    if get_args(hint):
        return any(_is_of(each, value) for each in get_args(hint))
    if hint is bool or not isinstance(value, bool):
        return isinstance(value, int | float if hint is float else hint)
    return False
