"""A table in the formats of other programs, and for the terminal."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from rich.markup import escape
from rich.table import Table

TextFormat: TypeAlias = Literal["markdown", "latex"]
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: rf"\{letter}" for letter in "_$%&#{}"} | {"–": "--"} | {letter: f"${letter}$" for letter in "<>|"}
_SYMBOLS = {"±": "pm", "≤": "leq", "≥": "geq", "≈": "approx", "×": "times", "·": "cdot", "→": "to", "∞": "infty"}
_SYMBOLS |= {"α": "alpha", "β": "beta", "γ": "gamma", "ϵ": "epsilon", "ε": "varepsilon", "λ": "lambda", "ρ": "rho"}
_SYMBOLS |= {"σ": "sigma", "τ": "tau", "κ": "kappa", "μ": "mu", "η": "eta", "Σ": "Sigma", "Δ": "Delta"}
_LATEX |= {letter: rf"$\{name}$" for letter, name in _SYMBOLS.items()} | {"−": "$-$"}


def text_table(title: str, cells: Sequence[Sequence[str]], format: TextFormat, columns: str = "") -> str:
    r"""Writes a table as Markdown or LaTeX, with every special letter escaped.

    Args:
      title: above the table; in LaTeX a comment.
      cells: the header, then the rows. The first column is aligned left, the others right.
      format: "markdown" or "latex".
      columns: LaTeX's specification of the columns, such as lrp{5cm}, where that is not lrr...

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
    columns = columns or f"l{'r' * (len(cells[0]) - 1)}"
    begin = [f"% {title}", rf"\begin{{tabular}}{{{columns}}}", r"\hline", first, r"\hline"]
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
