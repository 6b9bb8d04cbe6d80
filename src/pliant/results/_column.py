"""Figures that can be read in a column of a paper: drawn twice as large, with letters that are large enough for it."""

import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 6.5
"""Inches: twice a column of 3.25. There texts have half of their size, at least 6 points but for very long legends."""
CAPTION = 12.0
"""Size of the smallest texts, in points."""
Arguments = ParamSpec("Arguments")
_LABELS = 14.0
_STYLE: dict[Any, float] = {
    "font.size": _LABELS,
    "axes.labelsize": _LABELS,
    "axes.titlesize": 15.0,
    "figure.titlesize": 15.0,
    "figure.labelsize": _LABELS,
    "legend.fontsize": 13.0,
    "legend.title_fontsize": CAPTION,
    "lines.linewidth": 2.2,
    "lines.markersize": 7.5,
    "axes.linewidth": 1.1,
}
_NAMES = 13.0
_SMALL_NAMES = 9.0  # of so many lines that a column cannot hold them anyway
_MANY = 20
_SAMPLE = 4.6  # of a legend's entry, beside its name, in sizes of its letters
_LETTER = 0.54
_LEADING = 1.5


def for_column(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorates a function that draws a figure: texts and lines get sizes for a column."""

    @functools.wraps(draw)
    def drawn(*arguments: Arguments.args, **options: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            figure = draw(*arguments, **options)
        for axes in figure.axes:  # ticks are made when the figure is written
            axes.tick_params(which="both", labelsize=CAPTION)
        return figure

    return drawn


def legend_below(figure: Figure, lines: Sequence[Line2D], said: str) -> None:
    """Adds a legend below the axes, headed by a line that says what is drawn; the figure becomes as much higher.

    Args:
      figure: of constrained layout.
      lines: with their labels.
      said: what lines and bands are.
    """
    size = _NAMES if len(lines) <= _MANY else _SMALL_NAMES
    longest = max(len(str(line.get_label())) for line in lines)
    entry = size / 72 * (_SAMPLE + _LETTER * longest)
    columns = min(len(lines), max(1, int(figure.get_figwidth() / entry)))
    rows = -(-len(lines) // columns)
    title = textwrap.fill(said, characters(figure))
    legend = figure.legend(
        handles=list(lines),
        loc="outside lower left",
        ncols=columns,
        title=title,
        fontsize=size,
        frameon=False,
        handlelength=2.8,
        columnspacing=1.0,
    )
    legend.set_alignment("left")
    legend.get_title().set_color("0.35")
    figure.set_figheight(figure.get_figheight() + _LEADING / 72 * (size * rows + CAPTION * (title.count("\n") + 1)))


def characters(figure: Figure) -> int:
    """How many letters of a caption fit into the width of a figure."""
    return int(figure.get_figwidth() * 11.5)
