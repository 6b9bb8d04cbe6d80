"""Results are data: run folders, statistics, tables and figures."""

from pliant.results._environment import environment
from pliant.results._figures import headline_figure, save_figure
from pliant.results._run_folder import COLUMNS, RunFolder
from pliant.results._statistics import Spread, spread, summarize_run
from pliant.results._table import diagnosis_table, summary_table

__all__ = [
    "COLUMNS",
    "RunFolder",
    "Spread",
    "diagnosis_table",
    "environment",
    "headline_figure",
    "save_figure",
    "spread",
    "summarize_run",
    "summary_table",
]
