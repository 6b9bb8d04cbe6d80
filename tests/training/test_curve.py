"""Which points a learning curve has, and which are refused."""

import pytest

from pliant.errors import UserError
from pliant.training._curve import points_of
from pliant.types import Source


def _source(points):
    nothing = dict.fromkeys(name for name in Source._fields if name not in Source._field_defaults)
    return Source(**nothing)._replace(points=points, num_updates=lambda index: 10 + index)


def test_points():
    assert points_of(_source(None), 0) == []
    assert points_of(_source(lambda index: [4, 10 + index]), 1) == [4, 11]
    assert points_of(_source(lambda index: [10]), 0) == [10]


@pytest.mark.parametrize("points", [(), (4,), (4, 4, 12), (7, 4, 12), (0, 12), (4, 12, 14)])
def test_points_that_do_not_end_with_the_task(points):
    names = ", ".join(map(str, points)) or "none"
    wanted = "increasing numbers of updates, ≥ 1, the last of which is 12, the end of the task"
    with pytest.raises(UserError, match=f"got the points {names} of the learning curve of task 3; wanted {wanted}"):
        points_of(_source(lambda index: list(points)), 2)
