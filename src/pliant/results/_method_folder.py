"""The folder of one method in a run, and in it the folders of blocks of seeds, which were trained together."""

import contextlib
import itertools
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pliant.errors import BusyError, UserError
from pliant.results._files import (
    append_line,
    damaged,
    locked,
    locked_for_an_instant,
    read_json,
    remove_leftovers,
    replacing,
    write_json,
)
from pliant.results._metric_parts import append_task, no_metrics, num_tasks_in
from pliant.results._metric_reading import methods_in, metrics_in, read_end, read_tasks


class SeedBlock(NamedTuple):
    """What is stored of some seeds of a method, which are trained together."""

    path: Path
    seeds: range

    @property
    def has_metrics(self) -> bool:
        """Whether there are metrics of any task."""
        return any((self.path / "metrics").glob("tasks-*"))

    def num_tasks_stored(self, *, with_curves: bool = False) -> int:
        """How many of the first tasks have their metrics here.

        Args:
          with_curves: whether they must have their learning curves, too.
        """
        parts = ("metrics", "curves") if with_curves else ("metrics",)
        return min(num_tasks_in(self.path / part) for part in parts)

    def record_task(self, task: int, rows: pd.DataFrame, seconds: float, curves: pd.DataFrame | None = None) -> None:
        """Stores the metrics, learning curves and wall time of a task, in place of what an interrupted attempt left.

        Args:
          task: counted from 1; what is stored of later tasks is dropped.
          rows: the metrics in long form, with `COLUMNS`; with a grid, of all its points.
          seconds: the wall time.
          curves: the metrics at points within the task, in the same form; `step` tells the points apart. None without
            curves.
        """
        append_task(self.path / "metrics", task, rows)
        if curves is not None:
            append_task(self.path / "curves", task, curves)
        append_line(self.path / "seconds.csv", f"{task},{seconds}")

    def record_arrays(self, task: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores what diagnostics found after a task that is no single number, in place of arrays of the same names.

        Args:
          task: counted from 1.
          arrays: by DIAGNOSTIC/ARRAY. The first axis is the seed; with a grid, all seeds of its first point, then of
            the next.
        """
        write_arrays(self.path / "arrays", task, arrays)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def seconds(self) -> dict[int, float]:
        """Wall time by task. What cannot be read is left out, since no number depends on it."""
        return _read_seconds(self.path / "seconds.csv")


class MethodFolder:
    """The folder of one method: its configuration, and a folder for each block of seeds.

    `RunFolder.open_method` makes it for writing.

    Args:
      path: the folder, which holds the method's `config.json`.
      held: holds the locks of blocks that are claimed; None to read.
    """

    def __init__(self, path: Path, held: contextlib.ExitStack | None = None):
        self.path = path
        self._config = _read_config(path)
        self._held = held

    @property
    def name(self) -> str:
        """The method's name."""
        return self.path.name

    @property
    def configuration(self) -> dict[str, Any]:
        """What the method's numbers depend on, beside the configuration of the run."""
        return dict(self._config["configuration"])

    @property
    def identity(self) -> str:
        """A hash of everything that the method's numbers depend on."""
        return str(self._config["id"])

    @property
    def begun(self) -> str:
        """When the method was begun, as a text that sorts by time."""
        return str(self._config["begun"])

    @property
    def num_tasks(self) -> int:
        """The largest number of tasks that a start asked for; 0 before the first."""
        return max((start["tasks"] for start in self._config["starts"]), default=0)

    @property
    def num_seeds(self) -> int:
        """How many seeds have metrics."""
        return sum(len(block.seeds) for block in self.blocks())

    @property
    def starts(self) -> list[dict[str, Any]]:
        """What each start asked for, in order: `tasks`, `seeds`, and the `environment` that it ran in."""
        return [dict(start) for start in self._config["starts"]]

    def record_start(self, environment: Mapping[str, Any], tasks: int, seeds: int) -> None:
        """Adds a start to the method's `config.json`, unless it is as the last one was.

        Args:
          environment: see `pliant.results.environment`.
          tasks: how many tasks are asked for.
          seeds: how many seeds are asked for.
        """
        start = {"tasks": tasks, "seeds": seeds, "environment": dict(environment)}
        with locked_for_an_instant(self.path):
            self._config = _read_config(self.path)
            if self._config["starts"][-1:] != [start]:
                self._config["starts"].append(start)
                write_json(self.path / "config.json", self._config)

    def blocks(self, num_seeds: int = 0, first_seed: int = 0) -> list[SeedBlock]:
        """The blocks of seeds that have metrics; then new ones for the seeds asked for that have none.

        Args:
          num_seeds: how many seeds there should be at least.
          first_seed: the first of these.

        Raises:
          UserError: if two blocks hold the same seed.

        Example:
          >>> import tempfile
          >>> from pliant.results import RunFolder, RunRecord
          >>> with tempfile.TemporaryDirectory() as out:
          ...     folder = RunFolder.begin(out, RunRecord("a title", "train_accuracy", None, {}))
          ...     with folder.open_method("adam", {}) as method:
          ...         [block.path.name for block in method.blocks(4)]
          ['seeds-0000-0003']
        """
        stored = sorted((each for each in self._folders() if each.has_metrics), key=lambda block: block.seeds.start)
        for block, later in itertools.pairwise(stored):
            if later.seeds.start < block.seeds.stop:
                raise UserError(
                    got=f"{block.path} and {later.path.name}, which hold the same seeds",
                    wanted="every seed in one folder",
                    do="Remove the one that `pliant run` did not write.",
                )
        have = {seed for block in stored for seed in block.seeds}
        lacking = [seed for seed in range(first_seed, first_seed + num_seeds) if seed not in have]
        for _, run in itertools.groupby(enumerate(lacking), key=lambda each: each[1] - each[0]):  # consecutive ones
            first, *_, last = [seed for _, seed in run] * 2
            stored.append(SeedBlock(self.path / f"seeds-{first:04d}-{last:04d}", range(first, last + 1)))
        return stored

    def claim(self, num_seeds: int, first_seed: int = 0, *, alone: bool = False) -> list[SeedBlock]:
        """Blocks to be trained, kept from other processes until the context of `RunFolder.open_method` is left.

        Args:
          num_seeds: how many seeds there should be at least.
          first_seed: the first of these.
          alone: whether to leave alone the blocks that hold none of these seeds. By default all blocks are claimed.

        Raises:
          BusyError: if another process has claimed one of them, or the same seeds in another block.
        """
        assert self._held is not None
        asked = range(first_seed, first_seed + num_seeds)
        busy = BusyError(
            got=f"{self.name} in {self.path.parents[1]}, on which another process is running",
            wanted="one process for each block of seeds",
            do="Wait for it to end, leave the method or its seeds out, or choose another --out.",
        )
        with locked_for_an_instant(self.path):
            claimed = [each for each in self.blocks(num_seeds, first_seed) if not alone or _overlap(each.seeds, asked)]
            for block in claimed:
                self._held.enter_context(locked(block.path, busy))
                for folder in (block.path, *block.path.glob("*/")):
                    remove_leftovers(folder)
            own = {block.path for block in claimed}
            for other in self._folders():  # whose first task is not finished yet
                if other.path not in own and any(_overlap(other.seeds, block.seeds) for block in claimed):
                    with locked(other.path, busy):
                        pass
        return claimed

    def _folders(self) -> Iterator[SeedBlock]:
        for path in self.path.glob("seeds-*-*"):
            _, first, last = path.name.split("-")
            yield SeedBlock(path, range(int(first), int(last) + 1))

    def metrics(self, names: Collection[str] | None = None) -> pd.DataFrame:
        """The metrics of all seeds, in order of task, point of a grid and seed, however they lie in blocks.

        Args:
          names: of the metrics to read; all by default.
        """
        return _joined([read_tasks(block.path / "metrics", names) for block in self.blocks()])

    def curves(self, names: Collection[str] | None = None) -> pd.DataFrame:
        """The learning curves of all seeds in the same order, then in that of updates; empty without any.

        Args:
          names: of the metrics to read; all by default.
        """
        return _joined([read_tasks(block.path / "curves", names) for block in self.blocks()])

    def end(self, names: Collection[str], num_tasks: int) -> pd.DataFrame:
        """Some metrics of all seeds in all tasks; of every other metric the last tasks that have it. As `metrics`.

        Args:
          names: of the metrics to read in all tasks.
          num_tasks: how many tasks to read of the others.
        """
        return _joined([read_end(block.path / "metrics", names, num_tasks) for block in self.blocks()])

    def labels(self) -> list[str]:
        """What the metrics call the method: its name, or its name with each point of a grid; empty without metrics."""
        return methods_in(self.blocks()[0].path / "metrics") if self.blocks() else []

    def metric_names(self) -> list[str]:
        """The names of the metrics, as they come first."""
        return list(dict.fromkeys(name for block in self.blocks() for name in metrics_in(block.path / "metrics")))

    def seconds(self) -> list[float]:
        """Wall time of every task, summed over blocks of seeds."""
        times = [block.seconds() for block in self.blocks()]
        tasks = range(1, 1 + max((task for each in times for task in each), default=0))
        return [sum(each.get(task, 0.0) for each in times) for task in tasks]

    def arrays(self, num_points: int) -> dict[int, dict[str, np.ndarray]]:
        """The arrays of all seeds by task and name; NaN for blocks of seeds that were not measured after a task.

        Args:
          num_points: of the grid; 1 without one.
        """
        blocks = [(len(block.seeds), read_arrays(block.path / "arrays")) for block in self.blocks()]
        if len(blocks) == 1:
            return blocks[0][1]
        joined: dict[int, dict[str, np.ndarray]] = {}
        for task in sorted({task for _, arrays in blocks for task in arrays}):
            known = {name: array for _, arrays in blocks for name, array in arrays.get(task, {}).items()}
            for name, like in known.items():
                parts = []
                for num_seeds, arrays in blocks:
                    shape = (num_points, num_seeds, *like.shape[1:])
                    parts.append(arrays.get(task, {}).get(name, np.full(shape, np.nan)).reshape(shape))
                together = np.concatenate(parts, axis=1)
                joined.setdefault(task, {})[name] = together.reshape(-1, *like.shape[1:])
        return joined


def begin_method(path: Path, content: Mapping[str, Any], held: contextlib.ExitStack) -> MethodFolder:
    """Opens a method's folder for writing, or makes it with its `config.json`.

    Args:
      path: the folder.
      content: of `config.json`.
      held: see `MethodFolder`.

    Raises:
      UserError: if the folder holds files but no `config.json`, that is damaged, or the folder cannot be written.
    """
    with locked_for_an_instant(path):
        remove_leftovers(path)
        if not (path / "config.json").exists() and not any(path.glob("seeds-*")):
            write_json(path / "config.json", content)
        return MethodFolder(path, held)


def _overlap(seeds: range, others: range) -> bool:
    return seeds.start < others.stop and others.start < seeds.stop


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of blocks as one."""
    if len(tables) == 1:
        return tables[0]
    table = pd.concat([no_metrics(), *tables], ignore_index=True)
    points, _ = pd.factorize(table["method"])
    return table.iloc[np.lexsort((table["seed"], points, table["task"]))].reset_index(drop=True)


def write_arrays(folder: Path, task: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds arrays to the file of a task, in place of those of the same names."""
    if not arrays:
        return
    file = folder / f"task-{task:05d}.npz"
    arrays = {**(_read_arrays(file) if file.exists() else {}), **arrays}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_arrays(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """Arrays by task and name, from a folder with a file for each task.

    Raises:
      UserError: if a file is damaged.
    """
    files = sorted(folder.glob("task-*.npz"))
    return {int(file.stem.rpartition("-")[2]): _read_arrays(file) for file in files}


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


def _read_seconds(file: Path) -> dict[int, float]:
    """The last line of each task holds: one that is trained again has a second line."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    seconds = {}
    for line in lines:
        task, _, time = line.partition(",")
        with contextlib.suppress(ValueError):
            seconds[int(task)] = float(time)
    return seconds


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = read_json(file)
    except FileNotFoundError:
        raise damaged(file, "is missing") from None
    kinds = {"id": str, "begun": str, "configuration": dict, "starts": list}
    content = config if isinstance(config, dict) else {}
    lacking = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if lacking:
        raise damaged(file, f"lacks {', '.join(lacking)}")
    return content
