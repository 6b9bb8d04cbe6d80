"""The run folder: what is common to all methods of a run, and a folder for each method."""

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pliant.errors import UserError
from pliant.results import _old_formats as old_formats
from pliant.results._files import (
    LOCK,
    advice,
    append_line,
    differences,
    locked_for_an_instant,
    remove_leftovers,
    replacing,
    write_json,
)
from pliant.results._fingerprints import fingerprint
from pliant.results._method_folder import MethodFolder, begin_method, read_arrays
from pliant.results._metric_parts import no_metrics
from pliant.results._run_config import FORMAT, read_config
from pliant.results._statistics import LAST_TASKS, SUMMARIZED_WHOLE, summarize_run

_LOGGER = logging.getLogger("pliant")


class RunRecord(NamedTuple):
    """What all methods of a run have in common."""

    title: str
    """What the run is, in a line, without the number of seeds."""
    headline: str
    """The metric that the run is about."""
    chance: float | None
    """Chance level of the headline metric, if it is a single number."""
    configuration: Mapping[str, Any]
    """As JSON data: everything that is the same for all methods and that their numbers depend on."""


class RunFolder:
    """The files of one run.

    Use it to read a run: its metrics, wall times and arrays, joined over methods, seeds and tasks. Training writes with
    `begin` and `open_method`.

    `config.json` holds what all methods have in common, and is written once. Every method has a folder of its own,
    `methods/METHOD/`, so that methods can be added later, and trained by several processes at once. It holds the
    method's `config.json` and a folder for each block of seeds that were trained together, `seeds-0000-0003/`:
    `metrics/`, `seconds.csv`, `arrays/`, `checkpoints/`, and `curves/` if learning curves are recorded. More tasks are
    added to a block; more seeds make a new one. `run.log` and `summary.csv` are of the whole run.

    Folders of earlier versions (formats 1 and 2) can be read, but not continued.

    Args:
      path: the folder; `~` is the user's home.

    Raises:
      UserError: if the folder is no run, or a file in it is damaged.

    Example:
      >>> import tempfile
      >>> from pliant.results import COLUMNS
      >>> record = RunRecord("random-labels on digits, mlp", "train_accuracy", 0.1, {"epochs": 15})
      >>> rows = [("random-labels", "adam", "mlp", "digits", seed, 1, 9, "train_accuracy", 0.5) for seed in range(4)]
      >>> with tempfile.TemporaryDirectory() as out:
      ...     with RunFolder.begin(out, record).open_method("adam", {"learning_rate": 0.001}) as method:
      ...         (block,) = method.blocks(num_seeds=4)
      ...         block.record_task(1, pd.DataFrame(rows, columns=list(COLUMNS)), seconds=2.0)
      ...     folder = RunFolder(out)
      ...     folder.title, len(folder.metrics), folder.seconds
      ('random-labels on digits, mlp, 4 seeds', 4, {'adam': [2.0]})
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.expanduser(path))
        self._config = read_config(self.path)
        self.is_old = self._config["format"] < FORMAT
        """Whether an earlier version wrote the folder: it can be read, but not continued."""

    @classmethod
    def begin(cls, path: str | os.PathLike[str], record: RunRecord) -> "RunFolder":
        """Makes the folder of a run, or opens it to continue the run. Several processes may do so at once.

        Args:
          path: the folder; `~` is the user's home.
          record: what the run is. That of a folder that exists must be the same.

        Raises:
          UserError: if the folder holds another run, one of an earlier version, or other files; or cannot be written.
        """
        path = _as_path(path)
        with locked_for_an_instant(path):
            remove_leftovers(path)
            if not (path / "config.json").exists():
                _refuse_strangers(path)
                write_json(path / "config.json", {"format": FORMAT, **_as_json(record._asdict())})
        folder = cls(path)
        folder._refuse_old()
        folder._refuse_another(record)
        return folder

    def _refuse_old(self) -> None:
        if self.is_old:
            raise UserError(
                got=f"{self.path}, which an earlier version of pliant wrote",
                wanted="a new folder, or a run of this version to continue it",
                do="Keep it to read (`pliant show`, `pliant plot`), and choose another --out.",
            )

    def _refuse_another(self, record: RunRecord) -> None:
        changed = differences(self.configuration, _as_json(record.configuration))
        changed += [name for name in ("title", "headline", "chance") if self._config[name] != getattr(record, name)]
        if changed:
            raise UserError(
                got=f"{self.path}, which holds a run with another configuration ({', '.join(changed)})",
                wanted="an empty folder, or the run's own to continue it",
                do=advice(changed),
            )

    @contextmanager
    def open_method(self, name: str, configuration: Mapping[str, Any]) -> Iterator[MethodFolder]:
        """Opens the folder of a method for writing, or makes it.

        Several processes may do so at once: what `MethodFolder.claim` returns belongs to one of them until it leaves
        this context.

        Args:
          name: the method's name, which names the folder.
          configuration: as JSON data, what the method's numbers depend on beside the configuration of the run; not the
            numbers of tasks and seeds, unless the method's numbers depend on these too.

        Raises:
          UserError: if the folder was made with another configuration, or it cannot be written.
        """
        self._refuse_old()
        path = self.path / "methods" / name
        configuration = _as_json(configuration)
        identity = self._identity(configuration)
        begun = datetime.now(UTC).isoformat(timespec="microseconds")
        content = {"id": identity, "begun": begun, "configuration": configuration, "starts": []}
        with ExitStack() as held:
            method = begin_method(path, content, held)
            if method.identity != identity:
                changed = differences(method.configuration, configuration) or ["the configuration of the run"]
                raise UserError(
                    got=f"{path}, which holds the method with another configuration ({', '.join(changed)})",
                    wanted="the configuration with which the method was started",
                    do=advice(changed),
                )
            yield method

    def others(self, methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Those of some methods that the folder holds with another configuration.

        Args:
          methods: the configurations that are wanted, by name.
        """
        stored = {method.name: method.identity for method in self._methods()}
        return [name for name in methods if name in stored and stored[name] != self._identity(methods[name])]

    def _identity(self, configuration: Mapping[str, Any]) -> str:
        """A hash of everything that the numbers of a method depend on."""
        return fingerprint({"run": self.configuration, "method": _as_json(configuration)})

    def write_summary(self) -> None:
        """Writes `summary.csv`, a row for each method, from the metrics as they are now."""
        summary = RunFolder(self.path).summary()
        with locked_for_an_instant(self.path), replacing(self.path / "summary.csv") as temporary:
            summary.to_csv(temporary, index=False)

    def log(self, message: str, level: int = logging.INFO) -> None:
        """Adds a line to `run.log`, and tells Python's logger "pliant", which shows warnings on its own."""
        _LOGGER.log(level, "%s: %s", self.path, message)
        append_line(self.path / "run.log", f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of all methods in long form, with `COLUMNS`, as they were when this was first read.

        Methods stand in the order in which they were begun; then rows are in order of task, point of a grid, and seed.
        """
        if self.is_old:
            return old_formats.read_metrics(self.path, first_task=0 if self._config["format"] < 2 else 1)
        return pd.concat([no_metrics(), *(method.metrics() for method in self._methods())], ignore_index=True)

    def select(self, *names: str) -> pd.DataFrame:
        """Some of the metrics, as they are now: the same rows as those of `metrics`, read without the others.

        Use it for runs with many million rows, of which a figure or a statistic requires few.

        Args:
          *names: of the metrics. Those that the run has not stored have no rows.
        """
        if self.is_old:
            return _chosen(self.metrics, names)
        return pd.concat([no_metrics(), *(method.metrics(names) for method in self._methods())], ignore_index=True)

    def select_curves(self, *names: str) -> pd.DataFrame:
        """Some of the metrics in `curves`, as they are now, read without the others.

        Args:
          *names: of the metrics.
        """
        tables = [] if self.is_old else [method.curves(names) for method in self._methods()]
        return pd.concat([no_metrics(), *tables], ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """The table of `summarize_run`, of the metrics as they are now; only what it requires is read."""
        if self.is_old:
            metrics = self.metrics
        else:
            whole = {self.headline, *SUMMARIZED_WHOLE}
            tables = [method.end(whole, LAST_TASKS) for method in self._methods()]
            metrics = pd.concat([no_metrics(), *tables], ignore_index=True)
        return summarize_run(metrics, self.headline, self.environments)

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics that the run has stored, as they come first."""
        if self.is_old:
            return [str(name) for name in self.metrics["metric"].unique()]
        return list(dict.fromkeys(name for method in self._methods() for name in method.metric_names()))

    @property
    def has_metrics(self) -> bool:
        """Whether a task is finished."""
        if self.is_old:
            return not self.metrics.empty
        return any(block.num_tasks_stored() for method in self._methods() for block in method.blocks())

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Learning curves within tasks, in long form, with `COLUMNS`; empty for runs that recorded none.

        Every point of a curve is a value of `step`; the last of a task is its end. The numbers are what updates have
        reported since the point before, and an evaluation. Rows are in the order of `metrics`, then of points.
        """
        tables = [] if self.is_old else [method.curves() for method in self._methods()]
        return pd.concat([no_metrics(), *tables], ignore_index=True)

    @cached_property
    def environments(self) -> dict[int, str]:
        """The name of the environment of each task, counted from 1; empty if tasks have none.

        The metric `environment` is its place among the names in the configuration, `environment.environments`.
        """
        own = self.select("environment").dropna().drop_duplicates("task")
        names = self.configuration.get("environment", {}).get("environments", [])
        places = zip(own["task"], own["value"], strict=True)
        return {int(task): _environment_name(names, int(place)) for task, place in places}

    @cached_property
    def seconds(self) -> dict[str, list[float]]:
        """Wall time of every task, by method and point of a grid; points share the time, blocks of seeds add up."""
        if self.is_old:
            return old_formats.read_seconds(self.path)
        seconds: dict[str, list[float]] = {}
        for method in self._methods():
            labels, times = method.labels(), method.seconds()
            seconds |= {label: [each / len(labels) for each in times] for label in labels}
        return seconds

    def arrays(self, method: str) -> dict[int, dict[str, np.ndarray]]:
        """What diagnostics found of a method that is no single number, by task (from 1) and DIAGNOSTIC/ARRAY.

        The first axis of every array is the seed; with a grid, all seeds of its first point, then of the next. Arrays
        are NaN for seeds that were not measured after that task.

        Raises:
          UserError: if a file is damaged.
        """
        if self.is_old:
            return read_arrays(self.path / "arrays" / method)
        folders = self._method(method)
        return folders[0].arrays(len(folders[0].labels())) if folders else {}

    def labels(self, method: str) -> list[str]:
        """What the metrics call a method: its name, or its name with each point of a grid."""
        if self.is_old:
            return [label for label in self.metrics["method"].unique() if label.partition("[")[0] == method]
        return [label for folder in self._method(method) for label in folder.labels()]

    def num_seeds(self, method: str) -> int:
        """How many seeds of a method have metrics."""
        if self.is_old:
            own = self.metrics["method"].isin(self.labels(method))
            return int(self.metrics.loc[own, "seed"].nunique())
        return sum(folder.num_seeds for folder in self._method(method))

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The configuration of every method, in the order in which they were begun."""
        if self.is_old:
            return dict(self.configuration.get("methods", {}))
        return {method.name: method.configuration for method in self._methods()}

    @property
    def starts(self) -> dict[str, list[dict[str, Any]]]:
        """What each start of a method asked for: `tasks`, `seeds` and `environment`. Earlier versions recorded none."""
        return {} if self.is_old else {method.name: method.starts for method in self._methods()}

    @property
    def begun(self) -> str:
        """The day on which the last of its methods was begun, as 2026-01-31; empty for folders of earlier versions."""
        return "" if self.is_old else max((method.begun[:10] for method in self._methods()), default="")

    @property
    def num_tasks(self) -> int:
        """The largest number of tasks that a start of any method asked for."""
        if self.is_old:
            return int(self.configuration["config"].get("tasks", 0))
        return max((method.num_tasks for method in self._methods()), default=0)

    @property
    def record(self) -> RunRecord:
        """What all methods of the run have in common."""
        return RunRecord(*(self._config[name] for name in RunRecord._fields))

    @property
    def headline(self) -> str:
        """The metric that the run is about."""
        return str(self._config["headline"])

    @property
    def chance(self) -> float | None:
        """Chance level of the headline metric, if it is a single number."""
        chance = self._config["chance"]
        return None if chance is None else float(chance)

    @property
    def title(self) -> str:
        """What the run is, in a line, with the number of seeds that have metrics."""
        if self.is_old:
            numbers = sorted({self.num_seeds(method) for method in self.methods} - {0})
        else:
            numbers = sorted({method.num_seeds for method in self._methods()} - {0})
        if not numbers:
            return str(self._config["title"])
        seeds = " to ".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
        return f"{self._config['title']}, {seeds} seed{'' if seeds == '1' else 's'}"

    @property
    def configuration(self) -> dict[str, Any]:
        """What all methods of the run have in common; in folders of earlier versions, the whole configuration."""
        return dict(self._config["configuration"])

    def _methods(self) -> list[MethodFolder]:
        """The folders of the methods, in the order in which they were begun."""
        folders = (self.path / "methods").glob("*")
        return sorted(map(MethodFolder, filter(_is_begun, folders)), key=lambda method: (method.begun, method.name))

    def _method(self, name: str) -> list[MethodFolder]:
        """The folder of a method, if there is one."""
        path = self.path / "methods" / name
        return [MethodFolder(path)] if _is_begun(path) else []


def _is_begun(method: Path) -> bool:
    return (method / "config.json").exists() or any(method.glob("seeds-*"))


def _chosen(metrics: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    return metrics[metrics["metric"].isin(list(names))].reset_index(drop=True)


def _environment_name(names: Sequence[str], place: int) -> str:
    """The name at a place, told apart from equal ones; its number if there is none."""
    if place >= len(names):
        return f"environment {place}"
    return names[place] if names.count(names[place]) == 1 else f"{names[place]} ({place})"


def _as_path(path: str | os.PathLike[str]) -> Path:
    """The path of a folder that is to be written; `~` is the user's home."""
    path = Path(os.path.expanduser(path))
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            got=f"the folder {str(path)!r}, whose letters the locale does not have",
            wanted="a name in the encoding of this terminal",
            do="Choose another --out, or set PYTHONUTF8=1.",
        ) from error
    return path


def _as_json(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it will be read again: tuples are lists."""
    return dict(json.loads(json.dumps(recorded)))


def _refuse_strangers(path: Path) -> None:
    strangers = sorted(file.name for file in path.iterdir() if file.name != LOCK)
    if strangers:
        raise UserError(
            got=f"{path}, which holds {', '.join(strangers[:3])} and no run",
            wanted="an empty or new folder",
            do="Choose another --out.",
        )
