"""Results are data: run folders, statistics, tables and figures."""

from pliant.results._comparison import (
    Estimate,
    compare,
    end_scores,
    lower_is_better,
    mean_estimate,
    paired_difference,
    probability_of_improvement,
)
from pliant.results._comparison_table import comparison_cells
from pliant.results._environment import environment
from pliant.results._figures import headline_figure, save_figure
from pliant.results._files import append_line, read_json, write_json
from pliant.results._fingerprints import fingerprint, hash_of_arrays
from pliant.results._learning_curves import learning_curves
from pliant.results._method_folder import MethodFolder, SeedBlock
from pliant.results._metric_parts import AT_START, COLUMNS
from pliant.results._panels import Panel, Series, matrix_figure, point_panels, score_panels, task_panels
from pliant.results._phases import curve_points
from pliant.results._pictures import PICTURES, dormant_by_layer, draw_picture, gradient_cosine, probe_curves
from pliant.results._predictor_figure import predictor_figure
from pliant.results._predictors import (
    ACROSS,
    LOSS_REDUCED,
    POOLED,
    SCOPES,
    TASK_NUMBER,
    predictor_pairs,
    predictor_table,
)
from pliant.results._profiles import Profile, performance_profile, profile_cells, profile_figure, profile_table
from pliant.results._rank_correlation import RankCorrelation, rank_correlation
from pliant.results._ranks import ranks
from pliant.results._run_folder import RunFolder, RunRecord
from pliant.results._spectrum_pictures import hessian_density, ntk_eigenvalues, spectra_over_time
from pliant.results._statistics import (
    FEWEST_SEEDS,
    LAST_TASKS,
    Spread,
    bootstrap_interval,
    rounded,
    spread,
    summarize_run,
)
from pliant.results._table import diagnosis_table, summary_table, summary_text
from pliant.results._text_table import TextFormat, terminal_table, text_table
from pliant.results._trackers import TRACKERS, MakeTracker, Tracker, tracking

__all__ = [
    "ACROSS",
    "AT_START",
    "COLUMNS",
    "FEWEST_SEEDS",
    "LAST_TASKS",
    "LOSS_REDUCED",
    "PICTURES",
    "POOLED",
    "SCOPES",
    "TASK_NUMBER",
    "TRACKERS",
    "Estimate",
    "MakeTracker",
    "MethodFolder",
    "Panel",
    "Profile",
    "RankCorrelation",
    "RunFolder",
    "RunRecord",
    "SeedBlock",
    "Series",
    "Spread",
    "TextFormat",
    "Tracker",
    "append_line",
    "bootstrap_interval",
    "compare",
    "comparison_cells",
    "curve_points",
    "diagnosis_table",
    "dormant_by_layer",
    "draw_picture",
    "end_scores",
    "environment",
    "fingerprint",
    "gradient_cosine",
    "hash_of_arrays",
    "headline_figure",
    "hessian_density",
    "learning_curves",
    "lower_is_better",
    "matrix_figure",
    "mean_estimate",
    "ntk_eigenvalues",
    "paired_difference",
    "performance_profile",
    "point_panels",
    "predictor_figure",
    "predictor_pairs",
    "predictor_table",
    "probability_of_improvement",
    "probe_curves",
    "profile_cells",
    "profile_figure",
    "profile_table",
    "rank_correlation",
    "ranks",
    "read_json",
    "rounded",
    "save_figure",
    "score_panels",
    "spectra_over_time",
    "spread",
    "summarize_run",
    "summary_table",
    "summary_text",
    "task_panels",
    "terminal_table",
    "text_table",
    "tracking",
    "write_json",
]
