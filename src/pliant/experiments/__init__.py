"""Published experiments: their runs at three scales, what the sources claim, and their figures."""

from pliant.experiments._claims import Claim, Difference, Outcome, Verdict, judge
from pliant.experiments._experiment import Experiment
from pliant.experiments._quantities import Association, NotMeasuredError, Quantity, Score
from pliant.experiments._tables import RUNS, Results, find_results, folder_of, from_folder, read_table, write_table
from pliant.experiments.benchmarks import BENCHMARKS, SCALES, Benchmark, Scale, with_choices

__all__ = [
    "BENCHMARKS",
    "RUNS",
    "SCALES",
    "Association",
    "Benchmark",
    "Claim",
    "Difference",
    "Experiment",
    "NotMeasuredError",
    "Outcome",
    "Quantity",
    "Results",
    "Scale",
    "Score",
    "Verdict",
    "find_results",
    "folder_of",
    "from_folder",
    "judge",
    "read_table",
    "with_choices",
    "write_table",
]
