"""How the lines of methods look on the page: the colours, dashes and markers of figures, in plotly's words."""

from typing import NamedTuple

from pliant.results._look import COLORS, line_style

_DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
_STROKES = {"-": "none", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    "*": "star",
    ">": "triangle-right",
}
_SHAPES = {
    "o": "M16 8a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M16.5 4.5h7v7h-7z",
    "^": "M20 3.5l4.5 8h-9z",
    "D": "M20 3l5 5l-5 5l-5 -5z",
    "v": "M20 12.5l4.5 -8h-9z",
    "P": "M18.3 3.5h3.4v2.8h2.8v3.4h-2.8v2.8h-3.4v-2.8h-2.8v-3.4h2.8z",
    "X": "M17 3l3 3l3 -3l2 2l-3 3l3 3l-2 2l-3 -3l-3 3l-2 -2l3 -3l-3 -3z",
    "<": "M15.5 8l8 -4.5v9z",
    "*": "M20 2.5l1.6 3.6l3.9 .4l-2.9 2.6l.8 3.9l-3.4 -2l-3.4 2l.8 -3.9l-2.9 -2.6l3.9 -.4z",
    ">": "M24.5 8l-8 -4.5v9z",
}


class Look(NamedTuple):
    """The look of a method's line."""

    color: int
    """Index of the page's colour `--line-N`: black is white on a dark page."""
    dash: str
    """Plotly's name of the dashes."""
    symbol: str
    """Plotly's name of the marker."""
    strokes: str
    """The same dashes for SVG's `stroke-dasharray`."""
    shape: str
    """The marker as an SVG path, in a sample of 40 by 16."""


def look(place: int) -> Look:
    """The look of the line at a place, as `line_style` has it.

    Example:
      >>> look(1)[:3]
      (1, 'dash', 'square')
    """
    style = line_style(place)
    dash, marker = style["linestyle"], style["marker"]
    return Look(COLORS.index(style["color"]), _DASHES[dash], _SYMBOLS[marker], _STROKES[dash], _SHAPES[marker])
