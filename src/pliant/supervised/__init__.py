"""Supervised problems: streams of tasks as sources of batches, and what a run of them is."""

from pliant.supervised._config import RunConfig
from pliant.supervised._evaluate import evaluate, mean_score, numbers
from pliant.supervised._pace import epoch_ends, micro_steps, num_steps
from pliant.supervised._plan import make_plan, make_stream, plan_suited
from pliant.supervised._record import record
from pliant.supervised._run import run
from pliant.supervised._source import Facts, probe_indices, source_of

__all__ = [
    "Facts",
    "RunConfig",
    "epoch_ends",
    "evaluate",
    "make_plan",
    "make_stream",
    "mean_score",
    "micro_steps",
    "num_steps",
    "numbers",
    "plan_suited",
    "probe_indices",
    "record",
    "run",
    "source_of",
]
