"""The supervised loop: one step, a chunk of steps, a run; checkpoint and resume."""

from pliant.training._config import RunConfig
from pliant.training._learner import Learner, make_learner
from pliant.training._plan import MethodPlan, Plan, make_plan
from pliant.training._record import fingerprint, record
from pliant.training._run import Progress, num_steps_per_task, run
from pliant.training._seeds import SeedAxis, choose_batching, seed_axis
from pliant.training._step import (
    SeedKeys,
    TrainState,
    init_state,
    is_correct,
    seed_keys,
    train_chunk,
    train_step,
)

__all__ = [
    "Learner",
    "MethodPlan",
    "Plan",
    "Progress",
    "RunConfig",
    "SeedAxis",
    "SeedKeys",
    "TrainState",
    "choose_batching",
    "fingerprint",
    "init_state",
    "is_correct",
    "make_learner",
    "make_plan",
    "num_steps_per_task",
    "record",
    "run",
    "seed_axis",
    "seed_keys",
    "train_chunk",
    "train_step",
]
