"""Numbers on the page: as short JSON, and as text."""

import math
from collections.abc import Iterable
from typing import Any

_DIGITS = 5  # more than a screen shows


def short(values: Iterable[Any]) -> list[float | int | None]:
    """Numbers for JSON with five significant digits; None for what is not finite.

    Example:
      >>> short([0.123456789, 3.0, float("nan")])
      [0.12346, 3, None]
    """
    return [_short(float(value)) for value in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded


def shown(value: Any, form: str = ".4g") -> str:
    """A number as text, or a dash where there is none; other values as they are.

    Example:
      >>> shown(0.123456), shown(float("nan")), shown(1234567), shown("adam")
      ('0.1235', '–', '1,234,567', 'adam')
    """
    if isinstance(value, bool) or value is None:
        return "–" if value is None else ("yes" if value else "no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "–" if math.isnan(value) else format(value, form)
    return str(value)
