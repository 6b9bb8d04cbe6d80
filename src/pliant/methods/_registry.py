"""From a name to a method: the registry, and methods in a user's own file."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from pliant import specs
from pliant.methods import (
    _architecture,
    _baselines,
    _isometry,
    _rates,
    _resets,
    _spectrum,
    _targets,
    _toward_start,
    _units,
    _utility,
)
from pliant.methods._combine import combine
from pliant.specs import Recorded
from pliant.types import Method

_FAMILIES = (
    _baselines,
    _isometry,
    _toward_start,
    _spectrum,
    _resets,
    _units,
    _utility,
    _architecture,
    _rates,
    _targets,
)
METHODS: Mapping[str, Method] = {method.name: method for family in _FAMILIES for method in family.METHODS}


def find(*methods: str | Method) -> Method:
    """Finds a method by its name in the registry, or as `path/to/file.py:name`; "+" combines several.

    Args:
      *methods: a registered name, a Python file and the name of a `Method` in it (the file is executed), or a `Method`;
        several of them, or with "+" between them, are combined, see `combine`.

    Raises:
      UserError: if there is no such method, file or name, or if what is there is not a `Method`.

    Example:
      >>> find("adamo").reference
      'Rosseau et al. 2026, equations 16–20'
      >>> find("redo+l2-init").name
      'redo+l2-init'
    """
    return combine(*(_find_one(part) for spec in methods for part in split_spec(spec)))


def split_spec(spec: str | Method) -> Sequence[str | Method]:
    """The members of a combination: splits at every plus, but for those in a path, from its first slash on.

    Example:
      >>> split_spec("redo+./my+file.py:mine")
      ['redo', './my+file.py:mine']
    """
    if not isinstance(spec, str):
        return [spec]
    parts = re.findall(r"[^+]*/.*?\.py:[^+]+|[^+]+", spec)
    return parts if "+".join(parts) == spec else [spec]


def recorded(spec: str | Method) -> Recorded:
    """Where a method came from, and the hash of the user's files among its members, or of an object's content.

    Example:
      >>> recorded("redo+l2-init")
      Recorded(source='redo+l2-init', sha256=None)
    """
    found = [specs.recorded(part, METHODS) for part in split_spec(spec)]
    hashes = [each.sha256 for each in found if each.sha256]
    return Recorded(found[0].source if len(found) == 1 else str(spec), "+".join(hashes) or None)


def user_files(spec: str) -> list[str]:
    """The user's own files among the members of a combination; `~` is the user's home.

    Example:
      >>> user_files("redo+./my+file.py:mine")
      ['./my+file.py']
    """
    return [file for file in map(specs.user_file, split_spec(spec)) if file]


def users_code(spec: str | Method) -> AbstractContextManager[None]:
    """See `pliant.specs.users_code`: for all members of a combination.

    Example:
      >>> with users_code("redo+adamo"):
      ...     pass
    """
    return specs.users_code({"method": split_spec(spec)})


def _find_one(spec: str | Method) -> Method:
    return specs.find("method", spec, METHODS, lambda found: isinstance(found, Method), "a pliant.types.Method")
