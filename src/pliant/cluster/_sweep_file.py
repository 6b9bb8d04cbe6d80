"""A sweep in a TOML file: defaults, and a table for each run."""

import tomllib
import types
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pliant._asked import asked_for
from pliant.cluster._plan import Wanted
from pliant.errors import UserError, unknown_name
from pliant.problems import Config, folder_for
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig

_OWN = {"name": str, "scale": str, "stream": str, "environment": str}


def read_sweep(file: Path, out: Path | None = None, data_dir: str | None = None) -> list[Wanted]:
    r"""Reads the runs of a sweep.

    The file has a table `[defaults]` and tables `[[runs]]`. Each has fields of `RunConfig`, or of `AgentConfig`, such
    as `methods = ["adam", "redo"]`; a run has also a `name`, and perhaps a `scale` if its `stream` or `environment` is
    a benchmark. What a run says replaces what the defaults say.

    Args:
      file: a TOML file.
      out: the folder in which each run has a folder of its name; by default what the file says, or runs/FILE.
      data_dir: for the runs that read their data from a folder, see `pliant.streams.load_dataset`.

    Raises:
      UserError: if it cannot be read or is no TOML; for unknown keys, values of a wrong type, runs without a name, and
        two runs that are the same or have the same name.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "widths.toml")
      ...     lines = ["[defaults]", "methods = ['adam']", "[[runs]]", "name = 'narrow'", "widths = [16]",
      ...              "[[runs]]", "name = 'wide'", "widths = [64]"]
      ...     _ = file.write_text("\n".join(lines), encoding="utf-8")
      ...     [(each.name, each.config.widths, str(each.path)) for each in read_sweep(file)]
      [('narrow', (16,), 'runs/widths/narrow'), ('wide', (64,), 'runs/widths/wide')]
    """
    content = _read(file)
    _require_keys(file, content, ("out", "defaults", "runs"), "a sweep")
    defaults, tables = content.get("defaults", {}), content.get("runs", [])
    if not isinstance(defaults, dict) or not isinstance(tables, list) or not tables:
        raise UserError(
            got=f"{file} without runs",
            wanted="a table [[runs]] for each run",
            do='Write for example [[runs]] name = "a".',
        )
    folder = out or Path(_checked(file, "out", content["out"], str) if "out" in content else f"runs/{file.stem}")
    wanted: list[Wanted] = []
    for place, table in enumerate(tables, start=1):
        each = _wanted(file, place, defaults | table, folder)
        same = [other for other in wanted if other.name == each.name or other.config == each.config]
        if same:
            what = f"the name {each.name!r}" if same[0].name == each.name else "the same configuration"
            raise UserError(
                got=f"{file} with two runs of {what}, {same[0].name!r} and {each.name!r}",
                wanted="every run once, each with a name of its own",
                do="Drop or rename one of them.",
            )
        wanted.append(each._replace(data_dir=folder_for(each.config, data_dir)))
    return wanted


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            got=f"{file}: {error.strerror}", wanted="a TOML file that can be read", do="Give the path of the file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            got=f"{file}, which is no TOML ({error})", wanted="a TOML file", do="See docs/sweeps.md."
        ) from error


def _require_keys(file: Path, table: Mapping[str, Any], known: Any, of: str) -> None:
    for key in table:
        if key not in known:
            raise unknown_name(f"key of {of}", key, known, do=f"Correct {file}; see docs/sweeps.md.")


def _wanted(file: Path, place: int, table: Mapping[str, Any], folder: Path) -> Wanted:
    """One run, with the defaults filled in."""
    name = table.get("name")
    if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
        raise UserError(
            got=f"run {place} of {file} with the name {name!r}",
            wanted="a name, which becomes that of its folder",
            do='Write for example name = "wide".',
        )
    of_agent = "environment" in table or "agent" in table
    types_of = {**_types(AgentConfig if of_agent else RunConfig), **_OWN}
    _require_keys(file, table, types_of, "a run")
    choices = {
        key: _checked(file, f"{key} of the run {name!r}", value, types_of[key])
        for key, value in table.items()
        if key != "name"
    }
    try:
        asked = asked_for(**choices)
    except UserError as error:
        raise UserError(got=f"in the run {name!r} of {file} {error.got}", wanted=error.wanted, do=error.do) from error
    return Wanted(name, asked.config, folder / name)


def _types(config: type[Config]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config)}


def _checked(file: Path, what: str, value: Any, kind: Any) -> Any:
    """A value of the type of its field; lists become tuples."""
    fitted = _fitted(value, kind)
    if fitted is _UNFIT:
        raise UserError(got=f"{what} = {value!r} in {file}", wanted=_described(kind), do="Correct the file.")
    return fitted


_UNFIT = object()


def _fitted(value: Any, kind: Any) -> Any:
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return next((each for member in members if (each := _fitted(value, member)) is not _UNFIT), _UNFIT)
    if origin is Literal:
        return value if value in members else _UNFIT
    if origin is tuple:
        of_each = [_fitted(each, members[0]) for each in value] if isinstance(value, list) else [_UNFIT]
        return _UNFIT if any(each is _UNFIT for each in of_each) else tuple(of_each)
    if kind is float and type(value) is int:
        return float(value)
    return value if isinstance(kind, type) and type(value) is kind else _UNFIT


def _described(kind: Any) -> str:
    """A type in words.

    Example:
      >>> _described(tuple[int, ...] | None), _described(Literal["keep", "reset"])
      ('a list of whole numbers', "'keep' or 'reset'")
    """
    origin, members = get_origin(kind), [each for each in get_args(kind) if each not in (type(None), ...)]
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, members))
    if origin is Literal:
        return " or ".join(map(repr, members))
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return f"a list of {words[members[0]].partition(' ')[2]}s" if origin is tuple else words[kind]
