"""From a name, or a file and a name, to an object."""

import functools
import hashlib
import os
import reprlib
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pliant.errors import UserError, unknown_name

T = TypeVar("T")

_MARK = ".py:"
_LOADED: dict[tuple[Path, str], types.ModuleType] = {}


def find(
    kind: str,
    spec: object,
    known: Mapping[str, T],
    is_right: Callable[[Any], bool],
    wanted: str,
    *,
    also: Iterable[str] = (),
) -> T:
    """Finds an object by its registered name, as `path/to/file.py:name`, or takes the object itself.

    Args:
      kind: what is looked for, as the command line calls it, such as "method".
      spec: a name, a file and a name in it, or an object.
      known: the registry.
      is_right: whether something is an object of that kind.
      wanted: what such an object is, for the message, such as "a pliant.types.Method".
      also: other names that the user may have meant, for the message.

    Returns:
      The object. A file is executed once for each content that it has had in this process.

    Raises:
      UserError: if there is no such name or file, if the file fails, or if what was found is of another kind.

    Example:
      >>> known = {"one": 1.0}
      >>> find("number", "one", known, lambda x: isinstance(x, float), "a float")
      1.0
      >>> find("number", 2.0, known, lambda x: isinstance(x, float), "a float")
      2.0
    """
    if not isinstance(spec, str):
        if not is_right(spec):
            do = f"Give a name that `pliant list {kind}s` prints, path/to/file.py:name, or such an object."
            raise UserError(got=f"{reprlib.repr(spec)} as the {kind}", wanted=wanted, do=do)
        return spec  # type: ignore[return-value] # `is_right` has told
    file, name = _parse(spec)
    if file is None:
        if spec not in known:
            do = f"See `pliant list {kind}s`, or give your own as path/to/file.py:name."
            raise unknown_name(kind, spec, [*also, *known], do)
        return known[spec]
    if not Path(file).is_file():
        raise UserError(got=f"the {kind} {spec!r}", wanted="an existing Python file", do=f"Check the path {file!r}.")
    with users_code({kind: [spec]}):
        module = load(file)
    found: Any = vars(module).get(name)
    if not is_right(found):
        there = _names(module, is_right)
        raise UserError(
            got=f"no {name!r} in {file!r}"
            if found is None
            else f"{name!r} in {file!r}, which is {type(found).__name__}",
            wanted=f"{wanted}; the file has {', '.join(there) or 'none'}",
            do=f"Give the {kind} as {file}:NAME." if there else "Define one there: see README.md.",
        )
    return found


def name_of(spec: object) -> str:
    """What settings call an object: its registered name, what follows the colon, or its own name.

    Example:
      >>> name_of("mlp"), name_of("my/nets.py:wide"), name_of(name_of)
      ('mlp', 'wide', 'name_of')
    """
    if isinstance(spec, str):
        return _parse(spec)[1]
    while isinstance(spec, functools.partial):
        spec = spec.func
    spec = spec[0] if type(spec) is tuple and spec else spec  # what `gymnax.make` returns: with parameters
    name = getattr(spec, "name", None) or getattr(spec, "__name__", None) or type(spec).__name__
    return str(name).strip("<>")  # of a lambda


def load(file: str) -> types.ModuleType:
    """Executes a user's file, once for each content that it has had in this process.

    Args:
      file: its path; `~` is the user's home.

    Returns:
      The module. Its functions keep their source, and its classes the module that they name.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = (Path(folder) / "own.py").write_text("answer = 42", encoding="utf-8")
      ...     load(f"{folder}/own.py").answer
      42
    """
    path = Path(os.path.expanduser(file)).resolve()
    content = path.read_bytes()
    key = path, hashlib.sha256(content).hexdigest()
    if key not in _LOADED:
        module = types.ModuleType(f"{path}@{key[1][:12]}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # where dataclasses look for the names in their annotations
        try:
            exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        _LOADED[key] = module
    return _LOADED[key]


@contextmanager
def users_code(specs: Mapping[str, Sequence[object]]) -> Iterator[None]:
    """Turns what goes wrong inside into a `UserError` that names the line, if one of `specs` is in a user's own file.

    Errors of registered objects pass, because those are ours; so do errors of objects given in Python, whose traceback
    is in the user's own program.

    Args:
      specs: names, files and names, or objects, by kind such as "method".

    Example:
      >>> with users_code({"method": ["adam", "redo"]}):
      ...     pass
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        users = [(file, kind) for kind, several in specs.items() for file in map(user_file, several) if file]
        if not users:
            raise
        files = {str(Path(file).resolve()): file for file, _ in users}
        lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            lines.append((error.filename or "", error.lineno))
        path, line = ([(next(iter(files)), "?"), *(place for place in lines if place[0] in files)])[-1]
        kind = " or ".join(dict.fromkeys(kind for file, kind in users if str(Path(file).resolve()) == path))
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            got=f"{type(error).__name__} in {files[path]!r}, line {line}: {first}",
            wanted=f"a {kind} that builds and runs",
            do=f"See README.md for what a {kind} is.",
        ) from error


def split_options(spec: str) -> tuple[str, dict[str, str]]:
    """A name, a path, or a file and a name, and the options behind it.

    Example:
      >>> split_options("my.py:mine:steps=5:initial=true")
      ('my.py:mine', {'steps': '5', 'initial': 'true'})
    """
    parts, chosen = spec.split(":"), {}
    while len(parts) > 1 and "=" in parts[-1]:
        option, _, value = parts.pop().partition("=")
        chosen[option] = value
    return ":".join(parts), dict(reversed(chosen.items()))


def user_file(spec: object) -> str | None:
    """The user's file that a spec names, if it names one; `~` is the user's home.

    Example:
      >>> user_file("./own.py:mine"), user_file("adam"), user_file(len)
      ('./own.py', None, None)
    """
    return _parse(spec)[0] if isinstance(spec, str) else None


def _parse(spec: str) -> tuple[str | None, str]:
    """The file, if there is one, and the name."""
    if _MARK in spec or spec.endswith(".py"):
        file, _, name = spec.rpartition(":") if _MARK in spec else (spec, "", "")
        return os.path.expanduser(file), name
    return None, spec


def _names(module: types.ModuleType, is_right: Callable[[Any], bool]) -> list[str]:
    """What is there of the right kind, without functions and classes that the file imports."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("__")
        and is_right(value)
        and (not callable(value) or getattr(value, "__module__", "") == module.__name__)
    )
