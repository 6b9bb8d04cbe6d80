"""The supervised loop: one step, a chunk of steps, a run; checkpoint and resume."""

from pliant.training._config import RunConfig
from pliant.training._diagnose_run import Diagnosis, diagnose_run
from pliant.training._learner import Learner, make_learner
from pliant.training._pace import num_steps
from pliant.training._plan import MethodPlan, Plan, fitting, make_plan, settings_in_use
from pliant.training._record import fingerprint, record
from pliant.training._run import Progress, run
from pliant.training._seeds import SeedAxis, choose_batching, seed_axis
from pliant.training._step import (
    Pace,
    SeedKeys,
    TrainState,
    init_state,
    seed_keys,
    train_chunk,
    train_step,
)

__all__ = [
    "Diagnosis",
    "Learner",
    "MethodPlan",
    "Pace",
    "Plan",
    "Progress",
    "RunConfig",
    "SeedAxis",
    "SeedKeys",
    "TrainState",
    "choose_batching",
    "diagnose_run",
    "fingerprint",
    "fitting",
    "init_state",
    "make_learner",
    "make_plan",
    "num_steps",
    "record",
    "run",
    "seed_axis",
    "seed_keys",
    "settings_in_use",
    "train_chunk",
    "train_step",
]
