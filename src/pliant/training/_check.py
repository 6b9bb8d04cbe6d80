"""What a configuration says, checked before anything that it names is made."""

import dataclasses
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pliant.errors import UserError, require_range, unknown_name
from pliant.networks import NETWORKS
from pliant.streams import STREAMS
from pliant.training._config import RunConfig

_HINTS = get_type_hints(RunConfig)
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


def check(config: RunConfig) -> None:
    """Kinds, ranges and names of what a configuration says."""
    _check_kinds(config)
    for name in ("seeds", "tasks", "epochs", "batch_size", "probe_size"):
        require_range(name, getattr(config, name), 1, do=f"Leave it out for {getattr(RunConfig, name)}.")
    require_range("learning_rate", config.learning_rate, 0, do="Use a step size such as 1e-3.")
    require_range("rate_drop_factor", config.rate_drop_factor, 0, do="Use a factor such as 0.2.")
    require_range("transition_share", config.transition_share, 0, 1, do="Use a fraction such as 0.5.")
    require_range("steps", config.steps, 1, do="Leave it out to count in epochs.")
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
    if config.stream not in STREAMS:
        raise unknown_name("stream", config.stream, STREAMS, do="See `pliant list streams`.")
    if config.network not in NETWORKS:
        raise unknown_name("network", config.network, NETWORKS, do="See `pliant list networks`.")


def _check_kinds(config: RunConfig) -> None:
    """The command line checks kinds while it reads; a configuration made in Python comes by here."""
    for field in dataclasses.fields(RunConfig):
        hint, value, do = _HINTS[field.name], getattr(config, field.name), f"Leave it out for {field.default}."
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


def check_names(config: RunConfig, names: list[str]) -> None:
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


def parse_settings(config: RunConfig, methods: list[str]) -> dict[str, dict[str, str]]:
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


def parse_grid(config: RunConfig, methods: list[str]) -> dict[str, dict[str, str]]:
    """Values to try, with commas between, by method and option; what a method is given wins over what all are."""
    of_all: dict[str, str] = {}
    of_one: dict[str, dict[str, str]] = {name: {} for name in methods}
    for entry in config.grid:
        target, _, values = entry.partition("=")
        name, dot, option = target.rpartition(".")
        if not (option and values) or (dot and not name):
            do = "For example adamo.isometry_strength=0.01,0.1,1, or learning_rate=1e-4,1e-3 for all methods."
            raise UserError(got=f"--grid {entry}", wanted="METHOD.OPTION=VALUE,VALUE,… or OPTION=VALUE,VALUE,…", do=do)
        if dot and name not in of_one:
            raise unknown_name("method", name, methods, do="Give options of the methods of this run.")
        (of_one[name] if dot else of_all)[option] = values
    return {name: of_all | own for name, own in of_one.items()}
