"""Docstrings as Markdown: formulas, links and sections, from the reStructuredText in which they are written."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

SECTIONS = ("Args", "Returns", "Raises", "Example", "References", "Differs from")
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*$", re.MULTILINE)
_BLOCK_FORMULA = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1[ ]+\S.*|[ ]*(?=\n\1[ ]+\S)))*)", re.MULTILINE)
_INLINE_FORMULA = re.compile(r":math:`([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^>\s]+)>`__?")
_NAME = re.compile(r"(?<![`\[])`((?:pliant\.)?[A-Za-z_][\w.]*)`(?!`)")


def to_markdown(text: str, address: Callable[[str], str | None]) -> str:
    """Converts a docstring, or a part of one.

    Args:
      text: without the indentation of the code around it.
      address: from a name in single backticks to the full name that it links to, or None.
    """
    text = _BLOCK_FORMULA.sub(_block_formula, text)
    text = _INLINE_FORMULA.sub(lambda found: rf"\({_joined(found[1])}\)", text)
    text = _LINK.sub(lambda found: f"[{_joined(found[1])}]({found[2]})", text)
    return _NAME.sub(lambda found: _reference(found[1], address(found[1])), text)


def sections(documented: Any) -> Mapping[str, str]:
    """The parts of an object's docstring by the name of their section; what stands before them is ""."""
    before, *rest = _SECTION.split(inspect.getdoc(documented) or "")
    named = dict(zip(rest[::2], rest[1::2], strict=True))
    return {"": before.strip(), **{name: textwrap.dedent(text.strip("\n")).strip() for name, text in named.items()}}


def _block_formula(found: re.Match[str]) -> str:
    indent, formula = found[1], " ".join(found[2].split())
    return f"\n{indent}\\[\n{indent}{formula}\n{indent}\\]\n"


def _reference(name: str, full: str | None) -> str:
    return f"[`{name.rpartition('.')[2]}`][{full}]" if full else f"`{name}`"


def _joined(text: str) -> str:
    return " ".join(text.split())
