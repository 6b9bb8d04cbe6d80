"""Results of benchmarks: run folders, and the small tables that come with the package."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pliant.errors import UserError
from pliant.experiments.benchmarks import Benchmark, Scale
from pliant.results import RunFolder

RUNS = Path("runs") / "experiments"
"""Where `pliant reproduce` keeps its run folders by default."""
_COLUMNS = ("method", "seed", "task", "metric", "value")
_KEY = b"pliant"  # of the file's metadata


class Results(NamedTuple):
    """The metrics of one benchmark at one scale."""

    metrics: pd.DataFrame
    """In long form: `method`, `seed`, `task`, `metric`, `value`."""
    headline: str
    num_tasks: int
    """Of the whole run."""
    chance: float | None = None
    record: Mapping[str, Any] = {}  # never changed
    """`title`, `date`, `environment`, `minutes` by method, and `choices`, the benchmark's configuration; `folder` if it
    is a run folder of one's own."""

    @property
    def is_finished(self) -> bool:
        """Whether every seed of every method has learned the last task.

        Example:
          >>> metrics = pd.DataFrame([("adam", 0, 1, "loss", 0.5)], columns=_COLUMNS)
          >>> Results(metrics, "loss", 1).is_finished, Results(metrics, "loss", 2).is_finished
          (True, False)
        """
        own = self.metrics[self.metrics["metric"] == self.headline]
        return not own.empty and bool((own.groupby(["method", "seed"])["task"].max() >= self.num_tasks).all())


def folder_of(benchmark: str, scale: Scale, runs: Path = RUNS) -> Path:
    """The run folder of a benchmark.

    Example:
      >>> folder_of("kumar/permuted-mnist", "cpu").name
      'kumar-permuted-mnist-cpu'
    """
    return runs / f"{benchmark.replace('/', '-')}-{scale}"


def find_results(benchmark: Benchmark, scale: Scale, runs: Path = RUNS) -> Results | None:
    """The results of a benchmark: those of a run folder if there is one, else those that come with the package.

    Args:
      benchmark: what was run.
      scale: at which scale.
      runs: the folder of run folders.

    Raises:
      UserError: if a file is damaged.
    """
    folder = folder_of(benchmark.name, scale, runs)
    if (folder / "config.json").exists():
        found = from_folder(RunFolder(folder), benchmark.configs[scale].tasks)
        return found._replace(record={**found.record, "choices": choices(benchmark, scale)})
    shipped = resources.files("pliant.experiments") / "tables"
    stored = shipped / f"{folder.name}.parquet"
    if not stored.is_file():
        return None
    with resources.as_file(stored) as path:
        return read_table(path)


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
    about = results._asdict() | {"metrics": None, "record": record}
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
