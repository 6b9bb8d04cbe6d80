import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "dead_relu_revival.py"))


@pytest.fixture(scope="module")
def small():
    return EXAMPLE["make_job"](num_examples=800)


@pytest.fixture(scope="module")
def found(small):
    return EXAMPLE["courses"](small, num_blocks=30)


def test_adam_has_killed_more_than_half(found):
    starts = [one.dead_fraction[0] for one in found.values()]
    assert starts[0] == starts[1] > 0.5


def test_adamo_brings_them_back_and_learns(found):
    assert found["AdamO"].dead_fraction[-1] < 0.1
    assert found["AdamO"].accuracy[-1] > 0.95


def test_adam_does_not(found):
    assert found["Adam"].dead_fraction[-1] > 0.3
    assert found["Adam"].accuracy[-1] < found["AdamO"].accuracy[-1]


def test_measure_sees_a_dead_unit(small):
    params, _ = small.network.init(jax.random.key(3))
    before, _ = EXAMPLE["measure"](small, params)
    params["dense_0"]["bias"] = params["dense_0"]["bias"].at[0].set(-1e6)
    after, _ = EXAMPLE["measure"](small, params)
    assert after > before


def test_the_figure_shows_the_numbers(found):
    left, right = EXAMPLE["draw"](found).axes
    for panel, field in ((left, "dead_fraction"), (right, "accuracy")):
        for line, one in zip(panel.lines, found.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), getattr(one, field))


def test_a_job_that_kills_nothing_says_so(small):
    with pytest.raises(RuntimeError, match="after 0 updates"):
        EXAMPLE["killed"](small, most=0)
