"""Published experiments: their runs at three scales, what the sources claim, and their figures."""

from collections.abc import Mapping

from pliant.experiments import (
    _gradual,
    _isometry,
    _isometry_agents,
    _isometry_spectra,
    _lyle,
    _lyle_falsification,
    _predictors,
    _survey,
)
from pliant.experiments._claims import Claim, Difference, Outcome, Verdict, deciding, judge
from pliant.experiments._experiment import Experiment
from pliant.experiments._predictors import falsified, predictions, strongest
from pliant.experiments._quantities import Association, Gap, NotMeasuredError, Over, Prediction, Quantity, Score
from pliant.experiments._record import frame_cells, run_cells, score_cells, score_table, score_title
from pliant.experiments._reproduce import Reproduction, reproduce, stored_results
from pliant.experiments._tables import (
    RUNS,
    Results,
    choices,
    find_results,
    folder_of,
    from_folder,
    read_table,
    write_table,
)
from pliant.experiments._verdict_table import OUTCOMES, shown_effect, tabulated, verdict_table
from pliant.experiments.benchmarks import BENCHMARKS, SCALES, Benchmark, Scale, with_choices

EXPERIMENTS: Mapping[str, Experiment] = {
    each.name: each
    for part in (
        _isometry,
        _isometry_spectra,
        _isometry_agents,
        _gradual,
        _lyle,
        _lyle_falsification,
        _survey,
        _predictors,
    )
    for each in part.EXPERIMENTS
}

__all__ = [
    "BENCHMARKS",
    "EXPERIMENTS",
    "OUTCOMES",
    "RUNS",
    "SCALES",
    "Association",
    "Benchmark",
    "Claim",
    "Difference",
    "Experiment",
    "Gap",
    "NotMeasuredError",
    "Outcome",
    "Over",
    "Prediction",
    "Quantity",
    "Reproduction",
    "Results",
    "Scale",
    "Score",
    "Verdict",
    "choices",
    "deciding",
    "falsified",
    "find_results",
    "folder_of",
    "frame_cells",
    "from_folder",
    "judge",
    "predictions",
    "read_table",
    "reproduce",
    "run_cells",
    "score_cells",
    "score_table",
    "score_title",
    "shown_effect",
    "stored_results",
    "strongest",
    "tabulated",
    "verdict_table",
    "with_choices",
    "write_table",
]
