"""Printing to the terminal: names are never truncated, and missing letters are no error."""

import os
import shutil
import sys
import textwrap
from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

_WIDTH_OF_FILES = 120
_WIDEST = 100_000


def tolerate_any_letters() -> None:
    """Makes standard output and error print "?" for letters outside their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not if a program has replaced it or the shell has closed it
            stream.reconfigure(errors="replace")


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; a shell may have closed it and a notebook replaced it."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def new_console(*, stderr: bool = False) -> Console:
    """A Rich console, without bold letters and colours if NO_COLOR is set."""
    return Console(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


def print_line(text: str) -> None:
    """Prints a line and flushes it; the terminal wraps it."""
    print(text, flush=True)


def print_error(text: str) -> None:
    """Prints a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def print_paragraph(text: str) -> None:
    """Prints a text wrapped to the width of the terminal, between words only."""
    columns = shutil.get_terminal_size().columns
    width = columns if is_terminal(sys.stdout) else max(columns, _WIDTH_OF_FILES)
    print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False), flush=True)


def print_table(table: Table) -> None:
    """Prints a table, with line breaks between words only. A table that does not fit is wider than the terminal."""
    console = new_console()
    if not console.is_terminal:  # rich assumes 80 columns for a file
        console.width = max(console.width, _WIDTH_OF_FILES)
    anywhere = console.options.update(max_width=_WIDEST)

    def longest_word(text: RenderableType) -> int:
        return Measurement.get(console, anywhere, text).minimum

    for column in table.columns:
        column.min_width = max(map(longest_word, (column.header, *column.cells)))
    console.width = max(console.width, longest_word(table))
    console.print(table, crop=False)
