"""A table in the formats of other programs, and for the terminal."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from rich.markup import escape
from rich.table import Table

TextFormat: TypeAlias = Literal["markdown", "latex"]
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: rf"\{letter}" for letter in "_$%&#{}"} | {"±": r"$\pm$", "≤": r"$\leq$", "–": "--", "−": "$-$"}


def text_table(title: str, cells: Sequence[Sequence[str]], format: TextFormat) -> str:
    r"""Writes a table as Markdown or LaTeX, with every special letter escaped.

    Args:
      title: above the table; in LaTeX a comment.
      cells: the header, then the rows. The first column is aligned left, the others right.
      format: "markdown" or "latex".

    Returns:
      The text, ending in a newline.

    Example:
      >>> print(text_table("a % of b & c", [["method", "score"], ["a_b", "1"]], "latex"))
      % a % of b & c
      \begin{tabular}{lr}
      \hline
      method & score \\
      \hline
      a\_b & 1 \\
      \hline
      \end{tabular}
    """
    if format == "markdown":
        rule = ["---", *["---:"] * (len(cells[0]) - 1)]
        lines = ["| " + " | ".join(map(_for_markdown, row)) + " |" for row in cells]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        return "\n".join([_for_markdown(title), "", *lines, ""])
    first, *rest = (" & ".join(map(_for_latex, row)) + r" \\" for row in cells)
    begin = [f"% {title}", rf"\begin{{tabular}}{{l{'r' * (len(cells[0]) - 1)}}}", r"\hline", first, r"\hline"]
    return "\n".join([*begin, *rest, r"\hline", r"\end{tabular}", ""])


def terminal_table(title: str, cells: Sequence[Sequence[str]]) -> Table:
    """Renders a table for the terminal; arguments as of `text_table`."""
    table = Table(title=escape(title), title_justify="left")
    for place, name in enumerate(cells[0]):
        table.add_column(escape(name), justify="right" if place else "left")
    for row in cells[1:]:
        table.add_row(*map(escape, row))
    return table


def _for_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", text)


def _for_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
