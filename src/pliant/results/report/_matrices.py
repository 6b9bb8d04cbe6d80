"""Cards of what is no spectrum: gradient cosines, and how copies of the network learn new targets."""

import numpy as np

from pliant.results._picture_parts import Arrays, fullest_seed, over_rows, some, stored
from pliant.results.report._cards import Card, plotly_figure, task_line
from pliant.results.report._numbers import short
from pliant.sampling import evenly

_MOST_PANELS = 3
_MOST_EXAMPLES = 160
_MOST_CURVES = 6
_RED_BLUE = [[0.0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f7f7f7"], [0.75, "#f4a582"], [1.0, "#b2182b"]]


def gradient_cosines(arrays: Arrays, method: str) -> list[Card]:
    """Cosines between gradients of examples, a card for the first, a middle and the last measured task.

    Numbers are hundredths, which are small to store.
    """
    matrices = stored(arrays, "gradient-cosine/matrix")
    seed, tasks = fullest_seed(matrices)
    cards = []
    for task in some(tasks, _MOST_PANELS):
        whole = matrices[task][seed]
        places = evenly(len(whole), _MOST_EXAMPLES)
        matrix = np.nan_to_num(100 * whole[np.ix_(places, places)]).round().astype(np.int8)
        apart = whole[~np.eye(len(whole), dtype=bool)]
        heat = {
            "type": "heatmap",
            "z": matrix,
            "x": places.tolist(),
            "y": places.tolist(),
            "zmin": -100,
            "zmax": 100,
            "colorscale": _RED_BLUE,
            "colorbar": {
                "title": {"text": "cosine", "side": "right", "font": {"size": 12}},
                "thickness": 12,
                "tickvals": [-100, 0, 100],
                "ticktext": ["−1", "0", "1"],
            },
            "hovertemplate": "examples %{x} and %{y}<br>cosine %{z} / 100<extra></extra>",
        }
        alt = (
            f"Matrix of the cosines between gradients of {len(whole)} examples, {method}, after task {task}, "
            f"seed {seed}: mean {np.nanmean(apart):.3f}, {np.mean(apart < 0):.0%} negative."
        )
        y = {"autorange": "reversed", "title": {"text": "example"}, "scaleanchor": "x", "constrain": "domain"}
        x = {"title": {"text": "example"}, "constrain": "domain"}
        cards.append(
            Card(method, f"{method}, task {task}", alt, plotly_figure([heat], xaxis=x, yaxis=y), has_table=False)
        )
    return cards


def probe_curves(arrays: Arrays, method: str) -> list[Card]:
    """How copies of the network, made after tasks, learn new targets: mean over seeds and targets."""
    curves, steps = stored(arrays, "probe-plasticity/curves"), stored(arrays, "probe-plasticity/steps")
    chosen = some([task for task in curves if np.isfinite(curves[task]).any()], _MOST_CURVES)
    lines, ends = [], []
    for place, task in enumerate(chosen):
        mean = over_rows("nanmean", curves[task].reshape(-1, curves[task].shape[-1]))
        updates = over_rows("nanmax", steps[task])
        lines.append(task_line(updates, np.where(mean > 0, mean, np.nan), task, place, len(chosen)))
        ends.append(f"{short(mean[-1:])[0]} after task {task}")
    alt = f"Mean squared error on new targets against updates, {method}. Last: {', '.join(ends)}."
    figure = plotly_figure(
        lines, xaxis={"title": {"text": "updates"}}, yaxis={"title": {"text": "mean squared error"}, "type": "log"}
    )
    return [Card(method, method, alt, figure)]
