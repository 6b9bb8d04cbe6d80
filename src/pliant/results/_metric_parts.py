"""Metrics in parts: a parquet file for each task, written once; files of consecutive tasks are merged by tens.

Every file is named after its tasks, such as `tasks-00001-00010.parquet`. After a merge the smaller files are removed.
Until then they are ignored, since the larger file has all that they have. So a process may be killed at any moment.

A file consists of row groups, each of whole tasks; a few are held at once, however long a run is. Texts are
stored once a row group, and rows have their places among them.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pliant.errors import UserError
from pliant.results._files import replacing

SCHEMA = pa.schema(
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
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
"""Columns of a run's metrics. Tasks count from 1; `step` counts updates."""
AT_START = "start_"
"""Begins the names of metrics that are of the start of a task, before its first update."""

_TEXTS = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
_STORED = pa.schema(
    [(field.name, pa.dictionary(pa.int32(), pa.string()) if field.name in _TEXTS else field.type) for field in SCHEMA]
)
_ROWS = 2**17  # of a row group at least, but for the last of a file


class Part(NamedTuple):
    """A file with the metrics of consecutive tasks."""

    first: int
    last: int
    path: Path


class RowGroup(NamedTuple):
    """Rows of a part that are read together; texts are read as places in a dictionary."""

    part: Part
    file: pq.ParquetFile
    place: int

    def read(self, *columns: str) -> pa.Table:
        """Reads some columns, or all.

        Raises:
          UserError: if the file is damaged.
        """
        with _told(self.part):
            table = self.file.read_row_group(self.place, columns=list(columns or COLUMNS))
            return table.select(list(columns or COLUMNS))


def no_metrics() -> pd.DataFrame:
    """An empty table with `COLUMNS`."""
    return SCHEMA.empty_table().to_pandas()


def num_tasks_in(folder: Path) -> int:
    """How many of the first tasks have their metrics in a folder."""
    tasks = 0
    for part in parts_in(folder):
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
    _write(folder, task, task, [pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False).cast(_STORED)])
    size = 1
    while task % (10 * size) == 0:
        size *= 10
    merged = [part for part in parts_in(folder) if part.first > task - size]
    if len(merged) > 1 and is_gapless(merged):
        _write(folder, merged[0].first, task, (group.read() for group in row_groups(merged)))
        for part in merged:
            part.path.unlink()


def parts_in(folder: Path) -> list[Part]:
    """The files of a folder in order of their tasks, without those that larger ones contain."""
    parts: list[Part] = []
    for part in sorted(_files(folder), key=lambda part: (part.first, -part.last)):
        if not parts or part.last > parts[-1].last:
            parts.append(part)
    return parts


def _files(folder: Path) -> list[Part]:
    paths = list(folder.glob("tasks-*-*.parquet"))
    ends = [path.stem.split("-")[1:] for path in paths]
    return [Part(int(first), int(last), path) for (first, last), path in zip(ends, paths, strict=True)]


def is_gapless(parts: Sequence[Part]) -> bool:
    """Whether every part begins with the task after the last of the part before."""
    return all(later.first == part.last + 1 for part, later in itertools.pairwise(parts))


def _keep_first(folder: Path, num_tasks: int) -> None:
    """Drops later tasks, from the last one on, and files that larger ones contain."""
    parts = parts_in(folder)
    for contained in set(_files(folder)) - set(parts):
        contained.path.unlink()
    for part in reversed(parts):
        if part.first <= num_tasks < part.last:
            kept = (group.read().filter(pc.field("task") <= num_tasks) for group in row_groups([part]))
            _write(folder, part.first, num_tasks, kept)
        if part.last > num_tasks:
            part.path.unlink()


def row_groups(parts: Sequence[Part], *, backwards: bool = False) -> Iterator[RowGroup]:
    """The row groups of parts in order of their tasks, or from the last to the first.

    Raises:
      UserError: if a file is damaged.
    """
    for part in reversed(parts) if backwards else parts:
        with _told(part):
            opened = pq.ParquetFile(part.path, read_dictionary=_TEXTS)
        with opened as file:
            places = range(file.num_row_groups)
            for place in reversed(places) if backwards else places:
                yield RowGroup(part, file, place)


def _write(folder: Path, first: int, last: int, tables: Iterable[pa.Table]) -> None:
    """Writes a part from tables of consecutive tasks."""
    with (
        replacing(folder / f"tasks-{first:05d}-{last:05d}.parquet") as temporary,
        pq.ParquetWriter(temporary, _STORED, store_schema=False) as writer,
    ):
        for table in _gathered(tables):
            writer.write_table(table, row_group_size=max(len(table), 1))


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that are large enough for a row group."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table.cast(_STORED).replace_schema_metadata())
        if sum(map(len, pending)) >= _ROWS:
            yield pa.concat_tables(pending).unify_dictionaries().combine_chunks()
            pending = []
    if pending:
        yield pa.concat_tables(pending).unify_dictionaries().combine_chunks()


@contextmanager
def _told(part: Part) -> Iterator[None]:
    """Says which file is damaged; one that has vanished is another matter."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:  # Arrow's errors are among them
        raise UserError(
            got=f"{part.path}, which cannot be read: {str(error)[:200]}",
            wanted="the metrics that `pliant run` wrote",
            do="Restore the file; or remove it and run the same command again, which trains these tasks again.",
        ) from error
