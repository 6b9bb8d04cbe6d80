"""Hashes that tell whether a run is the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def fingerprint(recorded: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a recorded configuration.

    Example:
      >>> fingerprint({"tasks": 1}) == fingerprint({"tasks": 2})
      False
    """
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()[:12]


def hash_of_arrays(arrays: Any) -> str:
    """The hash of a tree of arrays, so that a run is not continued on other data of the same name.

    Example:
      >>> hash_of_arrays([np.zeros(2)])[:8] == hash_of_arrays({"x": np.zeros(2)})[:8]
      True
    """
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        content.update(np.ascontiguousarray(leaf).data)
    return content.hexdigest()
