"""What the pictures of diagnostics share: which tasks and seeds are drawn, statistics that pass over NaN, the frame."""

import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pliant.errors import UserError
from pliant.results._look import literal
from pliant.sampling import evenly

Arrays = Mapping[int, Mapping[str, np.ndarray]]
"""What a run stored of one method: by task (from 1) and DIAGNOSTIC/ARRAY; the first axis of an array is the seed."""

_CHARACTERS_AN_INCH = 13
_MOST_IN_LEGEND = 8


def stored(arrays: Arrays, name: str) -> dict[int, np.ndarray]:
    """An array by task, where it was measured.

    Raises:
      UserError: if it was not, or holds no number.
    """
    found = {task: np.asarray(of_task[name], float) for task, of_task in sorted(arrays.items()) if name in of_task}
    if not any(np.isfinite(array).any() for array in found.values()):
        raise missing(f"no {name} in the arrays" if not found else f"{name} without a number", name.partition("/")[0])
    return found


def missing(got: str, diagnostic: str) -> UserError:
    """The error for what was never measured."""
    return UserError(
        got=got,
        wanted="what the diagnostic found after at least one task",
        do=f"Run with --diagnostics {diagnostic}, or measure the checkpoints: "
        f"pliant diagnose DIR --diagnostics {diagnostic}.",
    )


def fullest_seed(found: Mapping[int, np.ndarray]) -> tuple[int, list[int]]:
    """The seed that was measured after most tasks, the first of those, and the tasks; one that diverged has fewer."""
    measured = np.array([[np.isfinite(of_seed).any() for of_seed in array] for array in found.values()])
    seed = int(measured.sum(axis=0).argmax())
    return seed, [task for task, by_seed in zip(found, measured, strict=True) if by_seed[seed]]


def some(tasks: Sequence[int], most: int) -> list[int]:
    """At most so many tasks, evenly chosen, the first and the last among them.

    Example:
      >>> some([1, 2, 5, 10, 20], 3)
      [1, 5, 20]
    """
    return [tasks[place] for place in evenly(len(tasks), most)]


def over_rows(statistic: str, rows: np.ndarray, *arguments: float) -> np.ndarray:
    """NumPy's nan-statistic of that name over the first axis; NaN, and no warning, where there is no number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return getattr(np, statistic)(rows, *arguments, axis=0)


def naturally(name: str) -> list[str | int]:
    """A key that sorts dense_2 before dense_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def shades(count: int) -> list[tuple[float, ...]]:
    """Colours in order, from dark to light, that the colour-blind tell apart; the last is still seen on white."""
    return [tuple(color) for color in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.82, count))]


def framed(figure: Figure, title: str, caption: str) -> Figure:
    """The figure with a title above and a line below that says what is drawn."""
    width = int(figure.get_figwidth() * _CHARACTERS_AN_INCH)
    figure.suptitle(literal(textwrap.fill(title, width)), fontsize=11)
    figure.supxlabel(literal(textwrap.fill(caption, width)), fontsize=8, color="0.4")
    return figure


def task_lines(axes: Axes, tasks: Iterable[int]) -> None:
    """Finishes axes in which each task has a line with its label: no more names than can be read."""
    names = {f"task {task}" for task in some(list(tasks), _MOST_IN_LEGEND)}
    chosen = [line for line in axes.lines if line.get_label() in names]
    axes.legend(handles=chosen, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
