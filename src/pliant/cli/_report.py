"""`pliant report`: one page about one or several runs."""

import dataclasses
import os
from pathlib import Path

from tyro.conf import Positional

from pliant.cli._plot import finished
from pliant.cli._terminal import print_line
from pliant.errors import UserError
from pliant.results import RunFolder
from pliant.results.report import report_html


@dataclasses.dataclass(frozen=True)
class Report:
    """The options of `pliant report`."""

    dirs: Positional[tuple[Path, ...]]
    """Run folders; each has a section of the page. A run may be unfinished."""
    out: Path = Path("report.html")
    """The file to write."""

    def __call__(self) -> None:
        """Writes the page and prints its path and size."""
        if not self.dirs:
            raise UserError(got="no run folder", wanted="at least one", do="Give what `pliant run` printed.")
        folders = [RunFolder(path) for path in self.dirs]
        for folder in folders:
            finished(folder)
        out = Path(os.path.expanduser(self.out))
        if out.is_dir():
            raise UserError(
                got=f"--out {self.out}, a folder", wanted="a file", do=f"Give --out {self.out}/report.html."
            )
        page = report_html(folders)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
        print_line(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")
