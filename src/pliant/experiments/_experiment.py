"""An experiment: a question, the runs that answer it, what the source claims, and the figure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from pliant.experiments._claims import Claim
from pliant.experiments._quantities import Score
from pliant.experiments._tables import Results
from pliant.experiments.benchmarks import BENCHMARKS, Benchmark


class Experiment(NamedTuple):
    """A figure or table of a paper, as data."""

    name: str
    question: str
    reference: str
    """Paper, sections and figures."""
    shows: str
    """What the source shows."""
    runs: Mapping[str, str]
    """The names of benchmarks, by what this experiment calls them."""
    claims: tuple[Claim, ...]
    figure: Callable[[Mapping[str, Results]], Figure]
    """Draws the figure in the paper's form, from the results that there are."""
    scores: tuple[Score, ...] = (Score(""),)
    """Scores in its table, for every method and run; all over the same tasks."""
    tables: Mapping[str, Callable[[Mapping[str, Results]], pd.DataFrame]] = MappingProxyType({})
    """Further tables, such as correlations, by name: see `table`."""

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """The runs, by label."""
        return {label: BENCHMARKS[name] for label, name in self.runs.items()}

    def table(self, name: str, results: Mapping[str, Results]) -> pd.DataFrame:
        """One of `tables`, from the runs that lack nothing: only these can be compared.

        Raises:
          NotMeasuredError: if there are no such runs.
        """
        return self.tables[name]({label: own for label, own in results.items() if not own.lacks})
