"""The id that is made of a configuration."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def fingerprint(recorded: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a recorded configuration.

    Example:
      >>> fingerprint({"tasks": 1}) == fingerprint({"tasks": 2})
      False
    """
    return hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()[:12]
