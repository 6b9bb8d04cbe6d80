"""The run folder: configuration, metrics, seconds and log, written so that nothing is lost when a run is killed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from pliant.errors import UserError

COLUMNS = ("benchmark", "method", "network", "dataset", "seed", "task", "step", "metric", "value")


class RunFolder:
    """The files of one run.

    `config.json` holds the whole configuration under "configuration", its "id", and the "environment" of every start;
    `metrics.parquet` the numbers in long form (`COLUMNS`); `seconds.json` the wall time of every task by method, apart
    from the metrics, which are the same to the bit however often a run was interrupted; `checkpoints/` and `run.log`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.configuration: dict[str, Any] = self._read_config()["configuration"]
        self.metrics = self._read_metrics()
        self.seconds: dict[str, list[float]] = self._read_json("seconds.json", {})

    @classmethod
    def create(cls, path: Path, configuration: Mapping[str, Any], identity: str) -> "RunFolder":
        """Opens the folder of a run, or makes it.

        Raises:
          UserError: if the folder holds another run or other files, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "config.json").exists():
                _refuse_strangers(path)
                _write_json(path / "config.json", {"id": identity, "configuration": configuration, "environment": []})
        except OSError as error:
            raise UserError(
                got=f"{path}: {error.strerror}",
                wanted="a folder that can be written",
                do="Choose another --out.",
            ) from error
        folder = cls(path)
        if folder._read_config()["id"] != identity:
            changed = ", ".join(_differences(folder.configuration, configuration)) or "the format"
            raise UserError(
                got=f"{path}, which holds a run with another configuration ({changed})",
                wanted="an empty folder, or the run's own to continue it",
                do="Choose another --out, or give the options that the run was started with.",
            )
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from running in this folder; released by the system if this one is killed.

        Raises:
          UserError: if another process runs in it.
        """
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                got=f"{self.path}, in which another process is running",
                wanted="one process a run",
                do="Wait for it to end, or choose another --out.",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def record_environment(self, environment: Mapping[str, Any]) -> None:
        """Adds the environment of this start to `config.json`, unless it is that of the last one."""
        config = self._read_config()
        if not config["environment"] or config["environment"][-1] != environment:
            config["environment"].append(dict(environment))
            _write_json(self.path / "config.json", config)

    def record_task(self, method: str, task: int, rows: pd.DataFrame, seconds: float) -> None:
        """Stores a task's metrics and wall time, in place of what an interrupted attempt at it left."""
        stale = (self.metrics["method"] == method) & (self.metrics["task"] >= task)
        kept = self.metrics[~stale]
        self.metrics = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows
        with _replacing(self.path / "metrics.parquet") as temporary:
            self.metrics.to_parquet(temporary, index=False)
        self.seconds[method] = [*self.seconds.get(method, [])[:task], seconds]
        _write_json(self.path / "seconds.json", self.seconds)

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
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1.0 / int(self.configuration["stream"]["num_classes"])

    @property
    def title(self) -> str:
        """What the run is, in a line."""
        config = self.configuration["config"]
        return f"{config['stream']} on {config['dataset']}, {config['network']}, {config['seeds']} seeds"

    def _read_config(self) -> dict[str, Any]:
        config: dict[str, Any] | None = self._read_json("config.json", None)
        if config is None or "configuration" not in config:
            raise UserError(
                got=f"{self.path}, which has no readable config.json",
                wanted="the folder of a run",
                do="Give the folder that `pliant run` printed (its --out).",
            )
        return config

    def _read_json(self, name: str, default: Any) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return default

    def _read_metrics(self) -> pd.DataFrame:
        file = self.path / "metrics.parquet"
        if not file.exists():
            return pd.DataFrame({column: [] for column in COLUMNS})
        try:
            return pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise UserError(
                got=f"{file}, which cannot be read: {str(error)[:200]}",
                wanted="the metrics that `pliant run` wrote",
                do="Restore the file, or remove the folder and run again.",
            ) from error


def _refuse_strangers(path: Path) -> None:
    strangers = sorted(file.name for file in path.iterdir())
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
