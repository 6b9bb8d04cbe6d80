import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "basin_tracking.py"))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 0.99])
def test_below_the_bound_gradient_descent_keeps_up(ratio):
    assert EXAMPLE["final_distance"](ratio * EXAMPLE["SHARPEST_ANGLE"], 20) < 1e-3


@pytest.mark.parametrize("ratio", [1.01, 1.1, 1.5, 2.0])
def test_above_the_bound_the_minimum_is_lost(ratio):
    """Even in the first micro-task, and gradient descent does not move from there."""
    angle = ratio * EXAMPLE["SHARPEST_ANGLE"]
    shift = 2 * np.sin(angle / 2)
    assert EXAMPLE["final_distance"](angle, 1) == pytest.approx(shift)
    assert shift > EXAMPLE["RADIUS"]


def test_above_the_bound_it_stays_lost():
    distances = EXAMPLE["distances_by_angle"](np.linspace(1.01, 2.0, 12))
    assert (distances >= EXAMPLE["RADIUS"]).all()


def test_the_same_change_in_more_micro_tasks_is_followed():
    enough = int(np.ceil(np.pi / EXAMPLE["SHARPEST_ANGLE"]))
    numbers = np.arange(1, 2 * enough)
    distances = EXAMPLE["distances_by_granularity"](numbers)
    assert (distances[numbers >= enough] < 1e-3).all()
    assert (distances[numbers < enough] >= EXAMPLE["RADIUS"]).all()


def test_with_too_few_steps_it_lags_behind():
    """The theorem wants gradient descent to come near each minimum before the next micro-task."""
    angle = 0.9 * EXAMPLE["SHARPEST_ANGLE"]
    assert EXAMPLE["final_distance"](angle, 20, num_steps=1) > 0.1
    assert EXAMPLE["final_distance"](angle, 20, num_steps=100) < 1e-3


def test_it_can_be_drawn():
    left, right = EXAMPLE["draw"]().axes
    assert len(left.lines[0].get_xdata()) == 39
    assert len(right.lines[0].get_xdata()) == 20
