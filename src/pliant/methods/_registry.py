"""From a name to a method: the registry, and methods in a user's own file."""

import runpy
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pliant.errors import UserError, unknown_name
from pliant.methods import _baselines, _isometry, _toward_start, _units
from pliant.types import Method

METHODS: Mapping[str, Method] = {
    method.name: method for family in (_baselines, _isometry, _toward_start, _units) for method in family.METHODS
}


def find(spec: str) -> Method:
    """Finds a method by its name in the registry, or as `path/to/file.py:name`.

    Args:
      spec: a registered name, or a Python file and the name of a `Method` in it. The file is executed.

    Raises:
      UserError: if there is no such method, file or name, or if what is there is not a `Method`.

    Example:
      >>> find("adamo").reference
      'Rosseau et al. 2026, equations 16–20'
    """
    if ".py:" not in spec:
        if spec not in METHODS:
            do = "See `pliant list methods`, or give your own as path/to/file.py:name."
            raise unknown_name("method", spec, METHODS, do)
        return METHODS[spec]
    file, _, name = spec.rpartition(":")
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
    """Turns what goes wrong inside into a `UserError` that names the line, if `spec` is a user's own file.

    Errors with registered methods pass: those are ours.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        file = spec.rpartition(":")[0]
        if not file.endswith(".py"):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            got=f"{type(error).__name__} in {file!r}, line {lines[-1] if lines else '?'}: {first}",
            wanted="a method that builds and runs",
            do="See CONTRIBUTING.md for what a method is.",
        ) from error
