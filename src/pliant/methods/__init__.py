"""The named recipes: what the command line calls a method."""

from typing import NoReturn

from pliant.errors import UserError
from pliant.methods._builders import adam_optimizer, on_roles
from pliant.methods._combine import combine
from pliant.methods._hyperparameters import (
    Parts,
    as_arrays,
    build,
    defaults,
    option_meanings,
    retarget,
    split_static,
    with_settings,
    wrapped,
)
from pliant.methods._registry import METHODS, find, recorded, split_spec, user_files, users_code

__all__ = [
    "METHODS",
    "Parts",
    "adam_optimizer",
    "as_arrays",
    "build",
    "combine",
    "defaults",
    "find",
    "on_roles",
    "option_meanings",
    "recorded",
    "retarget",
    "split_spec",
    "split_static",
    "user_files",
    "users_code",
    "with_settings",
    "wrapped",
]

_RENAMED = {"reshape": "retarget"}


def __getattr__(name: str) -> NoReturn:
    if name in _RENAMED:
        new = f"pliant.methods.{_RENAMED[name]}"
        raise UserError(got=f"pliant.methods.{name}", wanted=f"{new}, its new name", do="Use the new name.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
