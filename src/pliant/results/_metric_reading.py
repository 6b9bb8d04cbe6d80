"""Reading metrics that lie in parts: all of them, those of some names, or what a summary needs.

A run may have many million rows. Texts are read as places in a dictionary, and one row group is searched at a time, so
that no more is held than what is asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Int

from pliant.errors import UserError
from pliant.results._metric_parts import SCHEMA, Part, is_gapless, parts_in, row_groups

_ATTEMPTS = 100  # to read a folder whose files another process merges meanwhile
_Found = TypeVar("_Found")


def read_tasks(folder: Path, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """Reads the metrics of a folder, which another process may be writing.

    Args:
      folder: of the parts.
      metrics: the names of those to read; all by default.

    Raises:
      UserError: if a file is damaged or missing.
    """

    def read(parts: Sequence[Part]) -> list[pa.Table]:
        if metrics is None:
            return [group.read() for group in row_groups(parts)]
        found = []
        for group in row_groups(parts):
            values, places = _texts(group.read("metric"), "metric")
            is_asked = np.array([value in metrics for value in values], bool)[places]
            if is_asked.any():
                found.append(_only(group.read(), is_asked))
        return found

    return _frame(_steadily(folder, read))


def read_end(folder: Path, metrics: Collection[str], num_tasks: int) -> pd.DataFrame:
    """Reads what a summary needs: some metrics in all tasks, and the end of the others.

    Args:
      folder: of the parts.
      metrics: the names of those to read in all tasks.
      num_tasks: how many tasks to read of any other metric: the last in which the method has it.

    Raises:
      UserError: if a file is damaged or missing.
    """

    def read(parts: Sequence[Part]) -> list[pa.Table]:
        numbers: dict[tuple[str, str], int] = {}  # of pairs of a method and a metric
        ends: dict[int, set[int]] = defaultdict(set)
        first_kept = np.zeros(0, np.int64)  # task of each pair, whose earlier rows are left out
        found = []
        for group in row_groups(parts, backwards=True):
            seen = group.read("method", "metric", "task")
            pairs, tasks = _pairs(seen, numbers), seen["task"].to_numpy()
            first_kept = np.pad(first_kept, (0, len(numbers) - len(first_kept)))
            has_end = np.array([metric not in metrics for _, metric in numbers])
            is_open = has_end[pairs] & (tasks >= first_kept[pairs])
            for both in np.unique(tasks[is_open] * len(numbers) + pairs[is_open])[::-1].tolist():
                task, pair = divmod(both, len(numbers))
                if len(ends[pair]) < num_tasks:
                    ends[pair].add(task)
                    first_kept[pair] = task if len(ends[pair]) == num_tasks else 0
            is_kept = tasks >= first_kept[pairs]
            if is_kept.any():
                found.append(_only(group.read(), is_kept))
        return found[::-1]

    return _frame(_steadily(folder, read))


def methods_in(folder: Path) -> list[str]:
    """What the metrics of the first tasks in a folder call the method; with a grid, a label for each point."""
    return _distinct(folder, "method", most_parts=1)


def metrics_in(folder: Path) -> list[str]:
    """The names of the metrics in a folder."""
    return _distinct(folder, "metric")


def _distinct(folder: Path, column: str, most_parts: int | None = None) -> list[str]:
    """The texts of a column, as they come first."""

    def read(parts: Sequence[Part]) -> list[str]:
        found: dict[str, None] = {}
        for group in row_groups(parts[:most_parts]):
            values, places = _texts(group.read(column), column)
            known, first = np.unique(places, return_index=True)
            found |= dict.fromkeys(values[place] for place in known[np.argsort(first)])
        return list(found)

    return _steadily(folder, read)


def _steadily(folder: Path, read: Callable[[Sequence[Part]], _Found]) -> _Found:
    """Reads the parts of a folder; again if they were merged since it was listed."""
    for _ in range(_ATTEMPTS):
        parts = parts_in(folder)
        if not is_gapless([Part(0, 0, folder), *parts]):
            raise UserError(
                got=f"{folder}, which lacks tasks between others",
                wanted="the metrics of every task, as `pliant run` wrote them",
                do="Restore the files; or run the same command again, which trains from the first that is lacking.",
            )
        try:
            return read(parts)
        except FileNotFoundError:  # merged since the folder was listed
            continue
    raise UserError(got=f"{folder}, whose files vanish", wanted="a folder that stays", do="Read it again later.")


def _texts(table: pa.Table, column: str) -> tuple[list[str], Int[np.ndarray, " row"]]:
    """The distinct values of a column of texts, and the place of each row's value among them."""
    whole = table[column].combine_chunks()
    return whole.dictionary.to_pylist(), whole.indices.to_numpy()


def _pairs(table: pa.Table, numbers: dict[tuple[str, str], int]) -> Int[np.ndarray, " row"]:
    """The number of each row's method and metric; pairs without one get the next."""
    (methods, of_method), (metrics, of_metric) = _texts(table, "method"), _texts(table, "metric")
    both = of_method.astype(np.int64) * len(metrics) + of_metric
    number = np.zeros(len(methods) * len(metrics), np.int64)
    number[both] = 1
    for place in np.flatnonzero(number).tolist():
        method, metric = divmod(place, len(metrics))
        number[place] = numbers.setdefault((methods[method], metrics[metric]), len(numbers))
    return number[both]


def _only(table: pa.Table, is_kept: Bool[np.ndarray, " row"]) -> pa.Table:
    return table.filter(pa.array(is_kept))


def _frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    return pa.concat_tables([SCHEMA.empty_table(), *(table.cast(SCHEMA) for table in tables)]).to_pandas()
