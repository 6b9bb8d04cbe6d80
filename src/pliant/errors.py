"""The exception for everything that a user can correct, and the checks that raise it."""

import difflib
import math
import numbers
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_ROUNDING = {4: 2.0**-23, 2: 2.0**-8, 1: 2.0**-3}
"""Relative rounding error by the size of a type in bytes: 0.9 in float32 is below 0.9."""

_LONGEST = 300


class UserError(ValueError):
    """The error for a request that cannot be met; its message says what was got, what is wanted and what to do.

    The command line prints the message without a traceback and exits with code 2.

    Example:
      >>> str(UserError(got="tasks=0", wanted="tasks ≥ 1", do="Leave --tasks out for the default of 20."))
      'got tasks=0; wanted tasks ≥ 1. Leave --tasks out for the default of 20.'
    """

    def __init__(self, *, got: str, wanted: str, do: str):
        super().__init__(f"got {got}; wanted {wanted}. {do}")
        self.got, self.wanted, self.do = got, wanted, do


class BusyError(UserError):
    """The error for what another process is working on: the same request succeeds when that has ended."""


def in_one_line(error: Exception) -> str:
    """The message of an exception, in one line.

    Example:
      >>> in_one_line(KeyError("conv")), in_one_line(AssertionError())
      ("KeyError: 'conv'", 'AssertionError')
    """
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kind = "" if isinstance(error, UserError) else type(error).__name__
    text = ": ".join(part for part in (kind, first) if part)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class MissingExtraError(UserError, ModuleNotFoundError):
    """The error for packages that are not installed and that only some users need."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Imports packages that only some users need; if one is missing, names the extra of pliant that installs it.

    Args:
      name: the extra, as in pyproject.toml.
      purpose: what needs the packages, for the message.

    Raises:
      MissingExtraError: if the imports below it fail.

    Example:
      >>> try:
      ...     with extra("rl", "Octax"):
      ...         raise ModuleNotFoundError("No module named 'octax'", name="octax")
      ... except UserError as error:
      ...     print(error)
      got a Python without octax; wanted the packages for Octax. Install them with pip install 'pliant[rl]'.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        is_missing = isinstance(error, ModuleNotFoundError) and package
        missing = MissingExtraError(
            got=f"a Python without {package}" if is_missing else f"a package that cannot be imported ({error})",
            wanted=f"the packages for {purpose}",
            do=f"Install them with pip install 'pliant[{name}]'.",
        )
        missing.name = error.name
        raise missing from error


def unknown_name(kind: str, name: str, known: Iterable[str], do: str) -> UserError:
    """The error for an unknown name, with the nearest known one.

    Example:
      >>> str(unknown_name("method", "adamoo", ["adam", "adamo"], "See `pliant list methods`."))
      "got the method 'adamoo'; wanted one of adam, adamo. Did you mean 'adamo'? See `pliant list methods`."
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(got=f"the {kind} {name!r}", wanted=f"one of {', '.join(known)}", do=hint + do)


def require_range(name: str, value: object, low: float, high: float = math.inf, *, do: str) -> None:
    """Raises unless `value` is one finite number with `low` ≤ `value` ≤ `high`.

    Numbers may be Python's, or arrays and tensors without axes. Values that are not known yet pass: traced values,
    schedules (any callable), and None for an argument left out.

    Example:
      >>> require_range("b1", 0.9, 0, 1, do="Use a decay rate such as 0.9.")
    """
    if _is_known(value):
        number = _number(value)
        slack = _ROUNDING.get(getattr(getattr(value, "dtype", None), "itemsize", 8), 0.0)
        least, most = low - slack * min(abs(low), 1e300), high + slack * min(abs(high), 1e300)
        if number is None or not (least <= number <= most and math.isfinite(number)):
            bounds = f" ≥ {low:g}" if math.isfinite(low) else ""
            wanted = f"a finite number{bounds}" if math.isinf(high) else f"a number in [{low:g}, {high:g}]"
            raise UserError(got=f"{name}={_shown(value, number)}", wanted=wanted, do=do)


def require_whole(name: str, value: Any, low: int, high: float = math.inf, *, do: str) -> Any:
    """Raises unless `value` is a whole number with `low` ≤ `value` ≤ `high`; otherwise as `require_range`.

    Returns:
      The value as a Python integer; unchanged if it is not known yet.

    Example:
      >>> require_whole("every", 16.0, 1, do="Use a period in updates, such as 16.")
      16
    """
    require_range(name, value, low, high, do=do)
    number = _number(value) if _is_known(value) else None
    if number is not None and number != math.floor(number):
        raise UserError(got=f"{name}={_shown(value, number)}", wanted=f"a whole number ≥ {low}", do=do)
    return value if number is None else int(number)


def _is_known(value: object) -> bool:
    jax = sys.modules.get("jax")  # without it nothing is traced
    return value is not None and not callable(value) and not (jax and isinstance(value, jax.core.Tracer))


def _number(value: object) -> float | None:
    """A number, or an array or tensor without axes, as a Python number; None for everything else."""
    if not isinstance(value, numbers.Real) and hasattr(value, "item") and tuple(getattr(value, "shape", (0,))) == ():
        value = value.item()
    if not isinstance(value, numbers.Real) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        wide = float(value)
    except OverflowError:
        return math.inf
    return value if isinstance(value, int) else wide


def _shown(value: object, number: float | None) -> str:
    if number is not None:
        return str(number) if isinstance(value, int | float) else f"{number:g}"
    shape = tuple(getattr(value, "shape", ()))
    return f"an array of shape {shape}" if shape else repr(value)


def require_choice(name: str, value: object, default: str, *others: str) -> None:
    """Raises unless `value` is one of an option's values; the first is its default.

    Example:
      >>> require_choice("norm", "layer", "none", "layer")
    """
    if value not in (default, *others):
        *most, last = [repr(choice) for choice in (default, *others)]
        raise UserError(
            got=f"{name}={value!r}", wanted=f"{', '.join(most)} or {last}", do=f"Leave it out for {default!r}."
        )


def require_adam(learning_rate: object, b1: object, b2: object, eps: object) -> None:
    """Raises unless Adam's numbers are in range.

    Example:
      >>> require_adam(1e-3, b1=0.9, b2=0.999, eps=1e-8)
    """
    require_range("learning_rate", learning_rate, 0, do="Use a step size such as 1e-3.")
    require_range("b1", b1, 0, 0.999999, do="0.9 is usual.")
    require_range("b2", b2, 0, 0.999999, do="0.999 is usual.")
    require_range("eps", eps, 0, do="1e-8 is usual.")
