"""Metrics in parts: a parquet file for each task, written once; files of consecutive tasks are merged by tens.

Every file is named after its tasks, such as `tasks-00001-00010.parquet`. After a merge the smaller files are removed.
Until then they are ignored, since the larger file has all that they have. So a process may be killed at any moment.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pliant.errors import UserError
from pliant.results._files import replacing

_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("method", pa.string()),
        ("network", pa.string()),
        ("dataset", pa.string()),
        ("seed", pa.int64()),
        ("task", pa.int64()),
        ("step", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)
COLUMNS: tuple[str, ...] = tuple(_SCHEMA.names)
"""Columns of a run's metrics. Tasks count from 1; `step` counts updates."""
AT_START = "start_"
"""Begins the names of metrics that are of the start of a task, before its first update."""

_ATTEMPTS = 100  # to read a folder whose files another process merges meanwhile


class _Part(NamedTuple):
    first: int
    last: int
    path: Path


def no_metrics() -> pd.DataFrame:
    """An empty table with `COLUMNS`."""
    return _SCHEMA.empty_table().to_pandas()


def num_tasks_in(folder: Path) -> int:
    """How many of the first tasks have their metrics in a folder."""
    tasks = 0
    for part in _parts(folder):
        if part.first > tasks + 1:
            break
        tasks = part.last
    return tasks


def append_task(folder: Path, task: int, rows: pd.DataFrame) -> None:
    """Writes the metrics of a task, in place of what the folder has of it and of later ones.

    Args:
      folder: of the parts; made if it does not exist.
      task: counted from 1.
      rows: in long form, with `COLUMNS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _keep_first(folder, task - 1)
    _write(folder, task, task, pa.Table.from_pandas(rows, schema=_SCHEMA, preserve_index=False))
    size = 1
    while task % (10 * size) == 0:
        size *= 10
    merged = [part for part in _parts(folder) if part.first > task - size]
    if len(merged) > 1 and _is_gapless(merged):
        _write(folder, merged[0].first, task, _read(merged))
        for part in merged:
            part.path.unlink()


def read_tasks(folder: Path) -> pd.DataFrame:
    """Reads all metrics of a folder, which another process may be writing.

    Raises:
      UserError: if a file is damaged or missing.
    """
    for _ in range(_ATTEMPTS):
        parts = _parts(folder)
        if not _is_gapless([_Part(0, 0, folder), *parts]):
            raise UserError(
                got=f"{folder}, which lacks tasks between others",
                wanted="the metrics of every task, as `pliant run` wrote them",
                do="Restore the files; or run the same command again, which trains from the first that is lacking.",
            )
        try:
            return _read(parts).to_pandas()
        except FileNotFoundError:  # merged since the folder was listed
            continue
    raise UserError(got=f"{folder}, whose files vanish", wanted="a folder that stays", do="Read it again later.")


def _parts(folder: Path) -> list[_Part]:
    """The files of a folder in order of their tasks, without those that larger ones contain."""
    parts: list[_Part] = []
    for part in sorted(_files(folder), key=lambda part: (part.first, -part.last)):
        if not parts or part.last > parts[-1].last:
            parts.append(part)
    return parts


def _files(folder: Path) -> list[_Part]:
    paths = list(folder.glob("tasks-*-*.parquet"))
    ends = [path.stem.split("-")[1:] for path in paths]
    return [_Part(int(first), int(last), path) for (first, last), path in zip(ends, paths, strict=True)]


def _is_gapless(parts: Sequence[_Part]) -> bool:
    return all(later.first == part.last + 1 for part, later in itertools.pairwise(parts))


def _keep_first(folder: Path, num_tasks: int) -> None:
    """Drops later tasks, from the last one on, and files that larger ones contain."""
    parts = _parts(folder)
    for contained in set(_files(folder)) - set(parts):
        contained.path.unlink()
    for part in reversed(parts):
        if part.first <= num_tasks < part.last:
            table = _read([part])
            _write(folder, part.first, num_tasks, table.filter(pc.field("task") <= num_tasks))
        if part.last > num_tasks:
            part.path.unlink()


def _write(folder: Path, first: int, last: int, table: pa.Table) -> None:
    with replacing(folder / f"tasks-{first:05d}-{last:05d}.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata(), temporary)


def _read(parts: Sequence[_Part]) -> pa.Table:
    tables = [_SCHEMA.empty_table()]
    for part in parts:
        try:
            with pq.ParquetFile(part.path) as file:
                tables.append(file.read(columns=list(COLUMNS)).cast(_SCHEMA))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:  # Arrow's errors are among them
            raise UserError(
                got=f"{part.path}, which cannot be read: {str(error)[:200]}",
                wanted="the metrics that `pliant run` wrote",
                do="Restore the file; or remove it and run the same command again, which trains these tasks again.",
            ) from error
    return pa.concat_tables(tables)
