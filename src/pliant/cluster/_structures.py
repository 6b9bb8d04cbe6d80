"""A grid in parts: numbers stay within one compiled program, what shapes a program makes a run for each value."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from pliant.errors import UserError
from pliant.methods import find, split_static, with_settings
from pliant.problems import Config, kind_of, settings_in_use
from pliant.specs import NO_OBJECTS, name_of


class Structure(NamedTuple):
    """A part of a sweep whose values are all settings and numeric grids."""

    name: str
    """Such as "redo.source=initial"; empty if nothing in the grid shapes a program."""
    config: Config


def structures(config: Config) -> list[Structure]:
    """Splits a configuration whose grid has options that shape the compiled program.

    Such an option is a setting of a run of its own for each of its values. If it belongs to a method, these runs train
    that method alone, and another one trains the methods without such options.

    Args:
      config: of a run.

    Raises:
      UserError: for an option that shapes a program and is given for all methods, or together with others.

    Example:
      >>> from pliant.supervised import RunConfig
      >>> grid = "redo.source=fresh,initial", "learning_rate=1,2"
      >>> parts = structures(RunConfig(methods=("adam", "redo"), grid=grid))
      >>> [(part.name, part.config.methods) for part in parts]
      [('', ('adam',)), ('redo.source=fresh', ('redo',)), ('redo.source=initial', ('redo',))]
    """
    named = {find(NO_OBJECTS.spec("method", spec)).name: spec for spec in config.methods}
    shaping = {name: _shaping(spec, config) for name, spec in named.items()}
    others = {name_of(getattr(config, kind_of(config))), name_of(config.network)}
    numbers, of_all, own = [], [], dict[str, list[list[str]]]()
    for entry in config.grid:
        target, _, values = entry.partition("=")
        name, _, option = target.rpartition(".")
        settings = [f"{target}={value}" for value in values.split(",")]
        concerned = [shaping[name]] if name in shaping else [] if name else list(shaping.values())
        if name in others and not _is_number_of_source(config, target):
            of_all.append(settings)
        elif any(part in shapes for shapes in concerned for part in option.split(":")):
            _require_one_of_a_method(entry, name, option)
            own.setdefault(name, []).append(settings)
        else:
            numbers.append(entry)
    config = dataclasses.replace(config, grid=tuple(numbers))
    plain = tuple(spec for name, spec in named.items() if name not in own)
    parts = [((), plain)] if plain else []
    parts += [(chosen, (named[name],)) for name, axes in own.items() for chosen in itertools.product(*axes)]
    return [
        Structure(_folder_name((*shared, *chosen)), _part(config, methods, (*shared, *chosen)))
        for shared in itertools.product(*of_all)
        for chosen, methods in parts
    ]


def _shaping(spec: str, config: Config) -> frozenset[str]:
    """The hyperparameters of a method that shape its program."""
    method = find(NO_OBJECTS.spec("method", spec))
    static, _ = split_static(method, with_settings(method, {}, config.learning_rate))
    return frozenset(static)


def _is_number_of_source(config: Config, target: str) -> bool:
    """Whether a grid of a problem's option stays within one program: agents say so of their own numbers."""
    return kind_of(config) == "environment" and target.startswith(f"{getattr(config, 'agent', '')}.")


def _require_one_of_a_method(entry: str, name: str, option: str) -> None:
    if not name or ":" in option:
        raise UserError(
            got=f"--grid {entry}, which shapes the compiled program",
            wanted="METHOD.OPTION=VALUE,VALUE,… for such options, each by itself",
            do="Name the method, and give one --grid for each option.",
        )


def _part(config: Config, methods: Sequence[str], settings: Sequence[str]) -> Config:
    """A configuration with some of its methods, and of its settings and grids those that concern them."""
    part = dataclasses.replace(config, methods=tuple(methods), settings=(), grid=())
    return dataclasses.replace(
        part,
        settings=settings_in_use((*config.settings, *settings), part),
        grid=settings_in_use(config.grid, part),
    )


def _folder_name(settings: Sequence[str]) -> str:
    """A name for a folder: settings, with what file systems do not like replaced."""
    return re.sub(r"[^A-Za-z0-9_.=+,-]", "-", ",".join(settings))
