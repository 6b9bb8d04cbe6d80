"""Methods: the registry, combinations, and how a method is built for a network."""

from typing import NoReturn

from pliant.errors import UserError
from pliant.methods._apply_gradients import Applied, apply_gradients, begin_task, forward_pass
from pliant.methods._attach import attach
from pliant.methods._building import build, posing, retarget, wrapped
from pliant.methods._combine import combine
from pliant.methods._hyperparameters import (
    as_arrays,
    defaults,
    option_meanings,
    search_space,
    split_static,
    with_settings,
)
from pliant.methods._parts import Parts
from pliant.methods._plastic import Plastic, PlasticState
from pliant.methods._registry import FAMILIES, METHODS, find, split_spec
from pliant.methods._train_state import TrainState, View, begin_training, init_state, view

__all__ = [
    "FAMILIES",
    "METHODS",
    "Applied",
    "Parts",
    "Plastic",
    "PlasticState",
    "TrainState",
    "View",
    "apply_gradients",
    "as_arrays",
    "attach",
    "begin_task",
    "begin_training",
    "build",
    "combine",
    "defaults",
    "find",
    "forward_pass",
    "init_state",
    "option_meanings",
    "posing",
    "retarget",
    "search_space",
    "split_spec",
    "split_static",
    "view",
    "with_settings",
    "wrapped",
]

_RENAMED = {
    "adam_optimizer": "pliant.optimizers.adam(learning_rate, ...)",
    "on_roles": "pliant.types.Part(factory, roles=(...))",
    "reshape": "pliant.methods.retarget",
}


def __getattr__(name: str) -> NoReturn:
    if name in _RENAMED:
        raise UserError(got=f"pliant.methods.{name}", wanted=_RENAMED[name], do="Use that in its place.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
