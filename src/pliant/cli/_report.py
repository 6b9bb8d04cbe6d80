"""`pliant report`: one page about one or several runs."""

import dataclasses
import os
from pathlib import Path

import pandas as pd
from tyro.conf import Positional

from pliant.cli._claims import chosen_experiments
from pliant.cli._plot import finished
from pliant.cli._terminal import print_line
from pliant.errors import UserError
from pliant.experiments import shown_effect, verdict_table
from pliant.results import RunFolder
from pliant.results.report import report_html


@dataclasses.dataclass(frozen=True)
class Report:
    """The options of `pliant report`."""

    dirs: Positional[tuple[Path, ...]]
    """Run folders; each has a section of the page. A run may be unfinished."""
    claims: str | None = None
    """Adds the verdicts of an experiment, or of all whose names begin so, such as isometry/; see `pliant claims`."""
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
        claims = None if self.claims is None else _shown(verdict_table(chosen_experiments(self.claims)))
        page = report_html(folders, claims=claims)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
        print_line(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """A table of verdicts as readers want it."""
    effects = [shown_effect(row) for row in found.to_dict("records")]
    columns = {"claim": found["claim"], "paper": found["experiment"], "sentence": found["sentence"]}
    columns |= {"verdict": found["verdict"], "effect": pd.Series(effects, found.index), "reason": found["reason"]}
    return pd.DataFrame(columns)
