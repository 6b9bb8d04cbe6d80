"""Cards with a plotly figure: how it is made, and which colours its lines have for tasks."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from pliant.errors import extra
from pliant.results.report._numbers import short


class Card(NamedTuple):
    """A figure of one method."""

    method: str
    name: str
    """Above the figure."""
    alt: str
    """The figure in words."""
    figure: dict[str, Any]
    """As plotly draws it."""
    has_table: bool = True
    """Whether its numbers can be read as a table."""


class Album(NamedTuple):
    """All cards of one kind, which share their axes."""

    name: str
    caption: str
    cards: list[Card]


def plotly_figure(traces: Sequence[dict[str, Any]], **layout: Any) -> dict[str, Any]:
    """A figure as JSON data, checked by plotly. Colours of axes and texts are the page's."""
    with extra("report", "reports"):
        import plotly.graph_objects as go

    figure = go.Figure(list(traces), {"template": go.layout.Template(), "showlegend": len(traces) > 1, **layout})
    found = json.loads(str(figure.to_json()))
    found["layout"].pop("template", None)
    return found


def task_line(x: np.ndarray, y: np.ndarray, task: int, place: int, count: int) -> dict[str, Any]:
    """The line of a task: from dark to light on a light page, and the other way round on a dark one."""
    light, dark = (matplotlib.colormaps["viridis"](np.linspace(*ends, count))[place] for ends in ((0, 0.82), (1, 0.35)))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"task {task}",
        "x": short(x),
        "y": short(y),
        "line": {"color": matplotlib.colors.to_hex(light), "width": 1.8, "dash": _DASHES[place % len(_DASHES)]},
        "meta": {"dark": matplotlib.colors.to_hex(dark)},
        "hovertemplate": f"task {task}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
    }


_DASHES = ("solid", "dash", "dashdot", "dot")
