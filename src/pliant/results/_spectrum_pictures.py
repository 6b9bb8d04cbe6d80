"""Pictures of spectra: singular values, eigenvalues of the neural tangent kernel, density of the Hessian."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

from pliant.results._column import WIDTH, for_column
from pliant.results._look import literal
from pliant.results._picture_parts import (
    Arrays,
    framed,
    fullest_seed,
    missing,
    naturally,
    over_rows,
    shades,
    some,
    stored,
    task_lines,
)

_SMALLEST = 1e-5  # relative to the largest singular value; smaller ones are black
_NARROWEST = 2.0  # least ratio between the ends of the colour scale, so that rounding errors look equal
_MOST_COLUMNS = 2  # of panels, which are legible in a column of a paper
_WIDEST_NAME = 20
_MOST_TICKS = 4
_MOST_PANELS = 3


@for_column
def spectra_over_time(arrays: Arrays, name: str, title: str = "") -> Figure:
    """Draws singular values as heat maps: one panel for each kernel or layer, over tasks (right) and ranks (down).

    Use it to see spectra collapse over tasks. Colours are medians over seeds, and over examples if there are several.

    Args:
      arrays: of one method, see `RunFolder.arrays`.
      name: the diagnostic: weight-spectra or jacobian.
      title: above the panels.

    Raises:
      UserError: if there are no such spectra.

    Example:
      >>> arrays = {task: {"weight-spectra/singular_values/head": np.array([[2.0, 1.0]])} for task in (1, 2, 3)}
      >>> figure = spectra_over_time(arrays, "weight-spectra")
      >>> figure.axes[0].images[0].get_array().tolist()
      [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    """
    panels = median_spectra(arrays, name)
    limits = color_limits(np.concatenate([matrix.ravel() for _, matrix in panels.values()]))
    num_columns = min(_MOST_COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = Figure(figsize=(WIDTH, 2.4 * num_rows + 1.6), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for i, (axes, (panel, (tasks, matrix))) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        image = _heat_map(axes, tasks, matrix, limits)
        axes.set_title(literal(textwrap.fill(panel, _WIDEST_NAME)))
        axes.set_xlabel("task" if i + num_columns >= len(panels) else "")
        axes.set_ylabel("rank" if i % num_columns == 0 else "")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    has_less = any((matrix < limits[0]).any() for _, matrix in panels.values())
    bar = figure.colorbar(
        image,
        ax=grid,
        label="singular value",
        ticks=_ticks(*limits),
        format="%g",
        extend="min" if has_less else "neither",
        extendfrac=0.05 / num_rows,
        aspect=15 * num_rows,
    )
    bar.minorticks_off()
    caption = "median over seeds and examples" if name == "jacobian" else "median over seeds"
    return framed(figure, title, caption + (f"; black: 0, or below {limits[0]:.2g}" if has_less else ""))


def _heat_map(axes: Axes, tasks: Sequence[int], matrix: np.ndarray, limits: tuple[float, float]) -> AxesImage:
    """One panel, with a column for each measured task."""
    above_zero = np.maximum(matrix, limits[0] / 10)  # LogNorm takes 0 for NaN
    image = axes.imshow(
        above_zero,
        cmap=matplotlib.colormaps["viridis"].with_extremes(under="black", bad="0.85"),
        norm=LogNorm(*limits),
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, len(tasks) + 0.5, len(matrix) + 0.5, 0.5),
    )
    ticks = some(range(len(tasks)), _MOST_TICKS)
    axes.set_xticks([tick + 1 for tick in ticks], [str(tasks[tick]) for tick in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(_MOST_TICKS, integer=True))
    return image


def median_spectra(arrays: Arrays, name: str) -> dict[str, tuple[list[int], np.ndarray]]:
    """By panel: the tasks, and the median singular values with a row for each rank and a column for each task."""
    prefix, last = f"{name}/singular_values/", f"{name}/input_output"
    names = {each for of_task in arrays.values() for each in of_task}
    keys = sorted((key for key in names if key.startswith(prefix)), key=naturally) + [last] * (last in names)
    panels = {}
    for key in keys:
        tasks = [task for task, of_task in sorted(arrays.items()) if key in of_task]
        rows = [np.asarray(arrays[task][key], float) for task in tasks]
        medians = [over_rows("nanmedian", sigma.reshape(-1, sigma.shape[-1])) for sigma in rows]
        matrix = np.stack(medians, axis=1)
        if np.isfinite(matrix).any():
            panels[key.removeprefix(prefix).replace(last, "input to output")] = tasks, matrix
    if not panels:
        raise missing(f"no {prefix}… with a number in the arrays", name)
    return panels


def color_limits(values: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale: down to 10⁻⁵ of the largest value, which excludes zeros with rounding errors."""
    positive = values[np.isfinite(values) & (values > 0)]
    largest = positive.max(initial=1e-30)
    smallest = positive[positive >= _SMALLEST * largest].min(initial=largest)
    widen = np.sqrt(max(1.0, _NARROWEST * smallest / largest))
    return float(smallest / widen), float(largest * widen)


def _ticks(low: float, high: float) -> Locator:
    """Enough ticks for a logarithmic scale, whether it is shorter than a decade or spans several."""
    if high < 10 * low:
        return MaxNLocator(_MOST_TICKS, steps=[1, 2, 2.5, 5, 10])
    return LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,))


@for_column
def ntk_eigenvalues(arrays: Arrays, title: str = "") -> Figure:
    """Draws the eigenvalues of the neural tangent kernel in descending order, one line a task, median over seeds.

    Args:
      arrays: of one method, see `RunFolder.arrays`.
      title: above the axes.

    Raises:
      UserError: if there are none.

    Example:
      >>> figure = ntk_eigenvalues({1: {"ntk/eigenvalues": np.array([[4.0, 1.0], [6.0, 1.0]])}})
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [5.0, 1.0]
    """
    found = stored(arrays, "ntk/eigenvalues")
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    for (task, eigenvalues), color in zip(found.items(), shades(len(found)), strict=True):
        middle = over_rows("nanmedian", eigenvalues)
        index = np.arange(1, len(middle) + 1)
        axes.plot(index, np.where(middle > 0, middle, np.nan), color=color, label=f"task {task}")
    axes.set(xscale="log", yscale="log", xlabel="index of the eigenvalue", ylabel="eigenvalue of the NTK")
    task_lines(axes, found)
    return framed(figure, title, "at the end of tasks; median over seeds; values that are not positive are left out")


@for_column
def hessian_density(arrays: Arrays, title: str = "") -> Figure:
    """Draws the spectral density of one seed's Hessian after the first, a middle and the last measured task.

    Args:
      arrays: of one method, see `RunFolder.arrays`.
      title: above the axes.

    Raises:
      UserError: if there are none.

    Example:
      >>> found = {"hessian-density/grid": np.array([[0.0, 1.0]]), "hessian-density/density": np.array([[1.5, 0.5]])}
      >>> hessian_density({1: found}).axes[0].lines[0].get_ydata().tolist()
      [1.5, 0.5]
    """
    density = stored(arrays, "hessian-density/density")
    grid = stored(arrays, "hessian-density/grid")
    seed, tasks = fullest_seed(density)
    chosen = some(tasks, _MOST_PANELS)
    points = {task: grid[task][seed] for task in chosen}
    peak = max(np.nanmax(density[task][seed]) for task in chosen)
    figure = Figure(figsize=(WIDTH, 1.7 * len(chosen) + 2.0), layout="constrained")
    column = figure.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, task, color in zip(column, chosen, shades(len(chosen)), strict=True):
        heights = np.where(density[task][seed] > 0, density[task][seed], np.nan)
        axes.plot(points[task], heights, color=color)
        axes.fill_between(points[task], heights, 1e-9 * peak, color=color, alpha=0.25, linewidth=0)
        axes.axvline(0.0, color="0.6", linestyle=":", linewidth=1)
        axes.annotate(f"task {task}", (1.0, 1.0), xycoords="axes fraction", ha="right", va="top")
        axes.set(ylabel="density")
        axes.spines[["top", "right"]].set_visible(False)
    widest = max(np.nanmax(np.abs(each)) for each in points.values())
    column[0].set(yscale="log", ylim=(1e-6 * peak, 3 * peak))
    if widest > 10:
        column[0].set_xscale("symlog", linthresh=1.0)
    column[-1].set_xlabel("eigenvalue of the Hessian" + (" (linear between −1 and 1)" if widest > 10 else ""))
    return framed(figure, title, f"at the end of tasks; seed {seed}")
