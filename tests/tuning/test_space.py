import pytest

from pliant.tuning import border_of, range_text, value_at
from pliant.types import Choice, LogUniform, Uniform


@pytest.mark.parametrize(
    ("of", "place", "value"),
    [
        (LogUniform(1e-4, 1e-2), 0.25, 0.000316),
        (LogUniform(1e-4, 1e-2), 0.0, 1e-4),
        (LogUniform(10, 1000, is_whole=True), 0.5, 100),
        (Uniform(0.2, 1.0), 0.75, 0.8),
        (Choice(("a", "b")), 0.49, "a"),
        (Choice((1, 2, 3)), 0.99, 3),
    ],
)
def test_value_at_a_place(of, place, value):
    found = value_at(of, place)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("of", "value", "border"),
    [
        (LogUniform(1e-4, 1e-2), 1.5e-4, "low"),
        (LogUniform(1e-4, 1e-2), 1.6e-4, ""),
        (LogUniform(1e-4, 1e-2), 0.1, "high"),
        (LogUniform(1e-4, 1e-2), 0.0, "low"),
        (Uniform(0.0, 1.0), 0.95, "high"),
        (Choice((1, 2, 3)), 1, "low"),
        (Choice((1, 2, 3)), 2, ""),
        (Choice((2, 3)), 3, ""),
        (Choice((False, True, None)), True, ""),
        (Choice(("a", "b", "c")), "c", ""),
    ],
)
def test_border(of, value, border):
    assert border_of(of, value) == border


def test_text():
    assert range_text(LogUniform(10, 5000, is_whole=True)) == "10 to 5000, log, whole"
    assert range_text(Uniform(0.2, 1.0)) == "0.2 to 1"
