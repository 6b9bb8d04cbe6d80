"""Files that are replaced in one step, and folders that one process at a time may write."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from pliant.errors import UserError

_PARTIAL = ".partial"
LOCK = ".lock"
_PATIENCE = 60.0  # seconds, for another process that writes what all share


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the temporary file that this yields; it takes the place of `path` in one step, or not at all."""
    temporary = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes or replaces a JSON file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: if it is empty or no JSON.
    """
    text = file.read_bytes()
    try:
        return json.loads(text)
    except ValueError:  # also of bytes that are no UTF-8
        raise damaged(file, "is empty" if not text.strip() else "is not valid JSON") from None


def damaged(file: Path, how: str) -> UserError:
    """The error for a `config.json` that something else than pliant has changed."""
    return UserError(
        got=f"{file}, which is damaged: it {how}",
        wanted="the configuration that `pliant run` wrote",
        do=f"Restore it from a copy; or remove {file.parent} and start the run again, which gives the same numbers.",
    )


def append_line(path: Path, line: str) -> None:
    """Appends a line in one write, so that the lines of several processes stay whole."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half written; call this under the folder's lock."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        leftover.unlink()


@contextmanager
def locked(folder: Path, busy: UserError, *, timeout: float = 0.0) -> Iterator[None]:
    """Makes a folder and keeps other processes out; the system releases the lock of a process that dies.

    Args:
      folder: which holds the lock file.
      busy: raised if another process holds the lock.
      timeout: seconds to wait for it.

    Raises:
      UserError: `busy`; or another if the folder cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        raise busy from None
    except (OSError, NotImplementedError) as error:  # the latter where the file system has no locks
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            got=f"{folder}: {reason}", wanted="a folder that can be written", do="Choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_for_an_instant(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing what all share in a folder; they take turns.

    Args:
      folder: as of `locked`.

    Raises:
      UserError: as `locked`, if it is not this process's turn within a minute.
    """
    busy = UserError(
        got=f"{folder}, which another process keeps locked",
        wanted="a folder that is locked for an instant only",
        do="Look for a process that hangs, or choose another --out.",
    )
    with locked(folder, busy, timeout=_PATIENCE):
        yield


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names at which two configurations differ.

    Example:
      >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
      ['a.c']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [name for key in keys for name in differences(old.get(key), new.get(key), f"{prefix}.{key}".strip("."))]
    return [] if old == new else [prefix]


def advice(changed: Sequence[str]) -> str:
    """What to do about a configuration that differs in `changed`.

    Example:
      >>> advice(["methods.mine.source_sha256"])
      'Your code has changed since the run was started: restore it, or choose another --out.'
    """
    last = {name.rpartition(".")[2] for name in changed}
    numbers = [each for each in ("tasks", "seeds") if each in last]
    if numbers:
        return f"It depends on the number of {' and '.join(numbers)}, so it cannot be extended: choose another --out."
    if any(name.endswith("source_sha256") for name in last):
        return "Your code has changed since the run was started: restore it, or choose another --out."
    return "Choose another --out, or give the options that the run was started with."
