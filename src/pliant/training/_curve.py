"""The learning curve of a task: points within it, at which the learner is evaluated."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pliant.errors import UserError
from pliant.types import Source


class Point(NamedTuple):
    """A point of a learning curve, on the host."""

    step: int
    """Updates of the run before it."""
    numbers: Mapping[str, np.ndarray]
    """What updates have reported since the point before, one entry a slot."""
    scored: Any
    """What the source's `evaluate` returned, with a slot axis."""


def points_of(source: Source, index: int) -> list[int]:
    """The updates of a task after which a point of its curve is recorded; none if the source has no curve.

    Args:
      source: of the task.
      index: of the task, from 0.

    Raises:
      UserError: if they are not increasing numbers of updates, or the last is not the end of the task.
    """
    if source.points is None:
        return []
    total, points = source.num_updates(index), list(source.points(index))
    if points[-1:] != [total] or points != sorted({point for point in points if point > 0}):
        raise UserError(
            got=f"the points {', '.join(map(str, points)) or 'none'} of the learning curve of task {index + 1}",
            wanted=f"increasing numbers of updates, ≥ 1, the last of which is {total}, the end of the task",
            do="Correct the source's `points`.",
        )
    return points
