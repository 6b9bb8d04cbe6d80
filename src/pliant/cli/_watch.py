"""`pliant watch`: the page of a run while it goes on."""

import dataclasses
from pathlib import Path

from tyro.conf import Positional

from pliant.cli._terminal import print_line
from pliant.results.report import watch_server


@dataclasses.dataclass(frozen=True)
class Watch:
    """The options of `pliant watch`."""

    dir: Positional[Path]
    """Run folder, which `pliant run` may be writing."""
    port: int = 8765
    """Port on 127.0.0.1, where nobody but this machine's users reach it; 0 takes any free one."""

    def __call__(self) -> None:
        """Serves the page until Ctrl-C."""
        with watch_server(self.dir.expanduser(), self.port) as server:
            print_line(f"watching {self.dir}: open {server.url} in a browser on this machine. Ctrl-C ends it.")
            server.serve_forever()
