"""`pliant diagnose`: diagnostics of the networks of a run."""

import dataclasses
from pathlib import Path

from tyro.conf import Positional

from pliant import problems, results
from pliant.cli._terminal import print_table
from pliant.diagnostics import choose


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """The options of `pliant diagnose`."""

    dir: Positional[Path]
    """Run folder."""
    task: int | None = None
    """Task, counted from 1, at whose end to measure; by default the last with a checkpoint. Runs with --checkpoints all
    keep a checkpoint of every task."""
    diagnostics: tuple[str, ...] = ("full",)
    """What to measure: basic, standard, full, or names; see `pliant list diagnostics`. Your own is
    path/to/file.py:name."""
    methods: tuple[str, ...] = ()
    """Methods of the run; by default all."""
    data_dir: str | None = None
    """See `pliant run --help`."""

    def __call__(self) -> None:
        """Prints a table for each method; spectra and matrices go to the run's arrays/."""
        found = problems.diagnose_run(self.dir, self.task, self.diagnostics, self.methods, self.data_dir)
        summaries = {each.name: each.summary for each in choose(self.diagnostics)}
        for each in found:
            title = f"{each.label}, end of task {each.task}, mean over seeds"
            print_table(results.diagnosis_table(title, each.numbers, summaries, each.reasons))
