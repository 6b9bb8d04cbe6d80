import numpy as np
import pytest

from pliant.tuning import Scored, make_trials, programs, select
from pliant.types import Choice, LogUniform, Uniform

SPACE = {"rate": LogUniform(1e-4, 1e-2), "share": Uniform(0.0, 1.0)}
DEFAULT = {"rate": 1e-3, "share": 0.5, "other": 7}
GOLDEN = [(0.000661, 0.964), (0.00278, 0.108), (0.00645, 0.529)]
NAN = float("nan")


def test_golden_points():
    """The first is the default; the others are those of scipy's sequence, scaled by hand."""
    from scipy.stats import qmc

    points = qmc.Sobol(2, rng=np.random.default_rng(0)).random(4)
    expected = [(float(f"{10 ** (-4 + 2 * x):.3g}"), float(f"{y:.3g}")) for x, y in points[:3]]
    trials = make_trials(SPACE, DEFAULT, 4)
    assert trials[0] == {"rate": 1e-3, "share": 0.5}
    assert [tuple(trial.values()) for trial in trials[1:]] == expected == GOLDEN


def test_more_trials_begin_with_the_same():
    few, many = (make_trials(SPACE, DEFAULT, number) for number in (5, 16))
    assert len(many) == 16
    assert many[:5] == few
    assert make_trials(SPACE, DEFAULT, 1) == few[:1]
    assert make_trials(SPACE, DEFAULT, 5, seed=1)[1:] != few[1:]


def test_points_fill_the_space_evenly():
    """Each sixteenth of both ranges has one of sixteen points, but for the last, whose place the defaults take."""
    trials = make_trials(SPACE, DEFAULT, 17)[1:]
    assert sorted(int(trial["share"] * 16) for trial in trials) == list(range(16))


def test_a_space_of_few_values_has_each_once():
    trials = make_trials({"k": Choice((1, 2, 3))}, {"k": 2}, 16)
    assert sorted(trial["k"] for trial in trials) == [1, 2, 3]
    assert trials[0] == {"k": 2}
    assert make_trials({}, DEFAULT, 16) == [{}]


def test_programs_are_grouped_by_what_shapes_them():
    trials = [{"k": k, "s": s, "x": x} for k, s, x in ((1, "a", 0.1), (2, "a", 0.2), (1, "a", 0.3), (1, "b", 0.1))]
    assert programs(trials, ["k", "s"]) == [[0, 2], [1], [3]]
    assert programs(trials, []) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("scores", "lower", "best"),
    [
        ([(0.5, 0), (0.7, 0), (0.6, 0)], False, 1),
        ([(0.5, 0), (0.7, 0), (0.6, 0)], True, 0),
        ([(0.7, 0), (0.7, 0)], False, 0),
        ([(0.0924999975, 0), (0.0925000012, 0)], False, 0),
        ([(NAN, 0), (0.1, 0)], False, 1),
        ([(0.9, 1), (0.1, 0)], False, 1),
        ([(0.1, 2), (0.9, 0)], True, 1),
        ([(NAN, 1), (0.3, 1), (0.4, 1)], False, 2),
        ([(NAN, 0), (NAN, 0)], False, 0),
        ([(float("inf"), 0), (5.0, 0)], True, 1),
    ],
)
def test_selection(scores, lower, best):
    assert select([Scored(*each) for each in scores], lower_is_better=lower) == best
