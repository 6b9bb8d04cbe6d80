"""Tables of the page: the summary of a run, and tables that others have made."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from pliant.results.report._numbers import shown

_STATE = {
    "dormant_fraction": "dormant fraction",
    "effective_rank": "effective rank",
    "isometry_deviation": "isometry deviation",
}


_WORD = 30  # letters of a text that is not broken


class Cell(NamedTuple):
    """A cell: what is printed, and the number by which its column is sorted."""

    text: str
    value: float | None = None


class Table(NamedTuple):
    """A table that readers can sort."""

    header: list[str]
    rows: list[list[Cell]]
    """The first cell of each names the row."""
    caption: str

    @property
    def kinds(self) -> list[Literal["number", "word", "text"]]:
        """What each column has, by which it is set: numbers, or short or long texts."""
        return [_kind([row[place] for row in self.rows]) for place in range(len(self.header))]


def _kind(column: Sequence[Cell]) -> Literal["number", "word", "text"]:
    if not column or any(cell.value is not None for cell in column):
        return "number"
    return "text" if max(len(cell.text) for cell in column) > _WORD else "word"


def summary(
    table: pd.DataFrame, seconds: Mapping[str, Sequence[float]], headline: str, *, is_one_seed: bool = False
) -> Table:
    """The table of a run, a row for each method.

    Args:
      table: from `summarize_run`.
      seconds: wall time of every task, by method.
      headline: the headline metric of the run.
      is_one_seed: whether no method has several seeds, and so no spread.
    """
    environments = [name.partition("/")[2] for name in map(str, table) if name.startswith("last_mean/")]
    last = sorted({min(5, number) for number in table["num_tasks"]})
    tasks = f"last {last[-1]} tasks" if last[-1] > 1 else "last task"
    header = ["method"]
    for name in environments or [tasks]:
        header += (
            [name.replace("_", " ")]
            if is_one_seed
            else [f"{name.replace('_', ' ')}: mean ± SE", "min – max", "IQM [95\u00a0%]"]
        )
    state = {name: title for name, title in _STATE.items() if name in table}
    has_first, has_phases = not environments, "num_phases" in table
    header += ["first task"] * has_first + ["dead phases"] * has_phases + list(state.values())
    has_diverged = bool((table["num_diverged"] > 0).any())
    header += ["diverged"] * has_diverged + ["tasks", "seeds", "seconds"]
    rows = []
    for row in table.to_dict("records"):
        time = float(sum(seconds.get(str(row["method"]), [])))
        cells = [Cell(str(row["method"]))]
        for suffix in [f"/{name}" for name in environments] or [""]:
            cells += _scores(
                {name.removesuffix(suffix): row[name] for name in map(str, row) if name.endswith(suffix)}, is_one_seed
            )
        cells += [_number(row["first_task"], ".3f")] * has_first
        if has_phases:
            cells.append(Cell(f"{row['num_dead_phases']:.0f} of {row['num_phases']:.0f}", row["num_dead_phases"]))
        cells += [_number(row[name], ".3g") for name in state]
        cells += [Cell(f"{row['num_diverged']} of {row['num_seeds']}", row["num_diverged"])] * has_diverged
        rows.append([*cells, _number(row["num_tasks"], "d"), _number(row["num_seeds"], "d"), _number(time, ".1f")])
    where = "in the last task of each environment" if environments else f"in the {tasks} of each method"
    said = (
        ""
        if is_one_seed
        else " SE: standard error over seeds. IQM: interquartile mean with its 95 % bootstrap interval."
    )
    return Table(header, rows, f"{headline.replace('_', ' ')} {where}.{said} Choose a heading to sort.")


def _scores(row: Mapping[str, Any], is_one_seed: bool) -> list[Cell]:
    mean, iqm = row["last_mean"], row["last_iqm"]
    if is_one_seed or np.isnan(mean):
        return [_number(mean, ".3f")] * (1 if is_one_seed else 3)
    error, low, high = (shown(row[f"last_{name}"], ".3f") for name in ("standard_error", "iqm_low", "iqm_high"))
    least, most = (shown(row[f"last_{name}"], ".3f") for name in ("minimum", "maximum"))
    return [
        Cell(f"{mean:.3f} ± {error}", mean),
        Cell(f"{least} – {most}", row["last_minimum"]),
        Cell(f"{iqm:.3f} [{low}, {high}]", iqm),
    ]


def _number(value: float, form: str) -> Cell:
    return Cell(shown(value, form), None if np.isnan(value) else float(value))


def plain(frame: pd.DataFrame, caption: str) -> Table:
    r"""A table as it was given: its columns are the header, in which underscores become spaces.

    A column with others of its name and `_low` and `_high` is shown with them, as an interval.

    Args:
      frame: a row of it is a row of the table, and its first column names the row.
      caption: below the table.

    Example:
      >>> columns = ["method", "num_seeds", "mean", "mean_low", "mean_high"]
      >>> table = plain(pd.DataFrame([("adam", 4, 0.1234, 0, 1)], columns=columns), "")
      >>> table.header, [cell.text for cell in table.rows[0]]
      (['method', 'num seeds', 'mean [95\xa0%]'], ['adam', '4', '0.123 [0.000, 1.000]'])
    """
    header, columns = [], []
    names = [str(name) for name in frame]
    with_interval = {name for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    for name in names:
        if name.removesuffix("_low").removesuffix("_high") in with_interval - {name}:
            continue
        header.append(name.replace("_", " "))
        if name in with_interval:
            header[-1] += " [95\u00a0%]"
            columns.append(_intervals(frame[[name, f"{name}_low", f"{name}_high"]]))
        else:
            columns.append(_cells(frame[name]))
    return Table(header, [list(row) for row in zip(*columns, strict=True)], caption)


def _intervals(frame: pd.DataFrame) -> list[Cell]:
    form = _form(frame)
    return [
        Cell(f"{shown(value, form)} [{shown(low, form)}, {shown(high, form)}]", float(value))
        if np.isfinite(value)
        else _number(value, form)
        for value, low, high in frame.astype(float).itertuples(index=False, name=None)
    ]


def _cells(column: pd.Series) -> list[Cell]:
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return [Cell(shown(value)) for value in column]
    form = _form(column.to_frame())
    return [_number(float(value), form) for value in column]


def _form(frame: pd.DataFrame) -> str:
    """The format of numbers that stand below each other."""
    values = frame.to_numpy(float)
    values = values[np.isfinite(values)]
    if (values == np.round(values)).all():
        return ",.0f"
    largest = np.abs(values).max()
    return ".3f" if 0.1 <= largest < 10 else ".1f" if 10 <= largest < 1000 else ".4g"
