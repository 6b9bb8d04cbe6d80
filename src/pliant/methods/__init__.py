"""The named recipes: what the command line calls a method."""

from pliant.methods._builders import adam_optimizer, on_roles
from pliant.methods._combine import combine
from pliant.methods._hyperparameters import (
    Parts,
    as_arrays,
    build,
    defaults,
    option_meanings,
    reshape,
    split_static,
    with_settings,
    wrapped,
)
from pliant.methods._registry import METHODS, find, split_spec, user_files, users_code

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
    "reshape",
    "split_spec",
    "split_static",
    "user_files",
    "users_code",
    "with_settings",
    "wrapped",
]
