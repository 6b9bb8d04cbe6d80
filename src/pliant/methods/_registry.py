"""From a name to a method: the registry, and methods in a user's own file."""

import os
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pliant.errors import UserError, unknown_name
from pliant.methods import (
    _architecture,
    _baselines,
    _isometry,
    _rates,
    _resets,
    _spectrum,
    _targets,
    _toward_start,
    _units,
    _utility,
)
from pliant.methods._combine import combine
from pliant.types import Method

_FAMILIES = (
    _baselines,
    _isometry,
    _toward_start,
    _spectrum,
    _resets,
    _units,
    _utility,
    _architecture,
    _rates,
    _targets,
)
METHODS: Mapping[str, Method] = {method.name: method for family in _FAMILIES for method in family.METHODS}


def find(spec: str) -> Method:
    """Finds a method by its name in the registry, or as `path/to/file.py:name`; "+" combines several.

    Args:
      spec: a registered name, or a Python file and the name of a `Method` in it (the file is executed); or several of
        them with "+" between, see `combine`.

    Raises:
      UserError: if there is no such method, file or name, or if what is there is not a `Method`.

    Example:
      >>> find("adamo").reference
      'Rosseau et al. 2026, equations 16–20'
      >>> find("redo+l2-init").name
      'redo+l2-init'
    """
    return combine(*(_find_one(part) for part in split_spec(spec)))


def split_spec(spec: str) -> list[str]:
    """The members of a combination: splits at every plus, but for those in a path, from its first slash on.

    Example:
      >>> split_spec("redo+./my+file.py:mine")
      ['redo', './my+file.py:mine']
    """
    parts = re.findall(r"[^+]*/.*?\.py:[^+]+|[^+]+", spec)
    return parts if "+".join(parts) == spec else [spec]


def user_files(spec: str) -> list[str]:
    """The user's own files among the members of a combination; `~` is his home.

    Example:
      >>> user_files("redo+./my+file.py:mine")
      ['./my+file.py']
    """
    return [os.path.expanduser(part.rpartition(":")[0]) for part in split_spec(spec) if ".py:" in part]


def _find_one(spec: str) -> Method:
    if ".py:" not in spec:
        if spec not in METHODS:
            do = "See `pliant list methods`, or give your own as path/to/file.py:name."
            raise unknown_name("method", spec, METHODS, do)
        return METHODS[spec]
    (file,), name = user_files(spec), spec.rpartition(":")[2]
    if not Path(file).is_file():
        raise UserError(got=f"the method {spec!r}", wanted="an existing Python file", do=f"Check the path {file!r}.")
    with users_code(spec):
        names = runpy.run_path(file)
    if not isinstance(names.get(name), Method):
        found = sorted(key for key, value in names.items() if isinstance(value, Method))
        raise UserError(
            got=f"{name!r} in {file!r}, which is {type(names.get(name)).__name__}",
            wanted=f"a pliant.types.Method; the file has {', '.join(found) or 'none'}",
            do=f"Define {name} = pliant.types.Method(...) there: see CONTRIBUTING.md.",
        )
    method: Method = names[name]
    return method


@contextmanager
def users_code(spec: str) -> Iterator[None]:
    """Turns what goes wrong inside into a `UserError` that names the line, if a user's own file is in `spec`.

    Errors with registered methods pass: those are ours.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        files = user_files(spec)
        if not files:
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        first = (str(error).splitlines() or [""])[0]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (files[0], "?")
        raise UserError(
            got=f"{type(error).__name__} in {file!r}, line {line}: {first}",
            wanted="a method that builds and runs",
            do="See CONTRIBUTING.md for what a method is.",
        ) from error
