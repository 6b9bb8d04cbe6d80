"""What updates report, summed over a task."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pliant.errors import UserError
from pliant.types import Mean


class Sums:
    """Sums over the updates of a task, one entry a slot.

    Example:
      >>> sums = Sums()
      >>> sums.add({"loss": np.array([[1.0, 2.0, 0.0]]), "resets": np.array([[3, 4, 0]])}, num_updates=2)
      >>> {name: values.tolist() for name, values in sums.numbers(2).items()}
      {'loss': [1.5], 'resets': [7]}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}

    def add(self, info: Mapping[str, Any], num_updates: int) -> None:
        """Adds the first updates of a chunk, one by one: chunks, whose size depends on the clock, change no bit."""
        for name, values in info.items():
            if name not in self._sums:
                self._sums[name] = jax.tree.map(lambda leaf: np.zeros(len(leaf), _wide(leaf)), values)
            self._sums[name] = jax.tree.map(
                lambda total, leaf: np.column_stack([total, leaf[:, :num_updates]]).cumsum(axis=1)[:, -1],
                self._sums[name],
                values,
            )

    def numbers(self, num_updates: int) -> dict[str, np.ndarray]:
        """By name: sums of integers, each `Mean`, and means of other numbers over the updates."""
        return {name: _number(total, num_updates) for name, total in self._sums.items()}

    def mean(self, name: str, num_updates: int) -> float:
        """One of them so far, mean over the slots that have it; NaN if none has, or nobody reports it."""
        total = self._sums.get(name, np.zeros(0))
        values = _number(total, num_updates)
        known = values[~np.isnan(values)] if isinstance(total, Mean) else values
        return float(known.mean()) if len(known) else float("nan")


def together(*infos: Mapping[str, Any]) -> dict[str, Any]:
    """Joins what is reported of one update.

    Raises:
      UserError: if two of them report a number of one name.

    Example:
      >>> together({"loss": 1.0}, {"resets": 2})
      {'loss': 1.0, 'resets': 2}
    """
    joined: dict[str, Any] = {}
    for info in infos:
        twice = sorted(joined.keys() & info.keys())
        if twice:
            raise UserError(
                got=f"two numbers named {twice[0]!r} of one update",
                wanted="a name for each",
                do="Rename the one that your diagnostic, method or source reports.",
            )
        joined |= info
    return joined


def _number(total: Any, num_updates: int) -> np.ndarray:
    if isinstance(total, Mean):
        with np.errstate(invalid="ignore"):
            return np.asarray(total.total / np.where(total.number == 0, np.nan, total.number))
    return np.asarray(total if total.dtype.kind in "iu" else total / num_updates)


def _wide(leaf: np.ndarray) -> type:
    return np.int64 if leaf.dtype.kind in "iu" else np.float64
