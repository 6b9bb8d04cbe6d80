"""Shared by the pictures of diagnostics: the choice of tasks and seeds, statistics that ignore NaN, the frame."""

import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pliant.errors import UserError
from pliant.results._column import CAPTION, characters
from pliant.results._look import literal
from pliant.sampling import evenly

Arrays = Mapping[int, Mapping[str, np.ndarray]]
"""The arrays of one method, by task (from 1) and DIAGNOSTIC/ARRAY; the first axis of an array is the seed."""

_MOST_IN_LEGEND = 8


def stored(arrays: Arrays, name: str) -> dict[int, np.ndarray]:
    """The array of that name by task, for the tasks after which it was measured.

    Raises:
      UserError: if it was never measured, or holds no number.
    """
    found = {task: np.asarray(of_task[name], float) for task, of_task in sorted(arrays.items()) if name in of_task}
    if not any(np.isfinite(array).any() for array in found.values()):
        raise missing(f"no {name} in the arrays" if not found else f"{name} without a number", name.partition("/")[0])
    return found


def missing(got: str, diagnostic: str) -> UserError:
    """The error for a diagnostic that was never measured."""
    return UserError(
        got=got,
        wanted="the results of the diagnostic after at least one task",
        do=f"Run with --diagnostics {diagnostic}, or measure the checkpoints: "
        f"pliant diagnose DIR --diagnostics {diagnostic}.",
    )


def fullest_seed(found: Mapping[int, np.ndarray]) -> tuple[int, list[int]]:
    """The first seed with the most measured tasks, and these tasks. A seed that diverged has fewer."""
    measured = np.array([[np.isfinite(of_seed).any() for of_seed in array] for array in found.values()])
    seed = int(measured.sum(axis=0).argmax())
    return seed, [task for task, by_seed in zip(found, measured, strict=True) if by_seed[seed]]


def some(tasks: Sequence[int], most: int) -> list[int]:
    """At most `most` evenly spaced tasks, with the first and the last.

    Example:
      >>> some([1, 2, 5, 10, 20], 3)
      [1, 5, 20]
    """
    return [tasks[place] for place in evenly(len(tasks), most)]


def over_rows(statistic: str, rows: np.ndarray, *arguments: float) -> np.ndarray:
    """NumPy's nan-statistic of that name over the first axis; NaN without a warning where there is no number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return getattr(np, statistic)(rows, *arguments, axis=0)


def naturally(name: str) -> list[str | int]:
    """A sort key that puts dense_2 before dense_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def shades(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light that colour-blind readers can tell apart; the lightest is visible on white."""
    return [tuple(color) for color in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.82, count))]


def framed(figure: Figure, title: str, caption: str) -> Figure:
    """Adds a title above the figure, and below it a line that says what is drawn."""
    figure.suptitle(literal(textwrap.fill(title, int(0.8 * characters(figure)))))
    figure.supxlabel(literal(textwrap.fill(caption, characters(figure))), fontsize=CAPTION, color="0.35")
    return figure


def task_lines(axes: Axes, tasks: Iterable[int]) -> None:
    """Finishes axes with one labelled line for each task; the legend names only as many as can be read."""
    names = {f"task {task}" for task in some(list(tasks), _MOST_IN_LEGEND)}
    chosen = [line for line in axes.lines if line.get_label() in names]
    axes.legend(handles=chosen, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
