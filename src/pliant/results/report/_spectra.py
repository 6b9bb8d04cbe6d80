"""Cards of spectra: singular values over tasks, eigenvalues of the tangent kernel, the density of the Hessian."""

from collections.abc import Mapping

import numpy as np

from pliant.results._picture_parts import Arrays, fullest_seed, over_rows, some, stored
from pliant.results._spectrum_pictures import color_limits, median_spectra
from pliant.results.report._cards import Album, Card, plotly_figure, task_line
from pliant.results.report._numbers import short
from pliant.sampling import evenly

_LOG = {"type": "log", "dtick": 1, "exponentformat": "power"}
_MOST_LINES = 6
_MOST_PANELS = 3
_MOST_POINTS = 200
_MOST_RANKS = 128
_MOST_TASKS = 60


def ntk_eigenvalues(arrays: Arrays, method: str) -> list[Card]:
    """Eigenvalues of the neural tangent kernel in descending order, a line a task, median over seeds."""
    found = stored(arrays, "ntk/eigenvalues")
    chosen = some(list(found), _MOST_LINES)
    lines, largest = [], []
    for place, task in enumerate(chosen):
        middle = over_rows("nanmedian", found[task])
        places = np.unique(np.geomspace(1, len(middle), _MOST_POINTS).round().astype(int)) - 1
        heights = np.where(middle > 0, middle, np.nan)[places]
        lines.append(task_line(places + 1, heights, task, place, len(chosen)))
        largest.append(f"{middle[0]:.3g} after task {task}")
    alt = f"Eigenvalues of the neural tangent kernel, {method}. The largest is {', '.join(largest)}."
    axes = {name: {"title": {"text": text}, **_LOG} for name, text in (("xaxis", "index"), ("yaxis", "eigenvalue"))}
    return [Card(method, method, alt, plotly_figure(lines, **axes))]


def hessian_density(arrays: Arrays, method: str) -> list[Card]:
    """Spectral density of one seed's Hessian after the first, a middle and the last measured task."""
    density, grid = stored(arrays, "hessian-density/density"), stored(arrays, "hessian-density/grid")
    seed, tasks = fullest_seed(density)
    chosen = some(tasks, _MOST_PANELS)
    peak = max(float(np.nanmax(density[task][seed])) for task in chosen)
    lines = []
    for place, task in enumerate(chosen):
        places = evenly(len(grid[task][seed]), 2 * _MOST_POINTS)
        heights = np.maximum(density[task][seed][places], 1e-6 * peak)
        lines.append(task_line(grid[task][seed][places], heights, task, place, len(chosen)))
    ends = ", ".join(
        f"{grid[task][seed].min():.3g} to {grid[task][seed].max():.3g} after task {task}" for task in chosen
    )
    alt = f"Density of the eigenvalues of the Hessian, {method}, seed {seed}. The grid is {ends}."
    figure = plotly_figure(lines, xaxis={"title": {"text": "eigenvalue"}}, yaxis={"title": {"text": "density"}, **_LOG})
    return [Card(method, f"{method}, seed {seed}", alt, figure)]


def spectra_over_time(by_method: Mapping[str, Arrays], name: str, title: str, caption: str) -> list[Album]:
    """Singular values as heat maps, an album for each kernel or layer; all methods share a colour scale.

    Args:
      by_method: the arrays of methods that have such spectra.
      name: the diagnostic, weight-spectra or jacobian.
      title: of the albums, before the kernel or layer.
      caption: below each.
    """
    spectra = {method: median_spectra(arrays, name) for method, arrays in by_method.items()}
    layers = list(dict.fromkeys(layer for panels in spectra.values() for layer in panels))
    albums = []
    for layer in layers:
        own = {method: panels[layer] for method, panels in spectra.items() if layer in panels}
        low, high = color_limits(np.concatenate([matrix.ravel() for _, matrix in own.values()]))
        cards = [_heat_map(method, layer, *panel, low, high) for method, panel in own.items()]
        albums.append(Album(f"{title}: {layer}", caption, cards))
    return albums


def _heat_map(method: str, layer: str, tasks: list[int], matrix: np.ndarray, low: float, high: float) -> Card:
    ranks, columns = evenly(len(matrix), _MOST_RANKS), evenly(len(tasks), _MOST_TASKS)
    chosen = np.array(tasks)[columns]
    logs = np.log10(np.maximum(matrix[np.ix_(ranks, columns)], low / 10))
    ticks = np.linspace(np.log10(low), np.log10(high), 5)
    heat = {
        "type": "heatmap",
        "z": [short(row) for row in logs],
        "x": [str(task) for task in chosen],
        "y": (ranks + 1).tolist(),
        "zmin": float(np.log10(low)),
        "zmax": float(np.log10(high)),
        "colorscale": "Viridis",
        "colorbar": {
            "title": {"text": "singular value", "side": "right", "font": {"size": 12}},
            "thickness": 12,
            "tickvals": short(ticks),
            "ticktext": [f"{10**tick:.2g}" for tick in ticks],
        },
        "meta": {"cell": "log10 of the singular value"},
        "hovertemplate": "task %{x}, rank %{y}<br>log₁₀ σ = %{z:.3f}<extra></extra>",
    }
    ends = ", ".join(
        f"{matrix[0, at]:.3g} to {matrix[-1, at]:.3g} after task {tasks[at]}" for at in sorted({0, len(tasks) - 1})
    )
    alt = f"Singular values of {layer} over tasks, {method}: from {ends}."
    layout = {
        "xaxis": {"title": {"text": "task"}, "type": "category"},
        "yaxis": {"title": {"text": "rank"}, "autorange": "reversed"},
    }
    return Card(method, method, alt, plotly_figure([heat], **layout))
