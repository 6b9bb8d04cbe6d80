"""The one place that turns a registered name, `path/to/file.py:name` or an object into an object."""

from pliant.specs._content import content_hash
from pliant.specs._find import find, load, name_of, split_options, user_file, users_code
from pliant.specs._objects import NO_OBJECTS, Objects
from pliant.specs._recorded import Recorded, recorded

__all__ = [
    "NO_OBJECTS",
    "Objects",
    "Recorded",
    "content_hash",
    "find",
    "load",
    "name_of",
    "recorded",
    "split_options",
    "user_file",
    "users_code",
]
