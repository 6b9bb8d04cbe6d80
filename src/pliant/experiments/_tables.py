"""Results of benchmarks: run folders, and the small tables that come with the package."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pliant.errors import UserError
from pliant.experiments.benchmarks import Benchmark, Scale, with_choices
from pliant.problems import Config
from pliant.results import RunFolder
from pliant.training import as_data, of_names

RUNS = Path("runs") / "experiments"
"""Where `pliant reproduce` keeps its run folders by default."""
_COLUMNS = {"method": str, "seed": int, "task": int, "metric": str, "value": float}
_KEY = b"pliant"  # of the file's metadata


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The metrics of one benchmark at one scale."""

    metrics: pd.DataFrame
    """In long form: `method`, `seed`, `task`, `metric`, `value`."""
    headline: str
    num_tasks: int
    """Of the whole run."""
    chance: float | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`title`, `date`, `environment`, `minutes` by method, and `choices`, the benchmark's configuration; `folder` if it
    is a run folder of one's own."""
    trouble: str = ""
    """Why a run folder cannot be used; there are no metrics then."""

    @property
    def lacks(self) -> str:
        """Why the results cannot be judged yet; empty if every expected seed has learned the last task.

        The choices in the record say which are expected. Without choices it is those that have metrics.

        Example:
          >>> metrics = pd.DataFrame([("adam", 0, 1, "loss", 0.5)], columns=_COLUMNS)
          >>> Results(metrics, "loss", 1).lacks
          ''
          >>> Results(metrics, "loss", 1, record={"choices": {"methods": ["adam", "sgd"], "seeds": 2}}).lacks
          'unfinished, 1 of 4 seeds have all tasks'
        """
        if self.trouble:
            return self.trouble
        own = self.metrics[self.metrics["metric"] == self.headline]
        ended = own.groupby(["method", "seed"])["task"].max() >= self.num_tasks
        number = max(1, len(ended))
        if wanted := self.record.get("choices"):
            number = wanted["seeds"] * sum(_num_points(name, wanted.get("grid", ())) for name in wanted["methods"])
        done = int(ended.sum())
        return "" if done >= number else f"unfinished, {done} of {number} seeds have all tasks"

    def of(self, method: str, metric: str) -> pd.DataFrame | None:
        """A metric of a method, a row a seed and a column a task; None if there are no numbers.

        Example:
          >>> metrics = pd.DataFrame([("adam", 0, 1, "loss", 0.5), ("adam", 0, 2, "loss", 0.25)], columns=_COLUMNS)
          >>> Results(metrics, "loss", 2).of("adam", "loss").values.tolist()
          [[0.5, 0.25]]
        """
        if (method, metric) not in self._rows:
            return None
        seed, task, value = self._rows[method, metric]
        seeds, row = np.unique(seed, return_inverse=True)
        tasks, column = np.unique(task, return_inverse=True)
        values = np.full((seeds.size, tasks.size), np.nan)
        values[row, column] = value
        return pd.DataFrame(values, pd.Index(seeds, name="seed"), pd.Index(tasks, name="task"))

    @functools.cached_property
    def _rows(self) -> Mapping[Any, tuple[np.ndarray, ...]]:
        """`(seed, task, value)` by method and metric: many claims read the same results."""
        columns = [self.metrics[name].to_numpy() for name in ("seed", "task", "value")]
        found = self.metrics.groupby(["method", "metric"], sort=False).indices
        return {name: tuple(column[rows] for column in columns) for name, rows in found.items()}


def _num_points(method: str, grid: Sequence[str]) -> int:
    """How many points of a grid a method has."""
    return math.prod(len(entry.partition("=")[2].split(",")) for entry in of_names(grid, {method}))


def folder_of(benchmark: str, scale: Scale, runs: Path = RUNS) -> Path:
    """The run folder of a benchmark.

    Example:
      >>> folder_of("kumar/permuted-mnist", "cpu").name
      'kumar-permuted-mnist-cpu'
    """
    return runs / f"{benchmark.replace('/', '-')}-{scale}"


def find_results(benchmark: Benchmark, scale: Scale, runs: Path = RUNS) -> Results | None:
    """The results of a benchmark: those of a run folder if there is one, else those that come with the package.

    Methods, seeds and tasks beyond those of the benchmark are left out. A run folder that is damaged, or that holds a
    run with another configuration, gives results without metrics, whose `trouble` says so.

    Args:
      benchmark: what was run.
      scale: at which scale.
      runs: the folder of run folders.
    """
    folder, num_tasks = folder_of(benchmark.name, scale, runs), benchmark.configs[scale].tasks
    if (folder / "config.json").exists():
        wanted = with_choices(benchmark, scale, {})
        try:
            own = RunFolder(folder)
            trouble = _otherwise(own, wanted)
            found = from_folder(own, num_tasks)
        except UserError as error:
            trouble = error.got
        if trouble:
            nothing = {name: pd.Series(dtype=kind) for name, kind in _COLUMNS.items()}
            return Results(pd.DataFrame(nothing), "", num_tasks, trouble=trouble)
        seeds = range(wanted.first_seed, wanted.first_seed + wanted.seeds)
        metrics = found.metrics[
            found.metrics["method"].str.split("[").str[0].isin(wanted.methods)
            & found.metrics["seed"].isin(seeds)
            & (found.metrics["task"] <= num_tasks)
        ]
        record = {**found.record, "choices": choices(benchmark, scale)}
        return dataclasses.replace(found, metrics=metrics, record=record)
    shipped = resources.files("pliant.experiments") / "tables"
    stored = shipped / f"{folder.name}.parquet"
    if not stored.is_file():
        return None
    with resources.as_file(stored) as path:
        return read_table(path)


def _otherwise(folder: RunFolder, wanted: Config) -> str:
    """Names the choices in which a run folder differs from its benchmark; empty if in none."""
    if folder.is_old:
        return f"{folder.path}, which an earlier version of pliant wrote"
    common, config = folder.configuration.get("config", {}), as_data(dataclasses.asdict(wanted))
    changed = [name for name in common if name in config and name != "settings" and common[name] != config[name]]
    methods = {name: found.get("config", {}) for name, found in folder.methods.items() if name in wanted.methods}
    entries = [*common.get("settings", ()), *(entry for own in methods.values() for entry in own.get("settings", ()))]
    unused = of_names(wanted.settings, set(wanted.methods) - set(methods))  # of methods that are not begun
    if set(entries) != set(wanted.settings) - set(unused):
        changed.append("settings")
    if any(sorted(own.get("grid", ())) != sorted(of_names(wanted.grid, {name})) for name, own in methods.items()):
        changed.append("grid")
    return f"{folder.path}, which holds a run with another configuration ({', '.join(changed)})" if changed else ""


def choices(benchmark: Benchmark, scale: Scale) -> dict[str, Any]:
    """The configuration of a benchmark as JSON data, by which stored results are told from those of an older one."""
    return dict(json.loads(json.dumps(dataclasses.asdict(benchmark.configs[scale]))))


def from_folder(folder: RunFolder, num_tasks: int) -> Results:
    """The results in a run folder.

    Args:
      folder: of the run.
      num_tasks: of the whole run.
    """
    starts = [start for of_method in folder.starts.values() for start in of_method]
    record = {
        "folder": str(folder.path),
        "title": folder.title,
        "date": folder.begun,
        "environment": starts[-1]["environment"] if starts else {},
        "minutes": {method: round(sum(seconds) / 60, 2) for method, seconds in folder.seconds.items()},
    }
    return Results(folder.metrics[list(_COLUMNS)], folder.headline, num_tasks, folder.chance, record)


def write_table(results: Results, path: Path) -> None:
    """Writes results as one Parquet file, numbers in single precision: tables that are small enough to be shared.

    Args:
      results: of one benchmark.
      path: of the file.
    """
    import pyarrow
    import pyarrow.parquet

    metrics = results.metrics.astype({"method": "category", "metric": "category", "value": "float32"})
    record = {key: value for key, value in results.record.items() if key != "folder"}
    about = {each.name: getattr(results, each.name) for each in dataclasses.fields(results)}
    about |= {"metrics": None, "record": record}
    table = pyarrow.Table.from_pandas(metrics.astype({"seed": "int32", "task": "int32"}), preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()})
    pyarrow.parquet.write_table(table, path, compression="zstd")


def read_table(path: Path) -> Results:
    """Reads what `write_table` has written.

    Args:
      path: of the file.

    Raises:
      UserError: if the file is damaged, or no such table.

    Example:
      >>> import tempfile
      >>> metrics = pd.DataFrame([("adam", 0, 1, "loss", 0.5)], columns=_COLUMNS)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_table(Results(metrics, "loss", 1), Path(folder, "table.parquet"))
      ...     read_table(Path(folder, "table.parquet")).metrics.values.tolist()
      [['adam', 0, 1, 'loss', 0.5]]
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        about = json.loads(table.schema.metadata[_KEY])
    except (pyarrow.ArrowInvalid, KeyError, TypeError, OSError) as error:
        raise UserError(
            got=f"{path}, which is no table of results ({type(error).__name__})",
            wanted="a file that `pliant reproduce --tables` has written",
            do="Write it again, or remove it.",
        ) from error
    metrics = table.to_pandas().astype({"method": str, "metric": str, "value": float, "seed": int, "task": int})
    return Results(**{**about, "metrics": metrics})
