"""The look of figures: lines that colour-blind readers can tell apart, and names printed literally."""

from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, without yellow
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")  # ten on seven colours: pairs repeat after 70 lines
_DASHES = ("-", "--", "-.", ":")  # change with every line, so that neighbours differ in print as well


def line_style(place: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line, as keywords of `Axes.plot`. The first 140 lines all differ.

    Args:
      place: index of the line in its axes, from 0.

    Example:
      >>> line_style(0)
      {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'}
      >>> len({tuple(line_style(place).values()) for place in range(140)})
      140
    """
    return {
        "color": COLORS[place % len(COLORS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": _DASHES[place % len(_DASHES)],
    }


def literal(text: str) -> str:
    r"""Escapes a text so that matplotlib draws it literally, and takes nothing between dollar signs for a formula.

    Example:
      >>> print(literal("a_$b$"))
      a_\$b\$
    """
    return text.replace("$", r"\$")
