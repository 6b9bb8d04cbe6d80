"""Redraws the tables in the documents that stand below a command `pliant show … --format markdown`.

    python docs/redraw_tables.py

They come from the results that the package ships. Run it after these have changed.
"""

import contextlib
import io
import re
import shlex
import tempfile
from pathlib import Path

from pliant import cli

_SHOWN = re.compile(r"(```sh\npliant (show .*--format markdown)\n```\n\n)(?:\|.*\n)*\n*")


def redrawn(text: str) -> str:
    """A document with its tables as the commands print them today."""
    return _SHOWN.sub(lambda found: f"{found[1]}{_printed(found[2])}\n", text).rstrip("\n") + "\n"


def _printed(command: str) -> str:
    """What a command prints in a folder without runs, without the title."""
    shown = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(shown):
        if cli.main(shlex.split(command)):
            raise SystemExit(f"`pliant {command}` has failed")
    return shown.getvalue().partition("\n\n")[2]


if __name__ == "__main__":
    for path in Path(__file__).parent.rglob("*.md"):
        text = path.read_text()
        if redrawn(text) != text:
            path.write_text(redrawn(text))
            print(f"{path}: tables redrawn")
