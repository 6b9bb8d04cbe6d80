"""Numbers that may arrive as tensors or arrays."""

import math
from typing import Any, SupportsFloat, TypeAlias

from pliant.errors import UserError, require_range, require_whole

Number: TypeAlias = SupportsFloat
"""A number of Python's or NumPy's, or a tensor or an array with one entry."""


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, do: str) -> float:
    """Python's number for one that may be a tensor or an array of one entry.

    Raises:
      UserError: unless it is one finite real number from `low` to `high`.

    Example:
      >>> number("gain", 2, 0, do="Use 1 for isometry.")
      2
    """
    is_single = hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1
    plain = value.item() if is_single else value
    if not isinstance(plain, int | float):
        raise UserError(got=f"{name}={value!r}", wanted="a finite number", do=do)
    require_range(name, plain, low, high, do=do)
    return plain


def whole_number(name: str, value: Any, low: int, *, do: str) -> int:
    """Python's integer for one that may be a tensor or an array of one entry.

    Raises:
      UserError: unless it is a whole number ≥ `low`.

    Example:
      >>> whole_number("every", 16.0, 1, do="Use 1000, the default.")
      16
    """
    plain = number(name, value, low, do=do)
    require_whole(name, plain, low, do=do)
    return int(plain)
