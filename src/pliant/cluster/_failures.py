"""Jobs that failed, in the folder of their run: an append-only list, and a file with each traceback."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pliant.results import append_line

_FILE = "failures.jsonl"


class Failure(NamedTuple):
    """A job that failed."""

    when: str
    method: str
    seeds: tuple[int, int]
    """The first and the last."""
    tasks_done: int
    """How many tasks were finished before; with more it has been overcome."""
    message: str
    traceback: str
    """The file in the run folder that has it; empty for errors that the user can correct."""


def record_failure(folder: Path, method: str, seeds: range, tasks_done: int, message: str, traceback: str) -> Failure:
    """Adds a failure to the list of a run.

    Args:
      folder: of the run.
      method: its name.
      seeds: of the job.
      tasks_done: how many tasks it has finished.
      message: in one line.
      traceback: its text, if there is any.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as out:
      ...     failure = record_failure(Path(out), "adam", range(4), 2, "KeyError: 'x'", "")
      ...     failures_of(Path(out)) == {("adam", (0, 3)): failure}
      True
    """
    when = datetime.now(UTC).isoformat(timespec="seconds")
    file = ""
    if traceback:
        file = f"failures/{method}-seeds-{seeds[0]:04d}-{seeds[-1]:04d}.txt"
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(traceback, encoding="utf-8")
    failure = Failure(when, method, (seeds[0], seeds[-1]), tasks_done, message, file)
    append_line(folder / _FILE, json.dumps(failure._asdict()))
    return failure


def failures_of(folder: Path) -> dict[tuple[str, tuple[int, int]], Failure]:
    """The last failure of every job of a run, by method and seeds; lines that are not whole are passed over."""
    try:
        lines = (folder / _FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            stored: dict[str, Any] = json.loads(line)
            first, last = stored["seeds"]
            failure = Failure(**{**stored, "seeds": (int(first), int(last))})
        except (ValueError, TypeError, KeyError):
            continue
        found[failure.method, failure.seeds] = failure
    return found
