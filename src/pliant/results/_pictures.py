"""Pictures of diagnostics, drawn from stored arrays and metrics; nothing is measured again."""

from collections.abc import Callable, Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pliant.results._column import WIDTH, for_column
from pliant.results._look import line_style, literal
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
from pliant.results._run_folder import RunFolder
from pliant.results._spectrum_pictures import hessian_density, ntk_eigenvalues, spectra_over_time

_MOST_PANELS = 3
_MOST_CURVES = 6


@for_column
def gradient_cosine(arrays: Arrays, title: str = "") -> Figure:
    """Draws the cosines between gradients of examples after the first, a middle and the last measured task.

    Use it to see whether examples interfere. Examples are in the stored order, by cluster; lines separate the clusters.
    One seed is drawn.

    Args:
      arrays: of one method, see `RunFolder.arrays`.
      title: above the panels.

    Raises:
      UserError: if there are none.

    Example:
      >>> found = {"gradient-cosine/matrix": np.eye(2)[None], "gradient-cosine/labels": np.array([[0, 1]])}
      >>> gradient_cosine({1: found}).axes[0].images[0].get_array().tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    matrices = stored(arrays, "gradient-cosine/matrix")
    labels = stored(arrays, "gradient-cosine/labels")
    seed, tasks = fullest_seed(matrices)
    chosen = some(tasks, _MOST_PANELS)
    figure = Figure(figsize=(WIDTH, 6.0 / (len(chosen) + 0.6) + 1.5), layout="constrained")
    row = figure.subplots(1, len(chosen), squeeze=False)[0]
    colors = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.85")
    for axes, task in zip(row, chosen, strict=True):
        image = axes.imshow(matrices[task][seed], cmap=colors, vmin=-1.0, vmax=1.0, interpolation="nearest")
        for border in np.flatnonzero(np.diff(labels[task][seed])) + 0.5:
            axes.axhline(border, color="0.35", linewidth=0.3)
            axes.axvline(border, color="0.35", linewidth=0.3)
        axes.set(title=f"task {task}", xlabel="example")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(2, integer=True))
    row[0].set_ylabel("example")
    figure.colorbar(image, ax=row, label="cosine", shrink=0.75)
    return framed(figure, title, f"at the end of tasks; seed {seed}; examples by cluster, lines between clusters")


@for_column
def probe_curves(arrays: Arrays, title: str = "") -> Figure:
    """Draws how copies of the network, made after different tasks, learn new targets.

    Use it to see whether later copies learn more slowly. Lines are means over seeds and targets; bands are the 10th to
    90th percentile. At most six tasks are drawn.

    Args:
      arrays: of one method, see `RunFolder.arrays`.
      title: above the axes.

    Raises:
      UserError: if there are none.

    Example:
      >>> found = {"curves": np.array([[[1.0, 0.5], [1.0, 0.1]]]), "steps": np.array([[0, 100]])}
      >>> figure = probe_curves({1: {f"probe-plasticity/{name}": array for name, array in found.items()}})
      >>> figure.axes[0].lines[0].get_xydata().tolist()
      [[0.0, 1.0], [100.0, 0.3]]
    """
    curves, steps = stored(arrays, "probe-plasticity/curves"), stored(arrays, "probe-plasticity/steps")
    chosen = some([task for task in curves if np.isfinite(curves[task]).any()], _MOST_CURVES)
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, (task, color) in enumerate(zip(chosen, shades(len(chosen)), strict=True)):
        dashes = line_style(place)["linestyle"]
        updates, rows = over_rows("nanmax", steps[task]), curves[task].reshape(-1, curves[task].shape[-1])
        low, high = over_rows("nanpercentile", rows, 10), over_rows("nanpercentile", rows, 90)
        axes.plot(updates, over_rows("nanmean", rows), color=color, linestyle=dashes, label=f"task {task}")
        axes.fill_between(updates, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(yscale="log", xlabel="updates on the new targets", ylabel="mean squared error")
    task_lines(axes, chosen)
    return framed(
        figure, title, "copies made at the end of tasks; mean over seeds and targets, band: 10th to 90th percentile"
    )


@for_column
def dormant_by_layer(metrics: pd.DataFrame, title: str = "") -> Figure:
    """Draws the fraction of dormant units against the task, one line a layer.

    Use it to see in which layers units die. Lines are means over seeds; bands are from minimum to maximum.

    Args:
      metrics: of one method, in long form see `RunFolder.metrics`.
      title: above the axes.

    Raises:
      UserError: if the table has no such fractions.

    Example:
      >>> rows = [(seed, task, "dormant_fraction/dense_0", 0.5) for seed in range(2) for task in (1, 2, 3)]
      >>> figure = dormant_by_layer(pd.DataFrame(rows, columns=["seed", "task", "metric", "value"]))
      >>> figure.axes[0].lines[0].get_xydata().tolist()
      [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]
    """
    prefix = "dormant_fraction/"
    chosen = metrics[metrics["metric"].str.startswith(prefix) & metrics["value"].notna()]
    if chosen.empty:
        raise missing(f"no {prefix}LAYER with a number in the metrics", "dormant")
    layers = sorted({str(metric).removeprefix(prefix) for metric in chosen["metric"]}, key=naturally)
    figure = Figure(figsize=(WIDTH, max(4.4, 0.28 * len(layers) + 1.2)), layout="constrained")
    axes = figure.subplots()
    for i, (layer, color) in enumerate(zip(layers, shades(len(layers)), strict=True)):
        own = chosen[chosen["metric"] == prefix + layer]
        table = own.pivot(index="seed", columns="task", values="value")
        tasks, values = table.columns.to_numpy(), table.to_numpy()
        mean, low, high = (over_rows(name, values) for name in ("nanmean", "nanmin", "nanmax"))
        style = line_style(i) | {"color": color}  # layers are ordered, so colours are too
        axes.plot(tasks, mean, **style, label=literal(layer))
        axes.fill_between(tasks, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="task", ylabel="fraction of dormant units", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=list(axes.lines), frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return framed(figure, title, "at the end of tasks; mean over seeds, band: minimum to maximum")


PICTURES: Mapping[str, Callable[[Arrays, pd.DataFrame, str], Figure]] = {
    "spectra": lambda arrays, _, title: spectra_over_time(arrays, "weight-spectra", title),
    "jacobian": lambda arrays, _, title: spectra_over_time(arrays, "jacobian", title),
    "ntk": lambda arrays, _, title: ntk_eigenvalues(arrays, title),
    "hessian": lambda arrays, _, title: hessian_density(arrays, title),
    "gradient-cosine": lambda arrays, _, title: gradient_cosine(arrays, title),
    "probes": lambda arrays, _, title: probe_curves(arrays, title),
    "dormant": lambda _, metrics, title: dormant_by_layer(metrics, title),
}
"""Each picture by name, drawn from the arrays and the metrics of one method."""


def draw_picture(folder: RunFolder, picture: str, label: str) -> Figure:
    """Draws one of `PICTURES` of a run's method.

    Args:
      folder: of the run.
      picture: its name.
      label: the method's name in the metrics: with the point of a grid, if there is one.

    Raises:
      UserError: if the run has not stored the arrays or metrics.
    """
    own = folder.metrics[folder.metrics["method"] == label]
    return PICTURES[picture](arrays_of(folder, label), own, f"{label}: {folder.title}")


def arrays_of(folder: RunFolder, label: str) -> Arrays:
    """The arrays of one method, with its seeds alone.

    Args:
      folder: of the run.
      label: the method's name in the metrics: with the point of a grid, if there is one.
    """
    name = label.partition("[")[0]
    num_seeds = folder.num_seeds(name)
    first = num_seeds * folder.labels(name).index(label)
    return {
        task: {key: array[first : first + num_seeds] for key, array in of_task.items()}
        for task, of_task in folder.arrays(name).items()
    }
