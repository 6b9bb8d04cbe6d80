"""The run folder: configuration, metrics, seconds and log, written so that nothing is lost when a run is killed."""

import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd

from pliant.errors import UserError

_PARTIAL = ".partial"
COLUMNS = ("benchmark", "method", "network", "dataset", "seed", "task", "step", "metric", "value")


class RunFolder:
    """The files of one run.

    `config.json` holds the whole configuration under "configuration", its "id", and the "environment" of every start;
    `metrics.parquet` the numbers in long form (`COLUMNS`); `seconds.json` the wall time of every task by method, apart
    from the metrics, which are the same to the bit however often a run was interrupted; `arrays/METHOD/` what
    diagnostics found that is no single number, a file a task; `checkpoints/` and `run.log`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._config = _read_config(path)
        self.metrics = _read_metrics(path)
        self.seconds = _read_seconds(path)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, configuration: Mapping[str, Any], identity: str) -> Iterator["RunFolder"]:
        """Opens the folder of a run, or makes it, and keeps other processes out; the system lets go if this one dies.

        Raises:
          UserError: if the folder holds another run or other files, is in use, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path / ".lock")
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                got=f"{path}, in which another process is running",
                wanted="one process a run",
                do="Wait for it to end, or choose another --out.",
            ) from None
        except OSError as error:
            raise UserError(
                got=f"{path}: {error.strerror}", wanted="a folder that can be written", do="Choose another --out."
            ) from error
        try:
            for leftover in path.glob(f".*{_PARTIAL}"):
                leftover.unlink()
            if not (path / "config.json").exists():
                _refuse_strangers(path)
                _write_json(path / "config.json", {"id": identity, "configuration": configuration, "environment": []})
            folder = cls(path)
            folder._refuse_another(configuration, identity)
            yield folder
        finally:
            lock.release()

    def _refuse_another(self, configuration: Mapping[str, Any], identity: str) -> None:
        if self._config["id"] == identity:
            return
        changed = ", ".join(_differences(self.configuration, configuration)) or "the format"
        raise UserError(
            got=f"{self.path}, which holds a run with another configuration ({changed})",
            wanted="an empty folder, or the run's own to continue it",
            do="Choose another --out, or give the options that the run was started with.",
        )

    def record_environment(self, environment: Mapping[str, Any]) -> None:
        """Adds the environment of this start to `config.json`, unless it is that of the last one."""
        environments = self._config["environment"]
        if not environments or environments[-1] != environment:
            environments.append(dict(environment))
            _write_json(self.path / "config.json", self._config)

    def num_tasks_stored(self, method: str) -> int:
        """How many of a method's first tasks have their metrics here."""
        stored = set(self.metrics.loc[self.metrics["method"] == method, "task"])
        return next(task for task in itertools.count() if task not in stored)

    def record_task(self, task: int, rows: pd.DataFrame, seconds: float) -> None:
        """Stores a task's metrics and wall time, in place of what an interrupted attempt at it left.

        The rows may be of several points of a grid, which share the time.
        """
        labels = list(rows["method"].unique())
        stale = self.metrics["method"].isin(labels) & (self.metrics["task"] >= task)
        kept = self.metrics[~stale]
        self.metrics = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows
        with _replacing(self.path / "metrics.parquet") as temporary:
            self.metrics.to_parquet(temporary, index=False)
        for label in labels:
            before = self.seconds.get(label, [])[:task]
            self.seconds[label] = [*before, *[0.0] * (task - len(before)), seconds / len(labels)]
        _write_json(self.path / "seconds.json", self.seconds)

    def record_arrays(self, method: str, task: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores what diagnostics found that is no single number, in place of arrays of the same names.

        The first axis of every array is the seed; with a grid, all seeds of its first point, then of the next.
        """
        if not arrays:
            return
        file = self._arrays_file(method, task)
        arrays = {**(_read_arrays(file) if file.exists() else {}), **arrays}
        file.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    def arrays(self, method: str) -> dict[int, dict[str, np.ndarray]]:
        """What `record_arrays` stored, by task (from 0) and DIAGNOSTIC/ARRAY.

        Raises:
          UserError: if a file is damaged.
        """
        return {
            int(file.stem.rpartition("-")[2]) - 1: _read_arrays(file)
            for file in sorted(self._arrays_file(method, 0).parent.glob("task-*.npz"))
        }

    def _arrays_file(self, method: str, task: int) -> Path:
        return self.path / "arrays" / method / f"task-{task + 1:05d}.npz"

    def log(self, message: str) -> None:
        """Adds a line to `run.log`."""
        with (self.path / "run.log").open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")

    def checkpoints(self, method: str) -> Path:
        """The folder of a method's checkpoints."""
        return self.path / "checkpoints" / method

    @property
    def headline(self) -> str:
        """The metric that the run is about."""
        return str(self.configuration["stream"]["headline"])

    @property
    def chance(self) -> float | None:
        """The headline of guessing, where that is one number."""
        chance = self.configuration["stream"]["chance"]
        return None if chance is None else float(chance)

    @property
    def title(self) -> str:
        """What the run is, in a line."""
        config, stream = self.configuration["config"], self.configuration["stream"]
        data = "" if stream["dataset"] == "generated" else f" on {stream['dataset']}"
        return f"{stream['name']}{data}, {config['network']}, {config['seeds']} seeds"

    @property
    def configuration(self) -> dict[str, Any]:
        """The whole configuration, expanded."""
        return dict(self._config["configuration"])


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path / "config.json")
    try:
        configuration = config["configuration"]
        complete = {"id", "environment"} <= set(config) and {"config", "stream"} <= set(configuration)
    except (TypeError, KeyError):
        complete = False
    if not complete:
        raise UserError(
            got=f"{path}, which has no readable config.json",
            wanted="the folder of a run",
            do="Give the folder that `pliant run` printed (its --out).",
        )
    return dict(config)


def _read_seconds(path: Path) -> dict[str, list[float]]:
    """Wall times by method; what cannot be read is forgotten, since no number depends on it."""
    seconds = _read_json(path / "seconds.json")
    if not isinstance(seconds, dict):
        return {}
    return {method: times for method, times in seconds.items() if isinstance(times, list)}


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _read_metrics(path: Path) -> pd.DataFrame:
    file = path / "metrics.parquet"
    if not file.exists():
        return pd.DataFrame({column: [] for column in COLUMNS})
    try:
        return pd.read_parquet(file)[list(COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            got=f"{file}, which cannot be read: {str(error)[:200]}",
            wanted="the metrics that `pliant run` wrote",
            do="Restore the file; or remove it and run the same command again, which starts all methods anew.",
        ) from error


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            got=f"{file}, which cannot be read: {str(error)[:200]}",
            wanted="the arrays that `pliant run` wrote",
            do="Restore the file, or remove it: figures are then drawn without it.",
        ) from error


def _refuse_strangers(path: Path) -> None:
    strangers = sorted(file.name for file in path.iterdir() if file.name != ".lock")
    if strangers:
        raise UserError(
            got=f"{path}, which holds {', '.join(strangers[:3])} and no run",
            wanted="an empty or new folder",
            do="Choose another --out.",
        )


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names at which two configurations differ."""
    if isinstance(old, dict) and isinstance(new, Mapping):
        keys = sorted(set(old) | set(new))
        return [name for key in keys for name in _differences(old.get(key), new.get(key), f"{prefix}.{key}".strip("."))]
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    return [] if same else [prefix]


def _write_json(path: Path, content: Any) -> None:
    with _replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Write to a temporary file beside `path`; it takes its place in one step, or not at all."""
    temporary = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
