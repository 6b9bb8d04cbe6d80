"""`pliant report`: one page about one or several runs."""

import dataclasses
import os
from pathlib import Path

import pandas as pd
from tyro.conf import Positional

from pliant import tuning
from pliant.cli._claims import chosen_experiments
from pliant.cli._plot import require_finished
from pliant.cli._terminal import print_line
from pliant.errors import UserError
from pliant.experiments import RUNS, Scale, shown_effect, verdict_table
from pliant.results import RunFolder
from pliant.results.report import report_html


@dataclasses.dataclass(frozen=True)
class Report:
    """The options of `pliant report`."""

    dirs: Positional[tuple[Path, ...]] = ()
    """Run folders; each has a section of the page. A run may be unfinished."""
    tuned: Path | None = None
    """Adds the table of a tuning: the folder that `pliant tune` printed. Without run folders, the run of what was
    selected has a section."""
    claims: str | None = None
    """Adds the verdicts of an experiment, of those whose names begin so, such as isometry/, or of all; see
    `pliant claims`."""
    scale: Scale = "cpu"
    """Of the results that claims are judged on: smoke, cpu or paper."""
    runs: Path = RUNS
    """Folder with the runs of these. Where a run is missing, the results that come with pliant are read."""
    out: Path = Path("report.html")
    """The file to write."""

    def __call__(self) -> None:
        """Writes the page and prints its path and size."""
        tuned = None if self.tuned is None else tuning.TuningFolder(self.tuned)
        dirs = self.dirs or ((tuned.path / "selected",) if tuned else ())
        if not dirs:
            raise UserError(got="no run folder", wanted="at least one", do="Give what `pliant run` printed.")
        if tuned and not self.dirs and not (dirs[0] / "config.json").exists():
            raise UserError(
                got=f"--tuned {self.tuned}, in which nothing has been selected yet",
                wanted="a finished tuning, or run folders beside it",
                do="Continue it with the same `pliant tune`, or look at what it has so far with `pliant show`.",
            )
        for path in dirs:
            if tuning.is_tuned(path):
                got = f"{path}, the folder of a tuning"
                raise UserError(got=got, wanted="run folders", do=f"Give it as --tuned {path}.")
        folders = [RunFolder(path) for path in dirs]
        for folder in folders:
            require_finished(folder)
        out = Path(os.path.expanduser(self.out))
        if out.is_dir():
            raise UserError(
                got=f"--out {self.out}, a folder", wanted="a file", do=f"Give --out {self.out}/report.html."
            )
        claims = None if self.claims is None else self._verdicts(self.claims)
        table = None if tuned is None else _tuned(tuning.tuning_table(tuned))
        page = report_html(folders, tuned=table, claims=claims)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
        print_line(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")

    def _verdicts(self, name: str) -> pd.DataFrame:
        """A table of verdicts as readers want it."""
        found = verdict_table(chosen_experiments(name), self.scale, self.runs)
        effects = [shown_effect(row) for row in found.to_dict("records")]
        at = f"at {self.scale}"  # the scale
        named = found["experiment"] + ": " + found["claim"]
        found = found.assign(claim=named, effect=effects, seeds=found["num_seeds"]).rename(columns={"verdict": at})
        return found[["claim", at, "effect", "seeds", "sentence", "reason"]]


def _tuned(found: pd.DataFrame) -> pd.DataFrame:
    """A tuning's table as readers want it."""
    names = [f"{name}{end}" for name in ("rank", "tuned", "default", "gain") for end in ("", "_low", "_high")]
    columns = ["method", *names, "default_rank", "worst_trial", "median_trial", "best_trial"]
    *_, selected = zip(*tuning.tuning_cells(found)[1:], strict=True)
    return found[columns].assign(selected=selected, num_seeds=found["num_seeds"])
