"""The one exception for everything that a user can mend."""

import difflib
import math
from collections.abc import Iterable


class UserError(ValueError):
    """Something was asked that cannot be done: says what was got, what is wanted and what to do.

    The command line prints the message without a traceback and ends with exit code 2.

    Example:
      >>> str(UserError(got="tasks=0", wanted="tasks ≥ 1", do="Leave --tasks out for the default of 20."))
      'got tasks=0; wanted tasks ≥ 1. Leave --tasks out for the default of 20.'
    """

    def __init__(self, *, got: str, wanted: str, do: str):
        super().__init__(f"got {got}; wanted {wanted}. {do}")


def unknown_name(kind: str, name: str, known: Iterable[str], do: str) -> UserError:
    """The error for a name that no registry has, with the nearest name that one has.

    Example:
      >>> str(unknown_name("method", "adamoo", ["adam", "adamo"], "See `pliant list methods`."))
      "got the method 'adamoo'; wanted one of adam, adamo. Did you mean 'adamo'? See `pliant list methods`."
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(got=f"the {kind} {name!r}", wanted=f"one of {', '.join(known)}", do=hint + do)


def require_range(name: str, value: object, low: float, high: float = float("inf"), *, do: str) -> None:
    """Raises unless `low` ≤ `value` ≤ `high` and finite. Traced values and schedules pass: they are not known yet.

    Example:
      >>> require_range("b1", 0.9, 0, 1, do="Use a decay rate such as 0.9.")
    """
    if isinstance(value, int | float) and not (low <= value <= high and math.isfinite(value)):
        wanted = f"a finite number ≥ {low:g}" if math.isinf(high) else f"a number in [{low:g}, {high:g}]"
        raise UserError(got=f"{name}={value}", wanted=wanted, do=do)


def require_choice(name: str, value: object, default: str, *others: str) -> None:
    """Raises unless `value` is the default of an option or one of its other values.

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
