"""`pliant reproduce`: runs an experiment of a paper, draws its figure and evaluates its claims."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tyro.conf import Positional

from pliant.cli._claims import claims_table
from pliant.cli._run import report_progress
from pliant.cli._terminal import print_line, print_table
from pliant.errors import unknown_name
from pliant.experiments import EXPERIMENTS, RUNS, Scale, reproduce, tabulated
from pliant.training import Progress


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """The options of `pliant reproduce`."""

    name: Positional[str]
    """Experiment; see `pliant list experiments`."""
    scale: Scale = "cpu"
    """smoke (minutes; shows that everything runs), cpu (shows the effect), or paper (the published size)."""
    runs: Path = RUNS
    """Folder of the run folders. Runs that several experiments share are made once; interrupted ones are continued."""
    data_dir: str | None = None
    """Folder with parquet files of the data sets; by default PLIANT_DATA, or else the Hugging Face hub."""
    tables: Path | None = None
    """Folder in which a small table of each run is written, to be shared."""

    def __call__(self) -> None:
        """Runs what is missing, then prints the verdicts and where the figure is."""
        if self.name not in EXPERIMENTS:
            raise unknown_name("experiment", self.name, EXPERIMENTS, do="See `pliant list experiments`.")
        experiment = EXPERIMENTS[self.name]

        def reporting(label: str) -> AbstractContextManager[Callable[[Progress], None]]:
            print_line(f"{experiment.name}: {experiment.runs[label]} at the scale {self.scale}")
            return report_progress(experiment.benchmarks[label].configs[self.scale].tasks)

        made = reproduce(
            experiment, self.scale, runs=self.runs, data_dir=self.data_dir, tables=self.tables, reporting=reporting
        )
        print_table(claims_table(tabulated([experiment], {experiment.name: made.verdicts})))
        print_line(f"figure: {made.figure} (and .pdf)")
