"""What a run's configuration says of an object, so that another object of that name is another configuration."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pliant.specs._content import content_hash
from pliant.specs._find import user_file


class Recorded(NamedTuple):
    """Where an object came from."""

    source: str | None
    """What names it: a registered name, or a file and a name. None for an object given in Python, which cannot be found
    by a name."""
    sha256: str | None
    """Of the file, or of the object's content. None for what is registered."""


def recorded(spec: object, known: Mapping[str, Any]) -> Recorded:
    """Where an object came from, and the hash of what it is.

    Args:
      spec: what `find` takes.
      known: the registry. An object that is registered is recorded by its name.

    Example:
      >>> recorded("adam", {}), recorded(len, {"len": len})
      (Recorded(source='adam', sha256=None), Recorded(source='len', sha256=None))
      >>> recorded(lambda x: x, {}).source is None
      True
    """
    if isinstance(spec, str):
        file = user_file(spec)
        return Recorded(spec, None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest())
    registered = next((name for name, each in known.items() if each is spec), None)
    return Recorded(registered, None if registered is not None else content_hash(spec))
