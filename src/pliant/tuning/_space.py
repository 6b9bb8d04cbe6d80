"""Where a value lies in what a hyperparameter is tuned over, and back."""

import math

from pliant.settings import Value
from pliant.types import Choice, LogUniform, Range

_NEAR = 0.1  # of a range, at either end


def value_at(of: Range, place: float) -> Value:
    """The value at a place in a range, rounded to three significant digits or to a whole number.

    Args:
      of: the range.
      place: in [0, 1).

    Example:
      >>> value_at(LogUniform(1e-4, 1e-2), 0.5), value_at(LogUniform(10, 1000, is_whole=True), 0.25)
      (0.001, 32)
      >>> value_at(Choice((0.9, 0.99, 0.999)), 0.4)
      0.99
    """
    if isinstance(of, Choice):
        return of.values[int(place * len(of.values))]
    low, high = _ends(of)
    number = low + place * (high - low)
    number = math.exp(number) if isinstance(of, LogUniform) else number
    return round(number) if isinstance(of, LogUniform) and of.is_whole else float(f"{number:.3g}")


def border_of(of: Range, value: Value) -> str:
    """Whether a value lies at the border of a range: "low", "high", or "" if it does not.

    The border is the lowest and the highest tenth of a range, in its own scale; of a choice among numbers the first and
    the last, if there are at least three. What lies beyond is at the border too. Texts, and true or false, have none.

    Example:
      >>> border_of(LogUniform(1e-4, 1e-2), 1.2e-4), border_of(Choice((1, 2, 3)), 3), border_of(Choice(("a", "b")), "a")
      ('low', 'high', '')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(of, Choice):
        if len(of.values) < 3:
            return ""
        return "low" if value <= of.values[0] else "high" if value >= of.values[-1] else ""  # type: ignore[operator]
    low, high = _ends(of)
    number = (math.log(value) if value > 0 else -math.inf) if isinstance(of, LogUniform) else value
    place = (number - low) / (high - low)
    return "low" if place < _NEAR else "high" if place > 1 - _NEAR else ""


def range_text(of: Range) -> str:
    """A range as it is printed.

    Example:
      >>> range_text(LogUniform(1e-4, 1e-2)), range_text(Choice((1, 2)))
      ('0.0001 to 0.01, log', '1, 2')
    """
    if isinstance(of, Choice):
        return ", ".join(map(str, of.values))
    scale = (", log" + ", whole" * of.is_whole) if isinstance(of, LogUniform) else ""
    return f"{of.low:g} to {of.high:g}{scale}"


def _ends(of: Range) -> tuple[float, float]:
    assert not isinstance(of, Choice)
    return (math.log(of.low), math.log(of.high)) if isinstance(of, LogUniform) else (of.low, of.high)
