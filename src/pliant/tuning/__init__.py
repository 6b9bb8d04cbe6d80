"""Tuning: every method gets the same number of trials, and is then measured on fresh seeds."""

from pliant.tuning._folder import Trial, TuningFolder, TuningRecord, is_tuned
from pliant.tuning._space import border_of, range_text, value_at
from pliant.tuning._table import tuning_cells, tuning_table
from pliant.tuning._trials import SAMPLER_SEED, Scored, make_trials, programs, select
from pliant.tuning._tune import FIRST_TUNING_SEED, Tuning, plan_tuning, tune_methods, tuning_path

__all__ = [
    "FIRST_TUNING_SEED",
    "SAMPLER_SEED",
    "Scored",
    "Trial",
    "Tuning",
    "TuningFolder",
    "TuningRecord",
    "border_of",
    "is_tuned",
    "make_trials",
    "plan_tuning",
    "programs",
    "range_text",
    "select",
    "tune_methods",
    "tuning_cells",
    "tuning_path",
    "tuning_table",
    "value_at",
]
