"""The engine: one update, a chunk of updates, a run of many methods; checkpoints. It knows sources, not problems."""

from typing import NoReturn

from pliant.errors import UserError
from pliant.methods import TrainState, init_state
from pliant.training._background_writer import BackgroundWriter
from pliant.training._check import check_protocol
from pliant.training._checkpoint import Checkpoints
from pliant.training._chunk import Pace, Setting, train_chunk
from pliant.training._diagnose import due, first_subject
from pliant.training._diagnose_run import Diagnosis, diagnose_plan
from pliant.training._learner import Begun, Learner, make_learner
from pliant.training._network import network_factory
from pliant.training._observe import Observed, Shared
from pliant.training._place import run_folder
from pliant.training._plan import MethodPlan, Plan, plan_method
from pliant.training._protocol import Protocol
from pliant.training._rates import rates, sampled_weights
from pliant.training._record import as_data, data_source, record_method, record_sources, settings_of
from pliant.training._run import Progress, train
from pliant.training._seeds import SeedAxis, choose_batching, seed_axis
from pliant.training._selection import Best, better, no_best
from pliant.training._settings import check_names, of_names, parse_grid, parse_settings, with_options
from pliant.training._state import Carry, init_carry
from pliant.training._step import Stepped, train_step
from pliant.training._sums import Sums
from pliant.training._switch import switch_task
from pliant.training._trainer import Trainer

__all__ = [
    "BackgroundWriter",
    "Begun",
    "Best",
    "Carry",
    "Checkpoints",
    "Diagnosis",
    "Learner",
    "MethodPlan",
    "Observed",
    "Pace",
    "Plan",
    "Progress",
    "Protocol",
    "SeedAxis",
    "Setting",
    "Shared",
    "Stepped",
    "Sums",
    "TrainState",
    "Trainer",
    "as_data",
    "better",
    "check_names",
    "check_protocol",
    "choose_batching",
    "data_source",
    "diagnose_plan",
    "due",
    "first_subject",
    "init_carry",
    "init_state",
    "make_learner",
    "network_factory",
    "no_best",
    "of_names",
    "parse_grid",
    "parse_settings",
    "plan_method",
    "rates",
    "record_method",
    "record_sources",
    "run_folder",
    "sampled_weights",
    "seed_axis",
    "settings_of",
    "switch_task",
    "train",
    "train_chunk",
    "train_step",
    "with_options",
]

_MOVED = {
    **{name: f"pliant.supervised.{name}" for name in ("RunConfig", "make_plan", "num_steps", "run")},
    "diagnose_run": "pliant.problems.diagnose_run",
    **{name: f"pliant.supervised.{name}" for name in ("record", "settings_in_use")},
    "fitting": "pliant.supervised.plan_suited",
    **{name: f"pliant.keys.{name}" for name in ("SeedKeys", "seed_keys")},
    **{name: f"pliant.streams.{name}" for name in ("beam_search", "greedy")},
}


def __getattr__(name: str) -> NoReturn:
    """Says where a name is that was here once."""
    if name in _MOVED:
        raise UserError(got=f"pliant.training.{name}", wanted=_MOVED[name], do="Import it from there: it has moved.")
    raise AttributeError(f"module 'pliant.training' has no attribute {name!r}")
