"""What the settings and grids of a protocol say, by the name of what they set."""

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pliant.errors import UserError, unknown_name
from pliant.settings import cast, options
from pliant.training._protocol import Protocol


def check_names(names: Sequence[str], others: Sequence[str]) -> None:
    """Names of methods are folders, and what settings go by; `others` are the problem's and the network's."""
    if len(set(names)) < len(names):
        raise UserError(
            got=f"methods {' '.join(names)}", wanted="every name once", do="Rename or drop the repeated one."
        )
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*", name) or name in others:
            raise UserError(
                got=f"a method named {name!r}",
                wanted="letters, digits and _.+- (it names a folder), other than the stream and the network",
                do="Rename the method.",
            )


def of_names(entries: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Those settings, or entries of a grid, that are of one of some names, or of all methods.

    Example:
      >>> of_names(("redo.every=9", "adam.b1=0.8", "b2=0.9"), {"adam"})
      ('adam.b1=0.8', 'b2=0.9')
    """
    return tuple(entry for entry in entries if entry.partition("=")[0].rpartition(".")[0] in ("", *names))


def parse_settings(protocol: Protocol, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Settings by the name of what they set: a method, the problem or the network."""
    parsed: dict[str, dict[str, str]] = {name: {} for name in names}
    for setting in protocol.settings:
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
            raise unknown_name("name", name, names, do)
        parsed[name][option] = value
    return parsed


def parse_grid(protocol: Protocol, methods: Sequence[str], others: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Values to try, with commas between, by name and option; what a method is given wins over what all are.

    `others` are sources, whose own numbers can be varied.
    """
    of_all: dict[str, str] = {}
    of_one: dict[str, dict[str, str]] = {name: {} for name in (*methods, *others)}
    for entry in protocol.grid:
        target, _, values = entry.partition("=")
        name, dot, option = target.rpartition(".")
        if not (option and values) or (dot and not name):
            do = "For example adamo.isometry_strength=0.01,0.1,1, or learning_rate=1e-4,1e-3 for all methods."
            raise UserError(got=f"--grid {entry}", wanted="METHOD.OPTION=VALUE,VALUE,… or OPTION=VALUE,VALUE,…", do=do)
        if dot and name not in of_one:
            raise unknown_name("method", name, of_one, do="Give options of the methods of this run.")
        (of_one[name] if dot else of_all)[option] = values
    return {name: own if name in others else of_all | own for name, own in of_one.items()}


def with_options(factory: Any, name: str, settings: Mapping[str, str], skip: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a stream's or network's factory, with the settings made."""
    known = {key: option for key, option in options(factory).items() if key not in skip}
    values = {key: option.default for key, option in known.items()}
    missing = [key for key, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise UserError(
            got=f"{name!r}, whose {', '.join(missing)} has no default",
            wanted="a default for every option",
            do=f"Write for example {missing[0]}=0.1 in its signature.",
        )
    for key, text in settings.items():
        if key not in known:
            raise unknown_name(f"option of {name!r}", key, known, do="See its documentation.")
        values[key] = cast(f"{name}.{key}", text, known[key].default, known[key].annotation)
    return values
