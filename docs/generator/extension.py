"""Extension of griffe, which reads the source code for mkdocstrings: docstrings become Markdown with links."""

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parents[1]))

from generator import pages
from generator.docstrings import to_markdown


class PlainDocstrings(griffe.Extension):
    """Converts every docstring of the package once it has been loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Converts the docstrings of a package."""
        self._convert(pkg)

    def _convert(self, found: Any) -> None:
        if found.docstring:
            text = found.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            folder = ".".join(found.canonical_path.split(".")[:2])
            found.docstring.value = to_markdown(text, lambda name: self._address(name, folder, found))
        for name, member in list(found.members.items()):
            if member.is_alias:
                continue
            if member.docstring and member.docstring.value.startswith("Refused:"):  # an old name
                found.del_member(name)
            else:
                self._convert(member)

    def _address(self, name: str, folder: str, found: Any) -> str | None:
        full = pages.address(name, folder)
        return None if full is None or full.rpartition(".")[2] == found.name else full
