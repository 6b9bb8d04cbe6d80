"""The gallery: every figure of the documents, with its description and where it is discussed."""

import posixpath
import re
from collections.abc import Mapping

_FIGURE = re.compile(r"!\[([^\]]+)\]\(([\w./-]+\.png)\)")


def gallery(documents: Mapping[str, str]) -> str:
    """The page of figures, each once, from the first document that discusses it.

    Args:
      documents: Markdown by name.
    """
    found: dict[str, str] = {}
    for document, text in documents.items():
        heading, link = "", ""
        for line in text.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
                link = f"{document}#{anchor(heading)}" if line.startswith("##") else document
            for description, file in _FIGURE.findall(line):
                file = posixpath.normpath(posixpath.join(posixpath.dirname(document), file))
                found.setdefault(file, f"## {heading}\n\n[![{description}]({file})]({link})\n\n{description}.\n")
    return "# Figures\n\nEach figure leads to its setting, command and numbers.\n\n" + "\n".join(found.values())


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
