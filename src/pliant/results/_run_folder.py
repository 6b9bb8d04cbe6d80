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
_FORMAT = 2  # of the folder: since 2 tasks count from 1 in metrics.parquet, as everywhere else; before, from 0
_FIELDS: Mapping[str, tuple[str, ...]] = {  # of the configuration, without which nothing can be shown
    "config": (),
    "stream": ("name", "dataset", "headline", "chance"),
}
COLUMNS = ("benchmark", "method", "network", "dataset", "seed", "task", "step", "metric", "value")


class RunFolder:
    """The files of one run. Tasks count from 1.

    `config.json` holds the whole configuration under "configuration", its "id", the "format" of the folder, and the
    "environment" of every start; `metrics.parquet` the numbers in long form (`COLUMNS`); `seconds.json` the wall time
    of every task by method, apart from the metrics, which are the same to the bit however often a run was interrupted;
    `arrays/METHOD/` what diagnostics found that is no single number, a file a task; `checkpoints/` and `run.log`.

    A folder without a format is of an earlier version, whose `metrics.parquet` counted tasks from 0. It is read as the
    others are, and keeps its form when its run continues.

    Args:
      path: the folder; `~` is the user's home.

    Raises:
      UserError: if the folder is no run, or a file in it is damaged.

    Example:
      >>> import tempfile
      >>> stream = {"name": "random-labels", "dataset": "digits", "headline": "train_accuracy", "chance": 0.1}
      >>> configuration = {"config": {"network": "mlp", "seeds": 4}, "stream": stream}
      >>> with tempfile.TemporaryDirectory() as out:
      ...     with RunFolder.opened(out, configuration, "id"):
      ...         pass
      ...     RunFolder(out).title
      'random-labels on digits, mlp, 4 seeds'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.expanduser(path))
        self._config = _read_config(self.path)
        self._first_task = 0 if self._config.get("format", 1) < 2 else 1
        self.metrics = _read_metrics(self.path, self._first_task)
        self.seconds = _read_seconds(self.path)

    @classmethod
    @contextmanager
    def opened(
        cls, path: str | os.PathLike[str], configuration: Mapping[str, Any], identity: str
    ) -> Iterator["RunFolder"]:
        """Opens the folder of a run, or makes it, and keeps other processes out; the system lets go if this one dies.

        Raises:
          UserError: if the folder holds another run or other files, is in use, or cannot be written.
        """
        path = Path(os.path.expanduser(path))
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                got=f"the folder {str(path)!r}, whose letters the locale does not have",
                wanted="a name in the encoding of this terminal",
                do="Choose another --out, or set PYTHONUTF8=1.",
            ) from error
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
        except (OSError, NotImplementedError) as error:  # the latter where the file system has no locks
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                got=f"{path}: {reason}", wanted="a folder that can be written", do="Choose another --out."
            ) from error
        try:
            for leftover in path.glob(f".*{_PARTIAL}"):
                leftover.unlink()
            if not (path / "config.json").exists():
                _refuse_strangers(path)
                content = {"format": _FORMAT, "id": identity, "configuration": configuration, "environment": []}
                _write_json(path / "config.json", content)
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
        return next(task for task in itertools.count() if task + 1 not in stored)

    def record_task(self, task: int, rows: pd.DataFrame, seconds: float) -> None:
        """Stores a task's metrics and wall time, in place of what an interrupted attempt at it left.

        Args:
          task: counted from 1.
          rows: the metrics; of several points of a grid, which share the time, or of one method.
          seconds: the wall time.
        """
        labels = list(rows["method"].unique())
        stale = self.metrics["method"].isin(labels) & (self.metrics["task"] >= task)
        kept = self.metrics[~stale]
        self.metrics = pd.concat([kept, rows], ignore_index=True) if len(kept) else rows
        with _replacing(self.path / "metrics.parquet") as temporary:
            self._as_stored().to_parquet(temporary, index=False)
        for label in labels:
            before = self.seconds.get(label, [])[: task - 1]
            self.seconds[label] = [*before, *[0.0] * (task - 1 - len(before)), seconds / len(labels)]
        _write_json(self.path / "seconds.json", self.seconds)

    def _as_stored(self) -> pd.DataFrame:
        """The metrics with tasks as this folder's file counts them."""
        return self.metrics.assign(task=self.metrics["task"] - 1 + self._first_task)

    def record_arrays(self, method: str, task: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores what diagnostics found after a task that is no single number, in place of arrays of the same names.

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
        """What `record_arrays` stored, by task (from 1) and DIAGNOSTIC/ARRAY.

        Raises:
          UserError: if a file is damaged.
        """
        return {
            int(file.stem.rpartition("-")[2]): _read_arrays(file)
            for file in sorted(self._arrays_file(method, 1).parent.glob("task-*.npz"))
        }

    def _arrays_file(self, method: str, task: int) -> Path:
        return self.path / "arrays" / method / f"task-{task:05d}.npz"

    def log(self, message: str) -> None:
        """Adds a line to `run.log`."""
        with (self.path / "run.log").open("a", encoding="utf-8") as file:
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
        """Chance level of the headline metric, if it is a single number."""
        chance = self.configuration["stream"]["chance"]
        return None if chance is None else float(chance)

    @property
    def title(self) -> str:
        """What the run is, in a line."""
        config, stream = self.configuration["config"], self.configuration["stream"]
        lacking = [f"config.{name}" for name in ("network", "seeds") if name not in config]
        if lacking:
            raise _damaged(self.path / "config.json", f"lacks {', '.join(lacking)}")
        data = "" if stream["dataset"] == "generated" else f" on {stream['dataset']}"
        seeds = "1 seed" if config["seeds"] == 1 else f"{config['seeds']} seeds"
        return f"{stream['name']}{data}, {config['network']}, {seeds}"

    @property
    def configuration(self) -> dict[str, Any]:
        """The whole configuration, expanded."""
        return dict(self._config["configuration"])


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            got=f"{path}, which has no config.json",
            wanted="the folder of a run",
            do="Give the folder that `pliant run` printed (its --out).",
        ) from error
    except OSError as error:
        raise UserError(
            got=f"{file}: {error.strerror}",
            wanted="the folder of a run, whose files can be read",
            do="Give the folder that `pliant run` printed (its --out), and check its permissions.",
        ) from error
    try:
        config = json.loads(text)
    except ValueError:  # also of bytes that are no UTF-8
        raise _damaged(file, "is empty" if not text.strip() else "is not valid JSON") from None
    lacking = _lacking(config)
    if lacking:
        raise _damaged(file, f"lacks {', '.join(lacking)}")
    if config.get("format", 1) > _FORMAT:
        raise UserError(
            got=f"{path}, which a later version of pliant wrote",
            wanted=f"a run folder of format {_FORMAT} or earlier",
            do="Update pliant.",
        )
    return dict(config)


def _lacking(config: Any) -> list[str]:
    """What a `config.json` should have and has not."""
    if not isinstance(config, dict):
        return ["the configuration of a run"]
    inner = config.get("configuration")
    kinds = {"id": (config, str), "environment": (config, list), "configuration": (config, dict)}
    if isinstance(inner, dict):
        kinds |= dict.fromkeys(_FIELDS, (inner, dict))
    wrong = [name for name, (place, kind) in kinds.items() if not isinstance(place.get(name), kind)]
    if not isinstance(config.get("format", 1), int):
        wrong.append("a whole number as its format")
    names = [(part, name) for part, names in _FIELDS.items() for name in names]
    return wrong or [f"{part}.{name}" for part, name in names if name not in config["configuration"][part]]


def _damaged(file: Path, how: str) -> UserError:
    return UserError(
        got=f"{file}, which is damaged: it {how}",
        wanted="the configuration that `pliant run` wrote",
        do="Restore the file from a copy; or remove the folder and start the run again, which gives the same numbers.",
    )


def _read_seconds(path: Path) -> dict[str, list[float]]:
    """Wall times by method; what cannot be read is forgotten, since no number depends on it."""
    seconds = _read_json(path / "seconds.json")
    if not isinstance(seconds, dict):
        return {}
    return {method: times for method, times in seconds.items() if isinstance(times, list)}


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_metrics(path: Path, first_task: int) -> pd.DataFrame:
    file = path / "metrics.parquet"
    if not file.exists():
        return pd.DataFrame({column: [] for column in COLUMNS})
    try:
        stored = pd.read_parquet(file)[list(COLUMNS)]
        return stored.assign(task=stored["task"] + 1 - first_task)
    except (OSError, ValueError, KeyError, TypeError) as error:
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
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Write to a temporary file beside `path`; it takes its place in one step, or not at all."""
    temporary = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
