"""`pliant show`: the table of a run, or an explanation of a name."""

import dataclasses
import difflib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tyro.conf import Positional

from pliant import tuning
from pliant.cli._explain import KINDS, explain_experiment
from pliant.cli._guide import WHEN
from pliant.cli._plot import require_finished
from pliant.cli._tables import Format, print_frame, print_run, print_scores, print_tuning
from pliant.cli._terminal import print_error, print_line
from pliant.errors import UserError, unknown_name
from pliant.experiments import (
    BENCHMARKS,
    EXPERIMENTS,
    RUNS,
    Experiment,
    Over,
    Results,
    Scale,
    Score,
    from_folder,
    stored_results,
)
from pliant.results import RunFolder
from pliant.tuning import TuningFolder


@dataclasses.dataclass(frozen=True)
class Show:
    """The options of `pliant show`."""

    what: Positional[str]
    """Run folder, or any name that `pliant list` prints."""
    format: Format = "table"
    """Format of the table of a run, a tuning or an experiment. All but "table" include the interquartile mean of a run
    with its 95 % interval; csv has all digits."""
    metric: tuple[str, ...] = ()
    """Metrics of a run or an experiment that its table shows, such as dormant_fraction; by default the headline, and of
    an experiment what its figure shows."""
    over: Over = "last"
    """Tasks that the metrics are averaged over: "last", "early", "first" or "mean" for all of them; "fall" is early
    minus last, "rise" last minus early."""
    table: str | None = None
    """Another table of an experiment, such as the correlations of lyle/falsification: one of those that `pliant show`
    prints below the scores."""
    baseline: str | None = None
    """Method of the run with which its others are compared: differences of paired seeds and the probability of being
    better, each with its 95 % interval."""
    profile: bool = False
    """Adds the performance profile: the share of scores in the last five tasks above round numbers, with its 95 %
    interval. In csv it stands alone."""

    scale: Scale = "cpu"
    """Of an experiment's results: smoke, cpu or paper."""
    runs: Path = RUNS
    """Folder with an experiment's runs. Where a run is missing, the results that come with pliant are read."""

    def __call__(self) -> None:
        """Prints the table or the explanation."""
        found = [(kind, explain) for kind, (has, explain) in KINDS.items() if has(self.what)]
        if found:
            self._show_name(found)
        elif not os.path.exists(os.path.expanduser(self.what)):
            near = difflib.get_close_matches(
                self.what, [*BENCHMARKS, *(name for kind in WHEN.values() for name in kind)]
            )
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise UserError(
                got=f"{self.what!r}, which is neither a folder nor a name",
                wanted="a run folder, or a name that `pliant list` prints",
                do=hint + "See `pliant list methods` and its like.",
            )
        elif tuning.is_tuned(self.what):
            self._show_tuning()
        else:
            self._show_run(RunFolder(self.what))

    @property
    def _of_run(self) -> list[str]:
        """The options given that only run folders have."""
        return [f"--baseline {self.baseline}"] * (self.baseline is not None) + ["--profile"] * self.profile

    @property
    def _of_scores(self) -> list[str]:
        """The options given that choose what a table shows."""
        metric = [f"--metric {' '.join(self.metric)}"] * bool(self.metric)
        return metric + [f"--over {self.over}"] * (self.over != "last")

    @property
    def _named(self) -> list[str]:
        """The option that names a table, if given."""
        return [f"--table {self.table}"] * (self.table is not None)

    @property
    def _of_table(self) -> list[str]:
        """The options given that ask for a table alone."""
        return [f"--format {self.format}"] * (self.format != "table") + self._of_scores + self._named

    @property
    def _of_experiment(self) -> list[str]:
        """The options given that only experiments have."""
        runs = [f"--runs {self.runs}"] * (self.runs != RUNS)
        return [f"--scale {self.scale}"] * (self.scale != "cpu") + runs + self._named

    def _refuse(self, given: Sequence[str], what: str, wanted: str) -> None:
        """Refuses the first of options that do not go with what is shown."""
        for option in given:
            raise UserError(got=f"{option} for {what}", wanted=wanted, do=f"Leave {option.split()[0]} out.")

    def _scores(self, usual: Sequence[Score]) -> list[Score]:
        metrics = self.metric or [score.metric for score in usual]
        return [usual[0]._replace(metric=metric, over=self.over) for metric in metrics]

    def _show_table(self, name: str, experiment: Experiment, results: Mapping[str, Results]) -> None:
        self._refuse(self._of_scores, f"the table {name!r}", "one of them")
        if not experiment.tables:
            having = [each.name for each in EXPERIMENTS.values() if each.tables]
            self._refuse(self._named, self.what, f"an experiment with further tables: {' or '.join(having)}")
        if name not in experiment.tables:
            raise unknown_name(f"table of {self.what}", name, experiment.tables, do="Choose one of these.")
        for label, own in results.items():
            if own.lacks:
                print_error(f"without {label}: {own.lacks}")
        print_frame(name, experiment.table(name, results), self.format)

    def _show_name(self, found: Sequence[tuple[str, Callable[[str], None]]]) -> None:
        what = f"the {found[0][0]} {self.what!r}"
        self._refuse(self._of_run, what, "a run folder")
        if self.what in EXPERIMENTS:
            experiment = EXPERIMENTS[self.what]
            if self._of_table:
                results = stored_results(experiment, self.scale, self.runs)
                if self.table is None:
                    print_scores(results, self._scores(experiment.scores), self.what, self.format)
                else:
                    self._show_table(self.table, experiment, results)
                return
        else:
            self._refuse(self._of_table, what, "a run folder or an experiment, which have a table")
            self._refuse(self._of_experiment, what, "an experiment")
        for place, (kind, explain) in enumerate(found):  # a method and a diagnostic may share a name
            print_line(("\n" if place else "") + f"{kind} {self.what}")
            if kind == "experiment":
                explain_experiment(self.what, self.scale, self.runs)
            else:
                explain(self.what)

    def _show_tuning(self) -> None:
        self._refuse(self._of_experiment, "a tuning", "an experiment")
        selected = shlex.quote(os.path.join(self.what, "selected"))
        if given := " ".join(self._of_run or self._of_scores):
            raise UserError(
                got=f"{given} for a tuning",
                wanted="a run folder",
                do=f"Look at what was selected: `pliant show {selected} {given}`.",
            )
        print_tuning(TuningFolder(self.what), self.format)

    def _show_run(self, folder: RunFolder) -> None:
        self._refuse(self._of_experiment, "a run folder", "an experiment")
        if not self._of_scores:
            print_run(folder, self.format, self.baseline, profile=self.profile)
            return
        self._refuse(self._of_run, f"other metrics ({self._of_scores[0]})", "one of them")
        require_finished(folder)
        of_run = from_folder(folder, int(folder.select(folder.headline)["task"].max()))
        print_scores({folder.title: of_run}, self._scores([Score("")]), folder.title, self.format)
