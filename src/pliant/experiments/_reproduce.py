"""Reproduces an experiment: runs what is missing, draws its figure, evaluates its claims."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from pliant import problems
from pliant.experiments._claims import Verdict, judge
from pliant.experiments._experiment import Experiment
from pliant.experiments._tables import RUNS, Results, find_results, folder_of, write_table
from pliant.experiments.benchmarks import Scale, with_choices
from pliant.results import save_figure
from pliant.training import Progress, train


class Reproduction(NamedTuple):
    """What an experiment gave."""

    results: Mapping[str, Results]
    """By the label of the run."""
    verdicts: Mapping[str, Verdict]
    """By the name of the claim."""
    figure: Path
    """A PNG; a PDF lies beside it."""


@contextmanager
def _silent(label: str) -> Iterator[Callable[[Progress], None]]:  # noqa: ARG001
    yield lambda progress: None  # noqa: ARG005


def reproduce(
    experiment: Experiment,
    scale: Scale = "cpu",
    *,
    runs: Path = RUNS,
    data_dir: str | None = None,
    tables: Path | None = None,
    reporting: Callable[[str], AbstractContextManager[Callable[[Progress], None]]] = _silent,
) -> Reproduction:
    """Runs an experiment, as far as that has not been done, draws its figure and evaluates its claims.

    Use it to redo a figure of a paper. Runs that several experiments share are made once; those that were interrupted
    are continued.

    Args:
      experiment: what to reproduce.
      scale: "smoke" shows in minutes that everything runs; "cpu" shows the effect; "paper" has the published size.
      runs: the folder of run folders.
      data_dir: see `pliant.streams.load_dataset`; for those runs that read their data from a folder.
      tables: where a small table of each run is written, if anywhere, see `write_table`.
      reporting: called with the label of each run; a context manager that yields what is called with the progress.

    Raises:
      UserError: if data are missing, or a folder holds a run with another configuration.
    """
    for label, benchmark in experiment.benchmarks.items():
        folder = folder_of(benchmark.name, scale, runs)
        config = with_choices(benchmark, scale, {})
        plan = problems.make_plan(config, problems.folder_for(config, data_dir))
        with reporting(label) as report:
            train(plan, folder, report)
    results = stored_results(experiment, scale, runs)
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
        for label, benchmark in experiment.benchmarks.items():
            write_table(results[label], tables / f"{folder_of(benchmark.name, scale).name}.parquet")
    verdicts = {claim.name: judge(claim, results) for claim in experiment.claims}
    figures = runs / "figures"
    figures.mkdir(exist_ok=True)
    figure, _ = save_figure(experiment.figure(results), figures / folder_of(experiment.name, scale).name)
    return Reproduction(results, verdicts, figure)


def stored_results(experiment: Experiment, scale: Scale = "cpu", runs: Path = RUNS) -> dict[str, Results]:
    """The results of an experiment that are there, by the label of the run: own ones, else those of the package.

    Args:
      experiment: whose.
      scale: at which scale.
      runs: the folder of run folders.
    """
    found = {label: find_results(benchmark, scale, runs) for label, benchmark in experiment.benchmarks.items()}
    return {label: each for label, each in found.items() if each is not None}
