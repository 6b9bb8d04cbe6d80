"""The named recipes: what the command line calls a method."""

from pliant.methods._builders import adam_optimizer, on_roles
from pliant.methods._hyperparameters import Parts, as_arrays, build, defaults, split_static, with_settings
from pliant.methods._registry import METHODS, find, users_code

__all__ = [
    "METHODS",
    "Parts",
    "adam_optimizer",
    "as_arrays",
    "build",
    "defaults",
    "find",
    "on_roles",
    "split_static",
    "users_code",
    "with_settings",
]
