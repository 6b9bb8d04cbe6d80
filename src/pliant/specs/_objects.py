"""Objects that a run is given in Python, in place of names."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Objects(NamedTuple):
    """What a configuration calls by a name, and is not found by it: objects given in Python.

    A configuration is text, so that it can be stored; this goes with it.
    """

    method: Mapping[str, Any] = {}
    stream: Mapping[str, Any] = {}
    network: Mapping[str, Any] = {}
    diagnostic: Mapping[str, Any] = {}
    environment: Mapping[str, Any] = {}
    dataset: Mapping[str, Any] = {}

    def spec(self, kind: str, name: str) -> Any:
        """The object that a configuration calls by a name; the name itself if it was given as one.

        Example:
          >>> objects = Objects(network={"mine": print})
          >>> objects.spec("network", "mine") is print, objects.spec("network", "mlp")
          (True, 'mlp')
        """
        return getattr(self, kind).get(name, name)


NO_OBJECTS = Objects()
"""For a configuration whose names are all found."""
